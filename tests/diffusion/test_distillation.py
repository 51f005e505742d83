"""Distillation's core in float64, by closed forms: grids, a teacher's walk on Gaussian data, a student's target."""

import math

import pytest
import torch

from sddpm.diffusion.distillation import GRIDS, angles, grid_timesteps, student_target, walk
from sddpm.diffusion.schedule import NoiseSchedule
from sddpm.diffusion.solvers import make_scheduler
from sddpm.diffusion.timesteps import respaced_timesteps
from sddpm.errors import UserError

LINEAR = NoiseSchedule().alphas_cumprod
M, S = 0.1, 0.25  # the data's mean and deviation


def spread(phi):
    """The deviation of z_phi."""
    return ((phi.cos() * S).square() + phi.sin().square()).sqrt()


def exact_velocity(phi):
    """v of N(M, S^2): cos E[epsilon | z] - sin E[x_0 | z], linear in z."""

    def v(z, t):
        cos, sin = (f(phi[t]).view(-1, *[1] * (z.ndim - 1)) for f in (torch.cos, torch.sin))
        x0 = M + cos * S**2 / (cos**2 * S**2 + sin**2) * (z - cos * M)
        return (cos * z - x0) / sin

    return v


def exact_end(z, start, end):
    """The probability flow of N(M, S^2) is linear: means to means, deviations to deviations."""
    return end.cos() * M + spread(end) / spread(start) * (z - start.cos() * M)


def walked(count, order, alphas_cumprod, start=0.95, end=0.2):
    """|z'' - exact| of a walk of `count` steps between two angles, as shares of the largest."""
    phi = angles(alphas_cumprod)
    wanted = phi[-1] * torch.linspace(start, end, count + 1, dtype=torch.float64)
    found = [int((phi - each).abs().argmin()) for each in wanted]
    z = torch.linspace(-1.0, 1.0, 5, dtype=torch.float64)
    steps = [torch.full((5,), t) for t in found[:-1]]
    last = phi[found[-1]].expand(5)
    got = walk(exact_velocity(phi), z, steps, last, phi, order=order, clip=False)
    return (got - exact_end(z, phi[found[0]], last)).abs().max().item()


@pytest.mark.parametrize("order", [1, 2])
def test_a_walk_comes_to_the_probability_flow_with_its_order(order):
    fine = NoiseSchedule(200_000, "cosine").alphas_cumprod
    errors = [walked(n, order, fine) for n in (32, 64, 128)]
    rates = [math.log2(errors[i] / errors[i + 1]) for i in range(2)]
    assert all(abs(rate - order) < 0.2 for rate in rates), (errors, rates)


@pytest.mark.parametrize("order", [1, 2])
def test_the_walk_is_that_of_the_solver_of_this_name(order):
    """Against diffusers' DDIM and DPM-Solver++(2M), to the clean image; the tables there are float32."""
    scheduler = make_scheduler({1: "ddim", 2: "dpm++"}[order], prediction_type="v_prediction", clip_sample=False)
    scheduler.set_timesteps(6)
    phi = angles(LINEAR)
    v, start = exact_velocity(phi), torch.linspace(-2.0, 2.0, 7, dtype=torch.float64).view(-1, 1, 1, 1)
    z = start
    for t in scheduler.timesteps:
        z = scheduler.step(v(z, t.expand(7)), t, z).prev_sample
    steps = [t.expand(7) for t in scheduler.timesteps]
    got = walk(v, start, steps, torch.zeros(7, dtype=torch.float64), phi, order=order, clip=False)
    assert torch.allclose(got, z, atol=2e-4)


def test_a_step_of_ddim_with_the_target_lands_where_the_walk_ends():
    generator = torch.Generator().manual_seed(0)
    z, z_end = torch.randn(2, 6, 1, 3, 3, generator=generator, dtype=torch.float64)
    phi = torch.tensor([1.56, 1.5, 1.0, 0.5, 0.1, 0.02], dtype=torch.float64)
    end = torch.tensor([1.2, 0.0, 0.9, 0.0, 0.05, 0.0], dtype=torch.float64)
    v = student_target(z, z_end, phi, end)
    cos, sin, cos_end, sin_end = (f(each).view(-1, 1, 1, 1) for each in (phi, end) for f in (torch.cos, torch.sin))
    x0, epsilon = cos * z - sin * v, sin * z + cos * v
    assert torch.allclose(cos_end * x0 + sin_end * epsilon, z_end, rtol=0, atol=1e-12)


