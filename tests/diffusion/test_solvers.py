"""Every solver against its paper, on Gaussian data with the exact epsilon, clipping off (helpers/published_updates.py).

diffusers' tables are float32, hence a tolerance of 1e-4.
"""

import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DEISMultistepScheduler,
    DPMSolverMultistepScheduler,
    DPMSolverSinglestepScheduler,
    EulerDiscreteScheduler,
    LCMScheduler,
    PNDMScheduler,
    SASolverScheduler,
    UniPCMultistepScheduler,
)

from sddpm.diffusion.noise import generators_for
from sddpm.diffusion.schedule import NoiseSchedule
from sddpm.diffusion.solver_registry import (
    SOLVERS,
    deterministic_solvers,
    names_for_help,
    register_solver,
    single_step_solvers,
)
from sddpm.diffusion.solvers import adds_noise, is_multistep, make_scheduler, solver_name, switch_solver
from sddpm.diffusion.timesteps import respaced_timesteps
from sddpm.errors import UserError
from sddpm.pipelines.denoise import denoise
from tests.helpers import published_updates as published

A_LINEAR = NoiseSchedule().alphas_cumprod.numpy()
DATA = published.Gaussian(A_LINEAR, mu=0.3, s=0.5)
MOMENTS = DATA.moments()  # only the analytic solvers look at them
UPDATES = {
    "ddim": published.ddim,
    "dpm++": published.dpm_solver_pp_2m,
    "unipc": published.unipc_2,
    "pndm": published.plms,
}
STEP_COUNTS = [1, 2, 3, 7, 30, 50, 333, 999, 1000]
X_T = np.array([-2.0, -1.0, 0.0, 1.0, 2.0])


