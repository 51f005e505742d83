import math

import pytest
import torch
from diffusers import DDPMScheduler

from sddpm.diffusion.schedule import NoiseSchedule, add_noise
from sddpm.errors import UserError


@pytest.mark.parametrize(("ours", "theirs"), [("linear", "linear"), ("cosine", "squaredcos_cap_v2")])
def test_tables_are_those_of_diffusers_to_float32(ours, theirs):
    schedule, scheduler = NoiseSchedule(beta_schedule=ours), DDPMScheduler(beta_schedule=theirs)
    torch.testing.assert_close(schedule.betas.float(), scheduler.betas, rtol=1e-6, atol=0)
    torch.testing.assert_close(schedule.alphas_cumprod, scheduler.alphas_cumprod.double(), rtol=1e-4, atol=1e-6)


def test_tables_are_float64_and_hold_the_published_values():
    schedule = NoiseSchedule()
    assert schedule.betas.dtype == schedule.alphas_cumprod.dtype == torch.float64
    assert schedule.betas[0].item() == pytest.approx(1e-4, rel=1e-14)
    assert schedule.betas[-1].item() == pytest.approx(0.02, rel=1e-14)
    log_product = math.fsum(math.log1p(-(1e-4 + (0.02 - 1e-4) * i / 999)) for i in range(1000))
    assert schedule.alphas_cumprod[-1].item() == pytest.approx(math.exp(log_product), rel=1e-12)


def test_cosine_is_the_squared_cosine_up_to_the_cap():
    t = 499
    expected = math.cos((0.5 + 0.008) / 1.008 * math.pi / 2) ** 2 / math.cos(0.008 / 1.008 * math.pi / 2) ** 2
    assert NoiseSchedule(beta_schedule="cosine").alphas_cumprod[t].item() == pytest.approx(expected, rel=1e-12)


def test_add_noise_has_unit_coefficients_squared_and_a_step_per_sample():
    table = NoiseSchedule().alphas_cumprod
    t = torch.tensor([0, 500, 999])
    ones, zeros = torch.ones(3, 1, 2, 2, dtype=torch.float64), torch.zeros(3, 1, 2, 2, dtype=torch.float64)
    signal, noise = add_noise(table, ones, zeros, t), add_noise(table, zeros, ones, t)
    torch.testing.assert_close(signal**2 + noise**2, ones, rtol=1e-14, atol=0)
    torch.testing.assert_close(signal[:, 0, 0, 0] ** 2, table[t], rtol=1e-14, atol=0)


def test_add_noise_takes_one_step_for_all_and_keeps_the_dtype():
    table, x0 = NoiseSchedule().alphas_cumprod, torch.rand(2, 3, 4, 4)
    noise = torch.randn_like(x0)
    both = add_noise(table, x0, noise, torch.tensor([7, 7]))
    assert both.dtype == torch.float32
    assert torch.equal(add_noise(table, x0, noise, 7), both)


@pytest.mark.parametrize(
    "arguments",
    [
        {"beta_schedule": "sigmoid"},
        {"num_train_timesteps": 0},
        {"beta_start": 0.02, "beta_end": 1e-4},
        {"beta_end": 1.0},
        {"beta_start": 0.0},
    ],
)
def test_impossible_schedules_are_refused(arguments):
    with pytest.raises(UserError):
        NoiseSchedule(**arguments)
