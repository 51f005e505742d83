"""A small spiking model whose best threshold is known: the reference was sampled with it."""

import numpy as np
import pytest
import torch

from sddpm.diffusion.solvers import make_scheduler
from sddpm.evaluation import EvaluationSettings, SamplingSettings
from sddpm.evaluation.features.fad import FadEncoder
from sddpm.guidance import GuidanceSettings
from sddpm.models import SpikingUNet2DModel
from sddpm.pipelines import SpikingDiffusionPipeline

STEPS = 2


@pytest.fixture(scope="session")
def pipeline():
    torch.manual_seed(0)
    unet = SpikingUNet2DModel(
        sample_size=8, in_channels=1, out_channels=1, base_channels=8, channel_mult=(1,), num_res_blocks=1, T=2
    )
    with torch.no_grad():  # an untrained readout answers almost nothing, at any threshold
        for parameter in unet.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return SpikingDiffusionPipeline(unet, make_scheduler("ddim"))


@pytest.fixture
def model(pipeline, tmp_path):
    pipeline.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture(scope="session")
def fad(tmp_path_factory):
    """A file with the encoder of FAD, with random weights."""
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("weights") / "fad.pth"
    torch.save(FadEncoder(1).state_dict(), path)
    return path


@pytest.fixture(scope="session")
def sampled_at(pipeline, tmp_path_factory):
    """sampled_at(thresholds, x0_scale): an .npz with 400 samples of the model at these, of seeds of their own."""

    made = {}

    def make(v_threshold, x0_scale=1.0):
        if (key := repr((v_threshold, x0_scale))) in made:
            return made[key]
        images = pipeline(
            seeds=range(10**6, 10**6 + 400),
            num_inference_steps=STEPS,
            solver="ddim",
            v_threshold=v_threshold,
            x0_scale=x0_scale,
            output_type="np",
            progress=False,
        ).images
        path = tmp_path_factory.mktemp("reference") / "images.npz"
        np.savez(path, np.round(images * 255).astype(np.uint8))
        return made.setdefault(key, str(path))

    return make


@pytest.fixture
def settings(model, fad, tmp_path):
    """settings(reference, **changes): FAD over a short grid, and no losses."""

    def make(reference, *, evaluation=None, **changes):
        base = {
            "source": str(model),
            "reference": reference,
            "metrics": ("fad",),
            "fad_weights": fad,
            "samples": 100,
            "sampling": SamplingSettings(STEPS, "ddim"),
            "device": "cpu",
            "work": tmp_path / "work",
        }
        quick = {"grid": (0.8, 0.9, 1.1), "refinements": 0, "resamples": 24, "proxy_images": 0}
        return GuidanceSettings(EvaluationSettings(**{**base, **(evaluation or {})}), **{**quick, **changes})

    return make