class Oracle(torch.nn.Module):
    """A network that gives the answer of a plain function of (x, t)."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, x, t):
        return SimpleNamespace(sample=self.answer(x, t))


def run(solver, n, answer=DATA.eps, x=X_T, seeds=None, eta=0.0, **schedule):
    scheduler = make_scheduler(solver, clip_sample=False, moments=MOMENTS, **schedule)
    seeds = range(len(x)) if seeds is None else seeds
    noise = torch.tensor(x).reshape(-1, 1, 1, 1)
    return list(denoise(Oracle(answer), scheduler, noise, generators_for(seeds), num_inference_steps=n, eta=eta))


def images(steps):
    return steps[-1].x_prev.flatten().numpy()


def step_noises(seeds, n, dtype=torch.float64):
    """The noise of each step: every sample draws from its own generator."""
    generators = generators_for(seeds)
    return [np.array([torch.randn(1, generator=g, dtype=dtype).item() for g in generators]) for _ in range(n)]


def assert_equal(ours, theirs):
    assert np.abs(ours - theirs).max() <= 1e-4 * np.abs(theirs).max()


@pytest.mark.parametrize("n", STEP_COUNTS)
@pytest.mark.parametrize("solver", UPDATES)
def test_deterministic_solvers_are_their_published_updates(solver, n):
    expected = UPDATES[solver](A_LINEAR, respaced_timesteps(n, 1000), DATA.eps, X_T)
    assert_equal(images(run(solver, n)), expected)


@pytest.mark.parametrize("n", [1, 2, 7, 50, 1000])
def test_ddpm_is_its_published_update(n):
    noises = step_noises(range(5), n)
    expected = published.ddpm(A_LINEAR, respaced_timesteps(n, 1000), DATA.eps, X_T, noises)
    assert_equal(images(run("ddpm", n)), expected)


@pytest.mark.parametrize("eta", [0.3, 1.0])
@pytest.mark.parametrize("n", [1, 7, 50])
def test_stochastic_ddim_is_its_published_update(n, eta):
    noises = step_noises(range(5), n)
    expected = published.ddim(A_LINEAR, respaced_timesteps(n, 1000), DATA.eps, X_T, noises, eta)
    assert_equal(images(run("ddim", n, eta=eta)), expected)


@pytest.mark.parametrize("n", [1, 2, 7, 50])
def test_the_stochastic_dpm_solver_is_its_published_update(n):
    noises = step_noises(range(5), n, torch.float32)  # diffusers draws it in float32
    expected = published.dpm_solver_pp_2m(A_LINEAR, respaced_timesteps(n, 1000), DATA.eps, X_T, noises)
    assert_equal(images(run("sde-dpm++", n)), expected)


@pytest.mark.parametrize(("n", "off"), [(50, 0.04), (200, 0.01)])
def test_the_stochastic_dpm_solver_gives_the_deviation_of_the_data(n, off):
    """Of the recursion that the solver was shown to equal, exactly: an affine map of independent noises, whose slopes
    unit noises tell; and of many samples of the solver, as far as they tell."""
    ts = respaced_timesteps(n, 1000)
    nothing, units = np.zeros(n + 1), np.eye(n + 1)
    offset = published.dpm_solver_pp_2m(A_LINEAR, ts, DATA.eps, nothing[:1], list(nothing[1:]))
    slopes = published.dpm_solver_pp_2m(A_LINEAR, ts, DATA.eps, units[0], list(units[1:])) - offset
    assert (exact := np.square(slopes).sum() ** 0.5) == pytest.approx(DATA.s, rel=off)
    steps = run("sde-dpm++", n, x=np.random.default_rng(0).standard_normal(512), seeds=range(512))
    assert images(steps).std() == pytest.approx(exact, rel=4 / (2 * 512) ** 0.5)


def test_no_solver_multiplies_the_errors_of_predictions_in_the_picture():
    """Independent errors of every prediction, of deviation 0.1, and narrow data, which take out what earlier strides
    left: the last stride leaves as much noise as DDIM's in every solver (extrapolated, PNDM's left 28 times as much).
    """
    data = published.Gaussian(A_LINEAR, mu=0.3, s=0.05)
    x = np.random.default_rng(0).standard_normal(500)

    def noise_left(solver):
        errors = np.random.default_rng(1)

        def off(x, t):
            return data.eps(x, t) + 0.1 * torch.tensor(errors.standard_normal(x.shape))

        return (images(run(solver, 20, off, x=x)) - images(run(solver, 20, data.eps, x=x))).std()

    left = {solver: noise_left(solver) for solver in UPDATES}
    assert max(left.values()) < 1.5 * left["ddim"], left


@pytest.mark.parametrize("solver", UPDATES)
def test_the_cosine_schedule_too(solver):
    a = NoiseSchedule(beta_schedule="cosine").alphas_cumprod.numpy()
    data = published.Gaussian(a)
    expected = UPDATES[solver](a, respaced_timesteps(50, 1000), data.eps, X_T)
    assert_equal(images(run(solver, 50, data.eps, beta_schedule="cosine")), expected)


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_network_that_predicts_v_draws_the_same(solver):
    expected = images(run(solver, 20))
    assert_equal(images(run(solver, 20, DATA.v, prediction_type="v_prediction")), expected)


@pytest.mark.parametrize(("solver", "order"), [("ddim", 1), ("dpm++", 2), ("unipc", 3), ("pndm", 2)])
def test_the_error_falls_at_the_solvers_order(solver, order):
    """Against the exact flow from t = 999 to t = 199, which is a time step of all these grids."""
    exact = DATA.flow(X_T, 999, 199)
    errors = []
    for n in (50, 100, 200):
        arrived = [step for step in run(solver, n) if step.t == 199][-1]
        errors.append(np.abs(arrived.x_t.flatten().numpy() - exact).max())
    measured = np.log2(np.array(errors[:-1]) / np.array(errors[1:]))
    assert measured == pytest.approx(order, abs=0.3)


def test_the_error_of_the_image_falls_with_the_number_of_steps():
    exact = DATA.mu + DATA.s * (X_T - A_LINEAR[999] ** 0.5 * DATA.mu) / DATA.std(999)
    for solver in UPDATES:
        coarse, fine = (np.abs(images(run(solver, n)) - exact).max() for n in (10, 40))
        assert fine < coarse / 3, solver


@pytest.mark.parametrize("solver", ["dpm++", "unipc"])
def test_50_steps_give_mean_and_deviation_within_one_percent(solver):
    """The map from x_T to the image is affine, so three points tell what x_T ~ N(0, 1) becomes."""
    low, middle, high = images(run(solver, 50, x=np.array([-1.0, 0.0, 1.0])))
    assert high - middle == pytest.approx(middle - low, rel=1e-5)
    assert (high - low) / 2 == pytest.approx(DATA.s, rel=0.01)
    assert middle == pytest.approx(DATA.mu, rel=0.01)


def test_1000_ancestral_steps_give_the_deviation_within_one_percent():
    """Of the recursion that the solver was shown to equal, exactly; and of many samples, as far as they tell."""
    assert published.ddpm_std(A_LINEAR, respaced_timesteps(1000, 1000), DATA) == pytest.approx(DATA.s, rel=0.01)
    steps = run("ddpm", 1000, x=np.random.default_rng(0).standard_normal(256), seeds=range(256))
    assert images(steps).std() == pytest.approx(DATA.s, rel=5 / (2 * 256) ** 0.5)
    assert images(steps).mean() == pytest.approx(DATA.mu, abs=5 * DATA.s / 256**0.5)


@pytest.mark.parametrize("n", [20, 50, 100])
def test_jumping_ancestral_steps_use_respaced_posteriors(n):
    """One-step posteriors give 0.70, 0.68, 0.64 or 0.054, 0.067, 0.087 here instead of 0.25."""
    data = published.Gaussian(A_LINEAR, mu=0.0, s=0.25)
    ts = respaced_timesteps(n, 1000)
    assert published.ddpm_std(A_LINEAR, ts, data) == pytest.approx(0.25, rel=0.06)
    assert_equal(
        images(run("ddpm", n, data.eps)), published.ddpm(A_LINEAR, ts, data.eps, X_T, step_noises(range(5), n))
    )


@pytest.mark.parametrize("n", STEP_COUNTS)
@pytest.mark.parametrize("solver", SOLVERS)
def test_who_knows_the_picture_draws_it_without_any_noise_left(solver, n):
    """Both ends: asked first at t = 999; data that are a single point come out as that point."""
    point = published.Gaussian(A_LINEAR, mu=0.7, s=0.0)
    steps = run(solver, n, point.eps, x=X_T[1:3])
    assert steps[0].t == 999
    assert images(steps) == pytest.approx(0.7, abs=2e-5 if n > 1 else 5e-4)
    distinct = sorted({step.t for step in steps}, reverse=True)
    assert len(distinct) == n
    assert [step.t for step in steps if solver != "pndm" or step.index != 1] == distinct
    assert len(steps) == (n + 1 if solver == "pndm" and n > 1 else n)


@pytest.mark.parametrize("total", [10, 1000])
def test_strides_are_equal_up_to_rounding_for_every_number_of_steps(total):
    for n in range(1, total + 1):
        counts = np.array([*(t + 1 for t in respaced_timesteps(n, total)), 0])
        assert counts[0] == total
        assert np.abs(counts - np.linspace(total, 0, n + 1)).max() <= 0.5 + 1e-9
        assert np.diff(counts).max() <= -1


@pytest.mark.parametrize("n", [0, -1, 1001])
@pytest.mark.parametrize("solver", SOLVERS)
def test_impossible_step_counts_are_refused(solver, n):
    with pytest.raises(UserError, match="1 to 1000"):
        make_scheduler(solver).set_timesteps(n)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("n", [1, 5, 50])
def test_estimates_and_images_are_clamped(solver, n):
    scheduler = make_scheduler(solver, moments=MOMENTS)
    x = torch.randn(3, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    for step in denoise(Oracle(lambda x, t: -x), scheduler, x, generators_for(range(3)), num_inference_steps=n):
        assert step.x0.abs().max() == 1.0
    assert step.x_prev.abs().max().item() == pytest.approx(1.0, abs=1e-6)


def test_ddim_follows_the_noise_that_belongs_to_the_clamped_image():
    a = A_LINEAR

    def clamped(x, t):
        x0 = np.clip((x + (1 - a[t]) ** 0.5 * x) / a[t] ** 0.5, -1, 1)
        return (x - a[t] ** 0.5 * x0) / (1 - a[t]) ** 0.5

    expected = published.ddim(a, respaced_timesteps(10, 1000), clamped, X_T)
    x = torch.tensor(X_T).reshape(-1, 1, 1, 1)
    steps = denoise(
        Oracle(lambda x, t: -x), make_scheduler("ddim"), x, generators_for(range(5)), num_inference_steps=10
    )
    assert_equal(images(list(steps)), expected)


@pytest.mark.parametrize(
    ("solver", "base"), [("dpm++", DPMSolverMultistepScheduler), ("unipc", UniPCMultistepScheduler)]
)
def test_clamping_is_diffusers_thresholding_at_one(solver, base):
    x = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2
    theirs = base(thresholding=True, sample_max_value=1.0)._threshold_sample(x)
    assert torch.equal(make_scheduler(solver)._threshold_sample(x), theirs)


@pytest.mark.parametrize("solver", SOLVERS)
def test_schedulers_survive_saving(solver, tmp_path):
    scheduler = make_scheduler(
        solver, beta_schedule="cosine", prediction_type="v_prediction", clip_sample=False, moments=MOMENTS
    )
    scheduler.save_pretrained(tmp_path)
    loaded = type(scheduler).from_pretrained(tmp_path)
    assert public(loaded) == public(scheduler)


@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize(
    ("before", "after"), [*(("unipc", solver) for solver in SOLVERS), *((solver, "ddim") for solver in SOLVERS)]
)
def test_switching_keeps_what_belongs_to_the_model(before, after, clip):
    model = {
        "beta_schedule": "cosine",
        "prediction_type": "v_prediction",
        "num_train_timesteps": 100,
        "clip_sample": clip,
        "moments": MOMENTS,
    }
    assert public(switch_solver(make_scheduler(before, **model), after)) == public(make_scheduler(after, **model))


@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize("solver", SOLVERS)
def test_schedulers_tell_their_solver(solver, clip, tmp_path):
    scheduler = make_scheduler(solver, beta_schedule="cosine", clip_sample=clip, moments=MOMENTS)
    scheduler.save_pretrained(tmp_path)
    for each in (scheduler, type(scheduler).from_pretrained(tmp_path)):
        assert solver_name(each) == solver


def test_foreign_schedulers_have_no_solver_of_ours():
    for scheduler in (DDPMScheduler(), DDPMScheduler(beta_schedule="scaled_linear"), UniPCMultistepScheduler()):
        assert solver_name(scheduler) is None


def test_a_name_is_found_without_building_all_schedulers(monkeypatch):
    made = []
    for name, solver in SOLVERS.items():
        monkeypatch.setitem(SOLVERS, name, watched(solver, made))
    assert solver_name(make_scheduler("ddim")) == "ddim"
    assert made == ["ddim", "ddim"]  # the scheduler itself, and one to compare it with
    assert solver_name(EulerDiscreteScheduler()) is None and len(made) == 2


def watched(solver, made):
    """The same solver, which notes that it makes a scheduler."""

    def make(*arguments, **keywords):
        made.append(solver.make.partition(":")[2])
        return solver(*arguments, **keywords)

    return replace(solver, make=make)


STOCHASTIC = ("ddpm", "sde-dpm++", "analytic-dpm", "analytic-ddim", "analytic-dpm-ot")
SINGLE_STEP = ("ddpm", "ddim", "analytic-dpm", "analytic-ddim", "analytic-dpm-ot")


@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize("solver", SOLVERS)
def test_records_and_schedulers_say_the_same(solver, clip):
    scheduler = make_scheduler(solver, clip_sample=clip, moments=MOMENTS)
    assert SOLVERS[solver].stochastic == adds_noise(scheduler) == (solver in STOCHASTIC)
    assert SOLVERS[solver].multistep == is_multistep(scheduler) == (solver not in SINGLE_STEP)
    assert adds_noise(scheduler, eta=0.5)


@pytest.mark.parametrize("solver", SOLVERS)
def test_records_tell_who_draws_noise(solver):
    """Other generators, other pictures, if and only if the solver is called stochastic."""
    one, other = (images(run(solver, 5, seeds=range(first, first + 5))) for first in (0, 100))
    assert (np.abs(one - other).max() > 1e-3) == SOLVERS[solver].stochastic


@pytest.mark.parametrize(
    ("scheduler", "noisy", "multistep"),
    [
        (DDPMScheduler(), True, False),
        (DDIMScheduler(), False, False),
        (LCMScheduler(), True, False),
        (PNDMScheduler(), False, True),
        (DEISMultistepScheduler(), False, True),
        (UniPCMultistepScheduler(), False, True),
        (SASolverScheduler(), True, True),
        (DPMSolverMultistepScheduler(), False, True),
        (DPMSolverMultistepScheduler(algorithm_type="sde-dpmsolver++"), True, True),
        (DPMSolverSinglestepScheduler(), False, True),
    ],
)
def test_stock_schedulers_are_known(scheduler, noisy, multistep):
    assert (adds_noise(scheduler), is_multistep(scheduler)) == (noisy, multistep)


def test_an_unknown_scheduler_is_never_taken_for_deterministic():
    class Mine(DDIMScheduler):
        pass

    assert adds_noise(Mine()) and is_multistep(Mine())


@pytest.fixture
def halfway():
    """A solver of a user's own, of which nothing is known but what it is registered with."""

    class HalfwayScheduler(DDIMScheduler):
        pass

    def make(clip_sample, **model):
        return HalfwayScheduler(clip_sample=clip_sample, timestep_spacing="trailing", **model)

    register_solver("halfway", make, HalfwayScheduler, stochastic=False, multistep=False, order=1, description="mine")
    yield HalfwayScheduler
    del SOLVERS["halfway"]


