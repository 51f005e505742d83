"""The steps and time steps that a model is sampled at: its own unless others are given."""

import json

import numpy as np
import pytest

from sddpm.diffusion.solvers import make_scheduler, switch_solver
from sddpm.energy import measure_sampling
from sddpm.errors import UserError
from sddpm.evaluation.sampling import SamplingSettings, described, sampling_key
from sddpm.pipelines import SamplingOptions, SpikingDiffusionPipeline, load_pipeline
from tests.helpers.standins import PointwiseModel

KEPT = (999, 640, 300, 40)


def walked(pipe, **options):
    """The time steps at which the network is evaluated."""
    seen = []
    pipe(seeds=[0], callback=lambda step: seen.append(step.t), progress=False, output_type="pt", **options)
    return tuple(seen)


@pytest.fixture
def keeping(tmp_path):
    SpikingDiffusionPipeline(PointwiseModel(), make_scheduler("ddim", timesteps=KEPT)).save_pretrained(tmp_path / "m")
    return load_pipeline(tmp_path / "m")


def test_a_models_own_time_steps_are_walked_unless_others_are_said(keeping):
    assert keeping.timesteps == KEPT and keeping.num_inference_steps == 4
    assert walked(keeping) == walked(keeping, num_inference_steps=4) == walked(keeping, solver="dpm++") == KEPT
    assert walked(keeping, num_inference_steps=2) == (999, 499)
    assert walked(keeping, timesteps=(900, 7)) == (900, 7)
    assert walked(keeping, timesteps=[900, 7], num_inference_steps=2) == (900, 7)
    assert keeping.sampler(SamplingOptions()) == "ddim at 4 time steps, 999, 640, 300, 40"
    assert keeping.sampler(SamplingOptions(num_inference_steps=20)) == "ddim with 20 steps"
    plain = SpikingDiffusionPipeline(PointwiseModel(), make_scheduler("ddim"))
    assert walked(plain, timesteps=KEPT) == KEPT and len(walked(plain)) == 50
    by_hand = plain(seeds=[3], timesteps=KEPT, output_type="np", progress=False).images
    assert np.array_equal(keeping(seeds=[3], output_type="np", progress=False).images, by_hand)


@pytest.mark.parametrize(
    "options",
    [SamplingOptions(), SamplingOptions(2), SamplingOptions(4), SamplingOptions(timesteps=(999, 5))],
)
def test_what_was_resolved_stays_so(keeping, options):
    once = keeping.resolve_options(options)
    assert keeping.resolve_options(once) == once
    assert walked(keeping, **vars(once)) == walked(keeping, **vars(options))


def test_samples_are_told_apart_by_time_steps_and_kept_ones_are_found_again(keeping):
    plain = SpikingDiffusionPipeline(PointwiseModel(), make_scheduler("ddim"))

    def key(pipe, **options):
        return sampling_key("model", SamplingSettings(**options), pipe)

    assert key(plain, timesteps=KEPT) == key(keeping) != key(plain, num_inference_steps=4)
    assert key(plain) == key(keeping, num_inference_steps=50)
    assert described(SamplingSettings(), keeping)["timesteps"] == KEPT


def test_energy_is_counted_at_a_models_own_steps(spiking):
    spiking.register_to_config(num_inference_steps=3)
    assert len(measure_sampling(spiking, [0]).evaluations) == 3
    spiking.register_modules(scheduler=switch_solver(make_scheduler("ddim", timesteps=KEPT), "ddim"))
    spiking.register_to_config(num_inference_steps=4)
    assert [each.t for each in measure_sampling(spiking, [0]).evaluations] == list(KEPT)


@pytest.mark.parametrize("damage", [[], [3, 3], [5, 9], [1000], "999", [1.5], {"a": 1}])
def test_damaged_ones_are_refused_when_loading(keeping, tmp_path, damage):
    file = tmp_path / "m" / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"timesteps": damage}))
    with pytest.raises(UserError, match=r"scheduler_config.json: timesteps must be"):
        load_pipeline(tmp_path / "m")


def test_what_does_not_fit_is_refused_at_once(keeping):
    with pytest.raises(UserError, match="from 999 at most"):
        keeping(timesteps=(1000, 3))
    with pytest.raises(UserError, match="`num_inference_steps=3` does not fit 2 `timesteps`"):
        SamplingOptions(3, timesteps=(999, 5))
    with pytest.raises(UserError, match="`num_inference_steps=3` does not fit 4 `timesteps`"):
        SpikingDiffusionPipeline(keeping.unet, keeping.scheduler, num_inference_steps=3)
