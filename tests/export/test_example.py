"""examples/onnx_sample.py and nir_sample.py: the same pictures without this package."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sddpm.data import unit_to_uint8
from sddpm.export.nir_file import export_nir
from sddpm.export.onnx_file import export_onnx
from sddpm.export.onnx_runner import load_onnx
from tests.helpers.small_pipeline import pipeline_of

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
EXAMPLE = EXAMPLES / "onnx_sample.py"


@pytest.mark.parametrize("classes", [None, 3])
def test_the_example_draws_what_ours_draws(classes, tmp_path):
    file, out = tmp_path / "model.onnx", tmp_path / "out.png"
    export_onnx(pipeline_of(scale=1.02, num_classes=classes), file)
    options = [] if classes is None else ["--class", "1"]
    subprocess.run([sys.executable, EXAMPLE, file, out, "--count", "3", "--steps", "4", *options], check=True)
    images = load_onnx(file)(
        seeds=range(3),
        num_inference_steps=4,
        output_type="pt",
        progress=False,
        class_labels=None if classes is None else 1,
    ).images
    expected = unit_to_uint8(torch.as_tensor(images))[:, 0].permute(1, 0, 2).reshape(8, 24).numpy()
    found = np.asarray(Image.open(out))
    assert (np.abs(found.astype(int) - expected) <= 1).mean() > 0.95  # a spike that flips may change some


@pytest.mark.parametrize("example", ["onnx_sample.py", "nir_sample.py"])
def test_a_distilled_model_keeps_to_its_time_steps(example, tmp_path):
    kept, out = [999, 500, 120], tmp_path / "out.png"
    pipe = pipeline_of(channel_mult=(1,), pure=True, T=3, patch_size=2, timesteps=kept)
    if example == "nir_sample.py":
        pytest.importorskip("spikingjelly")
        file = tmp_path / "model.nir"
        export_nir(pipe, file)
    else:
        file = tmp_path / "model.onnx"
        export_onnx(pipe, file)
    command = [sys.executable, EXAMPLES / example, file, out, "--count", "3"]
    for steps in ([], ["--steps", "3"]):
        subprocess.run([*command, *steps], check=True)
        images = pipe(seeds=range(3), engine="eager", output_type="pt", progress=False).images
        expected = unit_to_uint8(torch.as_tensor(images))[:, 0].permute(1, 0, 2).reshape(8, 24).numpy()
        found = np.asarray(Image.open(out))
        assert found.std() > 5
        assert (np.abs(found.astype(int) - expected) <= 1).mean() > 0.95  # a spike that flips may change some
    done = subprocess.run([*command, "--steps", "4"], capture_output=True, text=True)
    line = "error: this model was distilled to 3 evaluations: leave out --steps"
    assert done.returncode == 2 and done.stderr.splitlines()[-1] == line


@pytest.mark.parametrize("classes", [None, 3])
def test_spikingjelly_draws_what_ours_draws(classes, tmp_path):
    """The example of NIR reads the diffusion step, the class and T from the file's metadata."""
    pytest.importorskip("spikingjelly")
    pipe = pipeline_of(scale=1.02, num_classes=classes, channel_mult=(1,), pure=True, T=3, patch_size=2)
    file, out = tmp_path / "model.nir", tmp_path / "out.png"
    export_nir(pipe, file)
    options = [] if classes is None else ["--class", "1"]
    command = [sys.executable, EXAMPLES / "nir_sample.py", file, out, "--count", "3", "--steps", "4", *options]
    subprocess.run(command, check=True)
    given = {} if classes is None else {"class_labels": 1}
    images = pipe(
        seeds=range(3), solver="ddim", num_inference_steps=4, engine="eager", output_type="pt", progress=False, **given
    ).images
    expected = unit_to_uint8(torch.as_tensor(images))[:, 0].permute(1, 0, 2).reshape(8, 24).numpy()
    found = np.asarray(Image.open(out))
    assert found.std() > 5
    assert (np.abs(found.astype(int) - expected) <= 1).mean() > 0.95  # a spike that flips may change some


def test_the_example_imports_nothing_else():
    unwanted = "{'torch', 'sddpm', 'onnx'} & set(sys.modules)"
    code = f"import runpy, sys; runpy.run_path({str(EXAMPLE)!r}); assert not {unwanted}"
    subprocess.run([sys.executable, "-c", code], check=True)
