"""The search for a sampler, where the best is known: distances in closed form, and a reference that a sampler drew."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from sddpm.diffusion.schedule import NoiseSchedule
from sddpm.diffusion.solver_registry import SOLVERS, Solver
from sddpm.diffusion.solvers import make_scheduler
from sddpm.diffusion.spacings import SPACINGS
from sddpm.errors import UserError
from sddpm.evaluation import EvaluationSettings, SamplingSettings
from sddpm.evaluation.processes import Processes
from sddpm.guidance import store_sampler
from sddpm.guidance.closeness import Closeness, nearest_samplers
from sddpm.guidance.sampler_report import kept_sampler, sampler_json, sampler_table, sampler_verdict
from sddpm.guidance.sampler_run import allowed_steps, guide_sampler
from sddpm.guidance.sampler_settings import SamplerSettings, searched_solvers
from sddpm.guidance.settings import FRESH
from sddpm.pipelines import Sampler, SpikingDiffusionPipeline, load_pipeline
from sddpm.training import load_config
from sddpm.training.state import build_model
from tests.helpers import published_updates as published
from tests.helpers.small_pipeline import pipeline_of
from tests.pipelines.test_x0_scale import FaintModel

A = NoiseSchedule().alphas_cumprod
KNOWN = (999, 700, 480, 130, 31)


def miss(solver, timesteps):
    """How far time steps lie from known ones, more in the wrong solver."""
    return float(np.abs(np.array(timesteps) - KNOWN).sum()) + 1000 * (solver != "unipc")


def test_the_time_steps_of_least_distance_are_found():
    found = nearest_samplers(miss, [("ddim", 5), ("unipc", 5)], A, 10_000)
    assert (found[0].solver, found[0].timesteps, found[0].distance) == ("unipc", KNOWN, 0.0)
    assert [each.solver for each in found] == ["unipc", "ddim"]
    spaced = [miss("ddim", spacing(5, A)) for spacing in SPACINGS.values()]
    assert found[1].distance == min(spaced)


@pytest.mark.parametrize("budget", [1, 3, 8, 20])
def test_no_more_are_tried_than_the_budget_says(budget):
    tried = []

    def counted(solver, timesteps):
        tried.append((solver, tuple(timesteps)))
        return miss(solver, timesteps)

    found = nearest_samplers(counted, [("ddim", 5), ("unipc", 5)], A, budget)
    assert len(tried) == len(set(tried)) == budget
    assert found[0].distance == min(miss(*each) for each in tried)


def gaussian(deviation_solver="ddim"):
    """The exact model of Gaussian pixels."""
    scheduler = make_scheduler(deviation_solver, clip_sample=False)
    return SpikingDiffusionPipeline(FaintModel(), scheduler).to(torch.float64)


@pytest.fixture
def closeness(tmp_path):
    sampling = SamplingSettings(batch_size=4, engine="eager")
    return Closeness(gaussian(), "model", sampling, 6, 200, tmp_path, Processes())


def test_pictures_of_gaussian_data_are_as_far_as_the_flow_says(closeness):
    """A deterministic solver multiplies x_T by a number, which the published update tells."""
    data = published.Gaussian(A.numpy(), mu=0.0, s=0.2)
    one = np.ones(1)
    noise = closeness.pipeline._noise([torch.Generator().manual_seed(seed) for seed in range(6)])
    size = float(noise.square().mean().sqrt())
    long = published.dpm_solver_pp_2m(A.numpy(), SPACINGS["trailing"](200, A), data.eps, one)
    for solver, update in (("ddim", published.ddim), ("dpm++", published.dpm_solver_pp_2m)):
        gain = update(A.numpy(), KNOWN, data.eps, one)
        assert closeness(solver, KNOWN) == pytest.approx(size * abs(float((gain - long)[0])), rel=0.02)


def test_on_gaussian_data_better_time_steps_than_even_ones_are_found(closeness):
    """The exact gain is 0.2; of four evaluations of DDIM, even steps miss it by more than those found."""
    data = published.Gaussian(A.numpy(), mu=0.0, s=0.2)
    found = nearest_samplers(closeness, [("ddim", 4)], A, 60)[0]
    off = [abs(float(published.ddim(A.numpy(), ts, data.eps, np.ones(1))[0]) - 0.2) for ts in
           (found.timesteps, *(spacing(4, A) for spacing in SPACINGS.values()))]  # fmt: skip
    assert off[0] < 0.7 * min(off[1:])


def test_what_was_compared_is_kept(closeness, monkeypatch):
    before = closeness("ddim", KNOWN)
    monkeypatch.setattr(SpikingDiffusionPipeline, "stream", None)
    assert closeness("ddim", list(KNOWN)) == before


def test_the_steps_that_fit_are_counted_in_evaluations(settings, model):
    pipe = load_pipeline(model)
    asked = search_of(settings("x").evaluation, evaluations=4)
    steps, noisy = allowed_steps(pipe, asked)
    assert {("ddim", 4), ("dpm++", 4), ("unipc", 4), ("pndm", 3)} <= set(steps) and ("pndm", 4) not in steps
    assert Sampler("ddpm", 4) in noisy and not any(each.solver.startswith("analytic") for each in noisy)
    guided = replace(asked, evaluation=replace(asked.evaluation, sampling=SamplingSettings(guidance_scale=2.0)))
    assert ("ddim", 2) in allowed_steps(pipe, guided)[0]


def search_of(evaluation: EvaluationSettings, **changes) -> SamplerSettings:
    sampling = replace(evaluation.sampling, num_inference_steps=None, solver=None)
    evaluation = replace(evaluation, metrics=("kad",), sampling=sampling)
    quick = {
        "evaluations": 3, "seed_sets": 1, "validation_sets": 1, "grid": (0.5, 0.7), "refinements": 0,
        "proxy_seeds": 4, "proxy_budget": 12, "long_steps": 12, "resamples": 24,
    }  # fmt: skip
    return SamplerSettings(evaluation, **{**quick, **changes})


@pytest.fixture
def reference(pipeline, tmp_path):
    """Samples of a long solver at scale 0.5, which is therefore the best one."""
    images = pipeline(
        seeds=range(10**6, 10**6 + 200), num_inference_steps=12, solver="dpm++", x0_scale=0.5, output_type="np",
        progress=False,
    ).images  # fmt: skip
    np.savez(tmp_path / "real.npz", np.round(images * 255).astype(np.uint8))
    return str(tmp_path / "real.npz")


def test_the_scale_of_the_reference_is_found_judged_and_goes_on_where_it_stopped(
    settings, reference, model, monkeypatch
):
    asked = search_of(settings(reference).evaluation)
    report = guide_sampler(asked)
    assert report.chosen[1] == 0.5 and report.beats_own and report.validation.difference.below_zero
    assert report.sampler.x0_scale == 0.5 and report.facts["fresh_first_seeds"] == [FRESH]
    origin = report.trials[0]
    assert origin.point == report.space.origin == (0, 1.0) and origin.difference.value == 0
    assert {each.point[1] for each in report.trials} == {0.5, 0.7, 1.0}
    at_nearest = {each.solver for each in report.space.samplers if each.timesteps == report.near[0].timesteps}
    assert {"ddpm", "sde-dpm++"} <= at_nearest  # stochastic solvers, which nearness cannot rank
    assert "beats" in sampler_verdict(report)[2] and "as it samples now (" in sampler_verdict(report)[3]
    assert sampler_table(report).splitlines()[1].startswith("*")
    found = json.loads(sampler_json(report, "sddpm guide", "fast"))
    assert found["chosen"]["x0_scale"] == 0.5 and found["stored"] == "fast" and found["beats_own"]
    monkeypatch.setattr(SpikingDiffusionPipeline, "stream", None)  # nothing is sampled again
    again = guide_sampler(asked)
    assert (again.trials, again.validation, again.near) == (report.trials, report.validation, report.near)
    store_sampler(model, "fast", kept_sampler(report))
    kept = load_pipeline(model)
    assert kept.default_sampler == "fast" and kept.samplers["fast"].about["metric"] == "kad"
    options = {**report.sampler.options(), "seeds": [1], "output_type": "np", "progress": False}
    monkeypatch.undo()
    assert np.array_equal(kept(seeds=[1], output_type="np", progress=False).images, kept(**options).images)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"evaluations": 0}, "`evaluations` must be at least 1, not 0"),
        ({"budget": 0}, "`budget` must be at least 2, not 0"),
        ({"proxy_budget": 0}, "`proxy_budget` must be at least 1, not 0"),
        ({"proxy_seeds": 1}, "`proxy_seeds` must be at least 2"),
        ({"grid": (0.0,)}, "scales must be positive numbers, not 0"),
        (
            {"metrics": ("fad",)},
            "fad of 100 samples is biased towards less variation: choose one of kid, kad, or at least",
        ),
        ({"metrics": ("is",)}, "guidance uses one metric"),
        ({"sampling": SamplingSettings(3)}, "leave out `num_inference_steps`"),
        ({"sampling": SamplingSettings(solver="ddim")}, "leave out `solver`"),
        ({"sampling": SamplingSettings(x0_scale=1.1)}, "leave out `x0_scale`"),
        ({"sampling": SamplingSettings(first_seed=-1)}, "seeds of the search must lie in"),
    ],
)
def test_what_cannot_be_searched_is_refused_before_anything_is_sampled(
    settings, tmp_path, changes, message, monkeypatch
):
    monkeypatch.setattr(SpikingDiffusionPipeline, "stream", None)
    asked = search_of(settings(str(tmp_path / "none.npz")).evaluation)
    inner = {key: value for key, value in changes.items() if key in ("metrics", "sampling")}
    asked = replace(
        asked, evaluation=replace(asked.evaluation, **inner), **{k: v for k, v in changes.items() if k not in inner}
    )
    with pytest.raises(UserError, match=message) as caught:
        guide_sampler(asked)
    assert "\n" not in str(caught.value)


def test_a_model_of_currents_is_searched_without_noisy_solvers(settings, tmp_path):
    config = load_config(
        "fashion_mnist_small_fsddim", ["data.image_size=8", "model.base_channels=8", "model.channel_mult=[1]"]
    )
    pipe = SpikingDiffusionPipeline(build_model(config, 1), make_scheduler("ddim"))
    assert pipe.unet.config.synaptic_currents
    quiet, noisy = allowed_steps(pipe, search_of(settings(str(tmp_path / "none.npz")).evaluation))
    assert noisy == [] and {name for name, _ in quiet} >= {"ddim", "dpm++", "unipc"}


def test_the_long_solver_has_no_more_steps_than_the_noise_schedule(settings, reference, model):
    pipe = pipeline_of(num_train_timesteps=10)
    SpikingDiffusionPipeline(pipe.unet, pipe.scheduler, num_inference_steps=5).save_pretrained(model)
    report = guide_sampler(search_of(settings(reference).evaluation))
    assert report.facts["proxy"]["long_steps"] == 10


def test_a_solver_without_time_steps_is_no_candidate_for_near_pictures(monkeypatch):
    class Even:
        def set_timesteps(self, num_inference_steps): ...

    monkeypatch.setitem(SOLVERS, "even", Solver(lambda clip_sample, **model: None, Even, False, False))
    monkeypatch.setitem(SOLVERS, "noisy", Solver(lambda clip_sample, **model: None, Even, True, False))
    quiet, noisy = searched_solvers(moments=False)
    assert "even" not in quiet and "noisy" in noisy and "ddim" in quiet
