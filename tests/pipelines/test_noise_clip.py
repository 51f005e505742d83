"""noise_clip limits the initial noise, in all ways of sampling, and nothing else."""

import math

import numpy as np
import pytest
import torch

from sddpm.diffusion.noise import seeded_noise
from sddpm.errors import UserError
from sddpm.evaluation.sampling import SamplingSettings, described, sampling_key
from sddpm.pipelines import Sampler, SamplingOptions
from tests.helpers.small_pipeline import pipeline_of

SEEDS = [3, 8]


def drawn(pipe, **options):
    return torch.as_tensor(pipe(seeds=SEEDS, output_type="pt", progress=False, **options).images)


@pytest.fixture
def pipe():
    return pipeline_of("ddim")


@pytest.mark.parametrize("solver", ["ddim", "dpm++", "unipc"])
def test_samples_start_from_the_clipped_noise(pipe, solver):
    options = {"solver": solver, "num_inference_steps": 3}
    noise = seeded_noise(SEEDS, (1, 8, 8)).numpy()
    by_hand = torch.from_numpy(np.minimum(np.maximum(noise, -0.5), 0.5))
    clipped = drawn(pipe, noise_clip=0.5, **options)
    assert torch.equal(clipped, drawn(pipe, latents=by_hand, **options))
    assert not torch.equal(clipped, drawn(pipe, **options))
    assert torch.equal(drawn(pipe, noise_clip=math.inf, **options), drawn(pipe, **options))


def test_interpolation_and_inpainting_clip_it_too(pipe):
    options = {"num_inference_steps": 3, "solver": "ddim", "output_type": "pt", "progress": False}
    clipped = drawn(pipe, noise_clip=0.5, solver="ddim", num_inference_steps=3)
    between = pipe.interpolate(SEEDS, 2, noise_clip=0.5, **options).images
    assert torch.allclose(torch.as_tensor(between), clipped, atol=1e-6)
    everything = torch.ones(8, 8, dtype=torch.bool)
    painted = pipe.inpaint(torch.zeros(2, 1, 8, 8), everything, seeds=SEEDS, noise_clip=0.5, resamplings=1, **options)
    assert torch.allclose(torch.as_tensor(painted.images), clipped, atol=1e-6)


@pytest.mark.parametrize("options", [{"solver": "sde-dpm++"}, {"solver": "ddpm"}, {"eta": 0.5}])
def test_solvers_that_add_noise_refuse_a_limit(pipe, options):
    with pytest.raises(UserError, match="noise_clip needs a solver that adds no noise: ddim"):
        drawn(pipe, noise_clip=2.0, num_inference_steps=2, **options)
    drawn(pipe, noise_clip=math.inf, num_inference_steps=2, **options)


@pytest.mark.parametrize("bound", [0, -1.0, math.nan, "2", True])
def test_it_is_a_positive_number(bound):
    with pytest.raises(UserError, match=r"noise_clip must be a positive number of standard deviations such as 2"):
        SamplingOptions(noise_clip=bound)


def test_a_named_sampler_has_one(pipe, tmp_path):
    pipe.register_to_config(samplers={"clean": {"solver": "dpm++", "num_inference_steps": 3, "noise_clip": 0.5}})
    assert pipe.samplers["clean"] == Sampler("dpm++", 3, noise_clip=0.5)
    assert str(pipe.samplers["clean"]) == "dpm++ with 3 steps, noise clipped at 0.5"
    expected = drawn(pipe, solver="dpm++", num_inference_steps=3, noise_clip=0.5)
    assert torch.equal(drawn(pipe, sampler="clean"), expected)
    without = drawn(pipe, solver="dpm++", num_inference_steps=3)
    assert torch.equal(drawn(pipe, sampler="clean", noise_clip=math.inf), without)
    pipe.register_to_config(samplers={"clean": {"noise_clip": -1}})
    with pytest.raises(UserError, match="sampler 'clean': noise_clip must be"):
        _ = pipe.samplers


def test_an_evaluation_names_it_and_keeps_its_samples_apart(pipe):
    plain, clipped, none = (SamplingSettings(noise_clip=bound) for bound in (None, 2.0, math.inf))
    assert described(clipped, pipe)["noise_clip"] == 2.0 and described(none, pipe)["noise_clip"] is None
    keys = [sampling_key("model", settings, pipe) for settings in (plain, clipped, none)]
    assert keys[0] == keys[2] != keys[1]


def test_the_command_line_takes_it(pipe, sddpm, tmp_path):
    pipe.save_pretrained(tmp_path / "tiny")
    common = ["sample", "tiny", "--seeds", "3,8", "--solver", "dpm++", "--steps", 3, "--engine", "eager"]
    assert sddpm(*common, "--noise-clip", 0.5, "--out", "clipped.npz")[0] == 0
    images = drawn(pipe, solver="dpm++", num_inference_steps=3, noise_clip=0.5, engine="eager")
    expected = (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    assert np.array_equal(np.load("clipped.npz")["arr_0"], expected)
    code, _, error = sddpm(*common, "--noise-clip", 0, "--out", "not.npz")
    assert code == 2 and "noise_clip must be a positive number of standard deviations such as 2, not 0.0" in error
    assert not (tmp_path / "not.npz").exists()
