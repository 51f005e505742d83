"""Samples with early exit are kept apart from those without, whose name in the store did not change."""

import hashlib
import json

import pytest

from sddpm.diffusion.solvers import make_scheduler
from sddpm.errors import UserError
from sddpm.evaluation.sampling import SamplingSettings, sampling_key
from sddpm.models import SpikingUNet2DModel
from sddpm.pipelines import SpikingDiffusionPipeline


@pytest.fixture(scope="module")
def pipeline():
    unet = SpikingUNet2DModel(sample_size=8, base_channels=4, channel_mult=(1,), num_res_blocks=1, T=2)
    return SpikingDiffusionPipeline(unet, make_scheduler("ddim"))


def test_keys(pipeline):
    plain = {"steps": 2, "solver": "ddim", "eta": 0.0, "v_threshold": None, "first_seed": 0, "batch_size": 50,
             "engine": "eager", "model": "digest", "device": "cpu"}  # fmt: skip
    known = hashlib.sha256(json.dumps(plain).encode()).hexdigest()[:24]
    assert sampling_key("digest", SamplingSettings(num_inference_steps=2, engine="eager"), pipeline) == known
    keys = {
        sampling_key("digest", SamplingSettings(num_inference_steps=2, exit_tolerance=x), pipeline)
        for x in (None, 0.1, 0.2)
    }
    assert len(keys) == 3


def test_no_compiled_engine_leaves_early(pipeline):
    with pytest.raises(UserError, match="early exit needs engine"):
        sampling_key("digest", SamplingSettings(num_inference_steps=2, engine="exact", exit_tolerance=0.1), pipeline)
