"""`sddpm convert` and `sddpm info` from the shell, on the reference's own checkpoints."""

import json
import subprocess
import sys

import pytest
import torch

from sddpm import load_pipeline
from sddpm.conversion import from_reference
from sddpm.diffusion.solvers import make_scheduler
from sddpm.guidance import store_sampler
from sddpm.pipelines import Sampler, SpikingDiffusionPipeline
from tests.helpers.small_pipeline import pipeline_of


def shell(*arguments):
    """Run the command line in a process of its own."""
    command = [sys.executable, "-m", "sddpm", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_there_and_back(vectors_dir, tmp_path):
    checkpoint = vectors_dir / "sdm_tsm_rgb16_T4.ckpt.pt"
    done = shell("convert", checkpoint, tmp_path / "model")
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()[0]
    for fact in ("base_channels=16", "channel_mult=[1, 2, 2]", "num_res_blocks=1", "temporal_modulation=True", "T=4",
                 "sample_size=16", "assumed neuron=if, v_threshold=1.0"):  # fmt: skip
        assert fact in said

    case = torch.load(vectors_dir / "sdm_tsm_rgb16_T4.case.pt", weights_only=True)
    unet = load_pipeline(tmp_path / "model").unet.double()
    with torch.no_grad():
        out = unet(case["x"].double(), case["t"]).sample
    assert torch.allclose(out, case["eval_f64"], rtol=1e-9, atol=1e-9)

    described = shell("info", tmp_path / "model", "--layers")
    assert described.returncode == 0, described.stderr
    for fact in ("T = 4", "IF", "TSM          yes", "1 in all layers", "16, 32, 32 channels", "encoder.conv1"):
        assert fact in described.stdout

    assert shell("convert", tmp_path / "model", tmp_path / "back.pt").returncode == 0
    original = torch.load(checkpoint, weights_only=True)["net_model"]
    back = torch.load(tmp_path / "back.pt", weights_only=True)["net_model"]
    assert {k: v.shape for k, v in back.items()} == {k: v.shape for k, v in original.items()}
    assert all(torch.equal(back[k], original[k]) for k in original)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent.pt", "out"], "nothing at absent.pt"),
        (["text.pt", "out"], "text.pt is not a torch checkpoint"),
        (["empty", "out.pt"], "empty is not a model"),
        (["{checkpoint}", "taken"], "taken already exists"),
        (["{checkpoint}", "out.pt"], "a converted model is a folder"),
        (["{checkpoint}", "out", "--T", "0"], "T must be a whole number of at least 1, got 0"),
        (["{checkpoint}", "out", "--neuron", "hodgkin"], "unknown neuron 'hodgkin'"),
        (["{checkpoint}", "out", "--image-size", "32"], "shows sample_size=16"),
        (["{checkpoint}", "out", "--v-threshold", "-1"], "v_threshold must be a positive number"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(vectors_dir, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.pt").write_text("no checkpoint")
    (tmp_path / "empty").mkdir()
    (tmp_path / "taken").mkdir()
    checkpoint = vectors_dir / "sddpm_rgb16_T4.ckpt.pt"
    before = sorted(tmp_path.rglob("*"))
    done = shell("convert", *[argument.format(checkpoint=checkpoint) for argument in arguments])
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1 and message in done.stderr
    assert sorted(tmp_path.rglob("*")) == before


@pytest.fixture
def converted(vectors_dir, tmp_path):
    """A model that the reference's layout can keep."""
    model = from_reference(vectors_dir / "sddpm_rgb16_T4.ckpt.pt").model
    SpikingDiffusionPipeline(model, make_scheduler("ddim")).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize(
    ("file", "values", "message"),
    [
        ("scheduler/scheduler_config.json", {"prediction_type": "v_prediction"}, "predicts epsilon, that of model"),
        ("scheduler/scheduler_config.json", {"beta_schedule": "squaredcos_cap_v2"}, "model is squaredcos_cap_v2 from"),
        ("scheduler/scheduler_config.json", {"beta_end": 0.03}, "model is linear from 0.0001 to 0.03"),
        (
            "scheduler/scheduler_config.json",
            {"timesteps": [999, 300], "distilled": True},
            "only at its distilled time steps",
        ),
        ("model_index.json", {"threshold_guidance": {"v_threshold": 0.9}}, "guide COPY --clear\n"),
        ("model_index.json", {"x0_scale": 1.02}, "guide COPY --clear --search x0-scale\n"),
    ],
)
def test_a_model_that_would_lose_something_is_not_converted_back(sddpm, converted, file, values, message):
    content = json.loads((converted / file).read_text())
    (converted / file).write_text(json.dumps(content | values))
    code, _, error = sddpm("convert", "model", "back.pt")
    assert code == 2 and message in error and error.splitlines()[-1].startswith("error: ")
    assert not (converted.parent / "back.pt").exists()
    (converted / file).write_text(json.dumps(content))
    assert sddpm("convert", "model", "back.pt")[0] == 0


def test_samplers_that_are_not_converted_back_are_named(sddpm, converted):
    assert "samplers" not in sddpm("convert", "model", "without.pt")[1]
    store_sampler(converted, "fast", Sampler("dpm++", 8))
    store_sampler(converted, "best", Sampler("ddim", 50))
    code, out, _ = sddpm("convert", "model", "back.pt")
    assert (
        code == 0
        and "back.pt does not have the samplers of model, for which its layout has no place: best, fast\n" in out
    )


def test_layers_of_a_model_with_attention_are_listed(sddpm, tmp_path):
    pipeline_of(attention_resolutions=(4,)).save_pretrained(tmp_path / "model")
    code, out, _ = sddpm("info", "model", "--layers")
    (product, *_) = (line.split() for line in out.splitlines() if ".attention.product " in line)
    assert code == 0 and product[1] == "product" and product[-2:] == ["M", "MACs"]


def test_force_replaces(vectors_dir, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model_index.json").write_text('{"_class_name": "SpikingDiffusionPipeline"}')
    (tmp_path / "model" / "samples.png").write_text("old")
    done = shell("convert", vectors_dir / "sddpm_rgb16_T4.ckpt.pt", tmp_path / "model", "--force")
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "model" / "samples.png").exists() and (tmp_path / "model" / "unet").exists()


def test_force_does_not_replace_what_is_no_model(vectors_dir, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "note.txt").write_text("mine")
    done = shell("convert", vectors_dir / "sddpm_rgb16_T4.ckpt.pt", tmp_path / "model", "--force")
    assert done.returncode == 2 and "was not written by sddpm and will not be replaced" in done.stderr
    assert (tmp_path / "model" / "note.txt").read_text() == "mine"
