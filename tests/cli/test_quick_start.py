"""`sddpm sample` starts without the slow imports that it does not need."""

import subprocess
import sys

import pytest
import torch

from sddpm.diffusion.solvers import make_scheduler
from sddpm.models import SpikingUNet2DModel
from sddpm.models.embeddings import sinusoidal_table
from sddpm.pipelines import SpikingDiffusionPipeline, load_pipeline
from sddpm.pipelines.plain import load_plain

SLOW = {"torch._dynamo", "sympy", "scipy.stats._stats_py", "scipy.integrate._ode", "diffusers.pipelines.pipeline_utils"}


@pytest.fixture
def saved_model(tmp_path):
    torch.manual_seed(0)
    unet = SpikingUNet2DModel(sample_size=8, in_channels=1, out_channels=1, base_channels=8, num_classes=3, T=2)
    pipeline = SpikingDiffusionPipeline(unet, make_scheduler("ddpm"), x0_scale=1.01, num_inference_steps=3)
    pipeline.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def run(script, *arguments, cwd):
    done = subprocess.run([sys.executable, "-c", script, *map(str, arguments)], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_sampling_imports_nothing_slow(saved_model, tmp_path):
    script = (
        "import sys; from sddpm.cli.main import app\n"
        "app(['sample', sys.argv[1], '--count', '1', '--steps', '2', '--device', 'cpu'], standalone_mode=False)\n"
        f"print(sorted({SLOW!r} & set(sys.modules)))"
    )
    assert run(script, saved_model, cwd=tmp_path).endswith("[]\n")
    assert (tmp_path / "samples.png").is_file()


def test_what_was_left_out_can_be_imported_later(tmp_path):
    script = (
        "from sddpm.cli.quick_start import import_diffusers\n"
        "import_diffusers()\n"
        "import scipy.integrate._quadrature, scipy.stats, scipy.integrate, torch, torch._dynamo\n"
        "print(scipy.stats.norm.cdf(0.0), scipy.integrate.quad(lambda x: 2 * x, 0, 1)[0])\n"
        "from diffusers import DPMSolverMultistepScheduler\n"
        "scheduler = DPMSolverMultistepScheduler(use_beta_sigmas=True)\n"
        "scheduler.set_timesteps(3)\n"
        "print(len(scheduler.timesteps), float(torch.compile(lambda x: x + 1, backend='eager')(torch.ones(()))))"
    )
    assert run(script, cwd=tmp_path) == "0.5 1.0\n3 2.0\n"


def test_the_plain_pipeline_samples_the_same(saved_model):
    whole, plain = load_pipeline(saved_model), load_plain(saved_model)
    assert plain.about == whole.about and plain.num_inference_steps == 3
    pairs = [pipe.stream([5, 7, 9], batch_size=2, class_labels=[0, 1, 2], progress=False) for pipe in (whole, plain)]
    for (seeds, images), (same_seeds, same_images) in zip(*pairs, strict=True):
        assert seeds == same_seeds and torch.equal(images, same_images)
    assert plain.to("meta").device == torch.device("meta")


def test_a_network_without_memory_has_no_table():
    with torch.device("meta"):
        table = sinusoidal_table(10**9, 10**6)
    assert table.device.type == "meta" and table.shape == (10**9, 10**6)
