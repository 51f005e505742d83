import numpy as np
import pytest
import torch

from sddpm.diffusion.analytic import AnalyticDPMScheduler
from sddpm.diffusion.moments import Moments
from sddpm.diffusion.noise import draw_noise, generators_for, seeded_noise
from sddpm.diffusion.respaced import RespacedDDIMScheduler
from sddpm.errors import UserError


def test_a_seed_is_its_generator():
    expected = torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(5))
    assert torch.equal(seeded_noise([5], (3, 8, 8))[0], expected)


def test_noise_depends_neither_on_batch_nor_on_place():
    alone = [seeded_noise([seed], (3, 5, 7))[0] for seed in (4, 0, 9)]
    assert torch.equal(seeded_noise([9, 4, 0], (3, 5, 7)), torch.stack([alone[2], alone[0], alone[1]]))


def test_noise_is_the_same_in_every_precision():
    single = seeded_noise([1], (1, 4, 4))
    assert torch.equal(seeded_noise([1], (1, 4, 4), torch.float64), single.double())
    assert torch.equal(seeded_noise([1], (1, 4, 4), torch.bfloat16), single.bfloat16())


def test_generators_move_on():
    generators = generators_for([1, 2])
    assert not torch.equal(draw_noise(generators, (4, 4)), draw_noise(generators, (4, 4)))


@pytest.mark.parametrize("seed", [1.5, "1", True, None])
def test_seeds_are_whole_numbers(seed):
    with pytest.raises(UserError, match="a seed must be a whole number"):
        seeded_noise([0, seed], (1, 2, 2))
    assert torch.equal(seeded_noise(np.array([7, 2]), (1, 2, 2)), seeded_noise([7, 2], (1, 2, 2)))


def test_steps_have_the_same_noise_in_every_precision():
    x = seeded_noise([1, 2], (1, 4, 4))
    for solver in (
        RespacedDDIMScheduler(),
        AnalyticDPMScheduler(moments=Moments([0.5] * 1000, [0.0] * 1000, 3).to_dict()),
    ):
        solver.set_timesteps(10)
        share = {"eta": 1.0} if isinstance(solver, RespacedDDIMScheduler) else {}
        single, double = (
            solver.step(0 * x.to(dtype), 999, x.to(dtype), generator=generators_for([1, 2]), **share).prev_sample
            for dtype in (torch.float32, torch.float64)
        )
        assert double.dtype == torch.float64
        torch.testing.assert_close(single.double(), double, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_seeds_beyond_32_bits_are_refused(seed):
    with pytest.raises(UserError, match="0 to 4294967295"):
        seeded_noise([0, seed], (1, 2, 2))