def test_the_scale_is_that_of_the_clean_image_and_the_clamp_holds_what_the_student_heads_for():
    """A teacher that predicts x_0 = 0.7 everywhere: scaled by 1.2, the walk ends at 0.84; by 2, at the clamp; and x_0
    as the student's v* implies it is that image again, so that its own clamp is idle."""
    phi = angles(LINEAR)
    steps = [torch.tensor([t]) for t in (999, 700, 300, 30)]
    z = torch.full((1, 1), 0.4, dtype=torch.float64)

    def v(z, t):
        return (phi[t].cos() * z - 0.7) / phi[t].sin()

    for scale, clip, x0 in ((1.2, True, 0.84), (2.0, True, 1.0), (2.0, False, 1.4)):
        for order in (1, 2):
            end = torch.zeros(1, dtype=torch.float64)
            got = walk(v, z, steps, end, phi, x0_scale=scale, clip=clip, order=order)
            target = student_target(z, got, phi[[999]], end)
            implied = phi[999].cos() * z - phi[999].sin() * target
            assert got.item() == pytest.approx(x0, abs=1e-9) and implied.item() == pytest.approx(x0, abs=1e-9)


def test_extrapolated_images_are_clamped_too():
    """x_0 rises from -1 to 1 between two evaluations: DPM-Solver++(2M) extrapolates beyond, the walk does not."""
    phi = angles(LINEAR)
    steps, end = [torch.tensor([t]) for t in (800, 500)], phi[[200]]
    seen = iter((-0.9, 0.9))

    def v(z, t):
        return (phi[t].cos() * z - next(seen)) / phi[t].sin()

    z = torch.zeros(1, 1, dtype=torch.float64)
    got = walk(v, z, steps, end, phi, order=2)
    after_first = phi[500].cos() * -0.9 + phi[500].sin() / phi[800].sin() * (z - phi[800].cos() * -0.9)
    wanted = phi[200].cos() * 1.0 + phi[200].sin() / phi[500].sin() * (after_first - phi[500].cos() * 1.0)
    assert got.item() == pytest.approx(wanted.item(), abs=1e-12)


def test_angles_are_exact_at_both_ends():
    a = torch.tensor([1 - 1e-12, 0.75, 0.5, 1e-12], dtype=torch.float64)
    assert angles(a).tolist() == pytest.approx([1e-6, math.pi / 6, math.pi / 4, math.pi / 2 - 1e-6], rel=1e-4)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 7, 16])
def test_grids_in_closed_form(n):
    """Schedules on which each is a plain sequence: 960 angles, and 961 log-SNRs, evenly apart."""
    assert grid_timesteps("uniform", n, LINEAR) == respaced_timesteps(n, 1000)
    k = torch.arange(1, 961, dtype=torch.float64)
    even_angles = (math.pi / 2 * k / 961).cos().square()
    assert grid_timesteps("angle", n, even_angles) == [round(960 * (n - i) / n - 1e-9) - 1 for i in range(n)]
    even_log_snr = torch.sigmoid(torch.linspace(9.0, -9.0, 961, dtype=torch.float64))
    expected = [960 - 960 * i / n for i in range(n)]
    assert all(abs(t - e) <= 0.5 for t, e in zip(grid_timesteps("log-snr", n, even_log_snr), expected, strict=True))


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_every_kth_of_a_finer_grid_is_the_coarser_one(grid, schedule):
    table = NoiseSchedule(beta_schedule=schedule).alphas_cumprod
    coarse = grid_timesteps(grid, 2, table)
    assert grid_timesteps(grid, 4, table)[::2] == coarse
    assert grid_timesteps(grid, 6, table)[::3] == coarse
    assert coarse[0] == 999


@pytest.mark.parametrize("grid", GRIDS)
def test_evaluations_that_coincide_are_refused(grid):
    table = NoiseSchedule(num_train_timesteps=10).alphas_cumprod
    assert len(grid_timesteps(grid, 2, table)) == 2
    with pytest.raises(UserError, match=rf"^11 evaluations of the {grid} grid coincide .* of 10 time steps: choose"):
        grid_timesteps(grid, 11, table)
    with pytest.raises(UserError, match="at least 1 evaluation, not 0"):
        grid_timesteps(grid, 0, table)
    with pytest.raises(UserError, match="grid 'even': choose one of uniform, log-snr, angle"):
        grid_timesteps("even", 4, table)