def test_a_registered_solver_is_one_like_any_other(halfway):
    scheduler = switch_solver(make_scheduler("dpm++", beta_schedule="cosine", clip_sample=False), "halfway")
    assert type(scheduler) is halfway and scheduler.config.beta_schedule == "squaredcos_cap_v2"
    assert solver_name(scheduler) == "halfway"
    assert not adds_noise(scheduler) and not is_multistep(scheduler)
    assert_equal(images(run("halfway", 50)), images(run("ddim", 50)))
    for listed in (names_for_help(), deterministic_solvers(), single_step_solvers()):
        assert "halfway" in listed
    with pytest.raises(UserError, match="pndm, analytic-dpm, analytic-ddim, analytic-dpm-ot, halfway"):
        make_scheduler("euler")
    with pytest.raises(UserError, match="the solver 'halfway' already exists"):
        register_solver("halfway", halfway, halfway, stochastic=False, multistep=False)


def test_switching_refuses_a_schedule_it_cannot_carry_over():
    for kept in (
        DDPMScheduler(beta_schedule="scaled_linear"),
        DDPMScheduler(trained_betas=[0.1, 0.2]),
        DDPMScheduler(rescale_betas_zero_snr=True),
    ):
        with pytest.raises(UserError, match="solver=None"):
            switch_solver(kept, "ddim")


def test_unknown_names_are_refused_with_the_known_ones():
    with pytest.raises(UserError, match=re.escape(f"choose one of {', '.join(SOLVERS)}, or")):
        make_scheduler("euler")
    with pytest.raises(UserError, match="epsilon, v_prediction"):
        make_scheduler("ddim", prediction_type="sample")


def public(scheduler):
    return {key: value for key, value in scheduler.config.items() if not key.startswith("_")}
