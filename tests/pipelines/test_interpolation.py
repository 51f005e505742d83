"""Interpolation: its ends are the pictures that the seeds draw by themselves."""

import pytest
import torch

from sddpm.diffusion.moments import Moments
from sddpm.diffusion.solvers import make_scheduler
from sddpm.errors import UserError
from sddpm.pipelines import SpikingDiffusionPipeline
from tests.helpers.standins import PointwiseModel

QUICK = {"num_inference_steps": 4, "output_type": "pt", "progress": False}


@pytest.fixture
def pipe():
    moments = Moments([0.5] * 1000, [0.0] * 1000, 3).to_dict()
    return SpikingDiffusionPipeline(PointwiseModel(), make_scheduler("ddim", moments=moments))


@pytest.mark.parametrize("solver", ["ddim", "dpm++", "unipc", "pndm", None])
def test_ends_are_the_plain_samples(pipe, solver):
    plain = pipe(seeds=[3, 8, 5], solver=solver, **QUICK).images
    images = pipe.interpolate([3, 8, 5], frames=4, solver=solver, **QUICK).images
    assert images.shape == (8, 1, 4, 4)
    assert torch.equal(images[[0, 3, 7]], plain)
    assert torch.equal(images[3], images[4])


def test_a_spiking_model_too(spiking):
    plain = spiking(seeds=[1, 2], batch_size=1, **QUICK).images
    images = spiking.interpolate([1, 2], frames=3, batch_size=1, **QUICK).images
    assert torch.equal(images[[0, 2]], plain)


def test_between_them_the_way_is_even(pipe):
    """The stand-in has no edges: no frame is far from the one before."""
    images = pipe.interpolate([3, 8], frames=21, batch_size=4, **QUICK).images
    strides = (images[1:] - images[:-1]).flatten(1).norm(dim=1)
    assert strides.max() < 0.2 * (images[-1] - images[0]).norm()


def test_what_cannot_be(pipe):
    for solver in ("ddpm", "sde-dpm++", "analytic-dpm"):
        with pytest.raises(UserError, match="solver that adds no noise: ddim, dpm"):
            pipe.interpolate([0, 1], solver=solver, **QUICK)
    for seeds, frames in (([1], 5), ([1, 2], 1), ([1, 2], 2.5)):
        with pytest.raises(UserError, match="at least 2"):
            pipe.interpolate(seeds, frames, **QUICK)
    with pytest.raises(UserError, match="out of range"):
        pipe.interpolate([0, -1], **QUICK)
