"""Time steps that are chosen one by one: every solver against its paper at uneven ones, on Gaussian data."""

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler

from sddpm.diffusion.noise import generators_for
from sddpm.diffusion.solvers import SOLVERS, make_scheduler, solver_name, switch_solver
from sddpm.diffusion.timesteps import check_timesteps
from sddpm.errors import UserError
from sddpm.pipelines.denoise import denoise
from tests.diffusion.test_solvers import A_LINEAR, DATA, MOMENTS, UPDATES, X_T, Oracle, assert_equal, step_noises
from tests.helpers import published_updates as published

UNEVEN = (999, 870, 861, 500, 333, 120, 119, 17)


def run(solver, timesteps, answer=DATA.eps, x=X_T, **options):
    scheduler = make_scheduler(solver, clip_sample=False, moments=MOMENTS)
    noise = torch.tensor(x).reshape(-1, 1, 1, 1)
    return list(
        denoise(Oracle(answer), scheduler, noise, generators_for(range(len(x))), timesteps=timesteps, **options)
    )


def images(steps):
    return steps[-1].x_prev.flatten().numpy()


@pytest.mark.parametrize("timesteps", [UNEVEN, (999,), (999, 3), (950, 400, 0), tuple(range(999, -1, -1))])
@pytest.mark.parametrize("solver", UPDATES)
def test_deterministic_solvers_are_their_published_updates(solver, timesteps):
    expected = UPDATES[solver](A_LINEAR, timesteps, DATA.eps, X_T)
    assert_equal(images(run(solver, timesteps)), expected)


def test_stochastic_solvers_are_their_published_updates():
    n = len(UNEVEN)
    expected = published.ddpm(A_LINEAR, UNEVEN, DATA.eps, X_T, step_noises(range(5), n))
    assert_equal(images(run("ddpm", UNEVEN)), expected)
    expected = published.dpm_solver_pp_2m(A_LINEAR, UNEVEN, DATA.eps, X_T, step_noises(range(5), n, torch.float32))
    assert_equal(images(run("sde-dpm++", UNEVEN)), expected)
    expected = published.ddim(A_LINEAR, UNEVEN, DATA.eps, X_T, step_noises(range(5), n), 0.7)
    assert_equal(images(run("ddim", UNEVEN, eta=0.7)), expected)


@pytest.mark.parametrize("solver", SOLVERS)
def test_who_knows_the_picture_draws_it_and_is_evaluated_where_it_was_said(solver):
    point = published.Gaussian(A_LINEAR, mu=0.7, s=0.0)
    steps = run(solver, UNEVEN, point.eps, x=X_T[1:3])
    assert images(steps) == pytest.approx(0.7, abs=2e-5)
    assert [step.t for step in steps if solver != "pndm" or step.index != 1] == list(UNEVEN)


def uneven(n):
    """n + 1 time steps from 999 to 199, both among them, denser where there is less noise."""
    return tuple(199 + round(800 * ((n - i) / n) ** 1.5) for i in range(n + 1))


@pytest.mark.parametrize(("solver", "order"), [("ddim", 1), ("dpm++", 2), ("unipc", 3), ("pndm", 2)])
def test_the_error_falls_at_the_solvers_order_at_uneven_time_steps_too(solver, order):
    exact = DATA.flow(X_T, 999, 199)
    errors = []
    for n in (40, 80) if solver == "pndm" else (20, 40):  # 80 steps of unipc are as exact as float32 tables
        arrived = run(solver, (*uneven(n), 100))[-2]
        assert arrived.t == 199
        errors.append(np.abs(arrived.x_t.flatten().numpy() - exact).max())
    assert order - 0.25 < np.log2(errors[0] / errors[1]) < order + 0.6


@pytest.mark.parametrize("solver", SOLVERS)
def test_kept_ones_hold_unless_another_number_of_steps_is_said(solver, tmp_path):
    scheduler = make_scheduler(solver, moments=MOMENTS, timesteps=UNEVEN)
    scheduler.save_pretrained(tmp_path)
    again = type(scheduler).from_pretrained(tmp_path)
    switched = switch_solver(make_scheduler("ddim", moments=MOMENTS, timesteps=UNEVEN), solver)
    for each in (scheduler, again, switched):
        assert solver_name(each) == solver and each.config.timesteps == list(UNEVEN)
        walked = list(UNEVEN) if solver != "pndm" else [UNEVEN[0], UNEVEN[1], *UNEVEN[1:]]
        each.set_timesteps()
        assert each.timesteps.tolist() == walked
        each.set_timesteps(len(UNEVEN))
        assert each.timesteps.tolist() == walked
        each.set_timesteps(timesteps=[999, 5])
        assert sorted(set(each.timesteps.tolist())) == [5, 999]
        plain = make_scheduler(solver, moments=MOMENTS)
        for scheduler in (each, plain):
            scheduler.set_timesteps(5)
        assert torch.equal(each.timesteps, plain.timesteps)


@pytest.mark.parametrize(
    "timesteps", [(), (5, 5), (5, 6), (999, 850, 851), (1000, 3), (4, -1), (5.0, 1), (True,), "999", 3, None]
)
def test_what_is_no_falling_list_is_refused_in_a_line(timesteps):
    with pytest.raises(UserError, match="`timesteps` must be") as caught:
        check_timesteps(timesteps, 1000)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 250
    if timesteps is not None:
        with pytest.raises(UserError, match="`timesteps` must be"):
            make_scheduler("unipc").set_timesteps(timesteps=timesteps)
        with pytest.raises(UserError, match="`timesteps` must be"):
            make_scheduler("unipc", timesteps=timesteps)


def test_steps_that_do_not_fit_them_and_schedulers_that_take_none():
    with pytest.raises(UserError, match="`num_inference_steps=3` does not fit 2 `timesteps`"):
        run("ddim", (999, 5), num_inference_steps=3)
    x = torch.zeros(1, 1, 1, 1)
    with pytest.raises(UserError, match="DDIMScheduler does not support `timesteps`"):
        denoise(Oracle(DATA.eps), DDIMScheduler(), x, [torch.Generator()], timesteps=(999, 5))
    with pytest.raises(UserError, match="a number of steps"):
        make_scheduler("ddim").set_timesteps()
