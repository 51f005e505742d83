import itertools

import pytest
import torch

from sddpm.diffusion.noise import generators_for
from sddpm.diffusion.repaint import add_more_noise, resampling_walk, with_known
from sddpm.errors import UserError


def test_the_walk():
    assert resampling_walk(4, 10, 1) == [0, 1, 2, 3, 4]
    assert resampling_walk(4, 2, 2) == [0, 1, 2, 0, 1, 2, 3, 4, 2, 3, 4]
    assert resampling_walk(3, 2, 2) == [0, 1, 2, 0, 1, 2, 3, 2, 3]


@pytest.mark.parametrize(("steps", "jump", "times"), [(1, 1, 3), (10, 3, 4), (250, 10, 10)])
def test_every_step_is_taken_as_often(steps, jump, times):
    walk = resampling_walk(steps, jump, times)
    down = [(a, b) for a, b in itertools.pairwise(walk) if b > a]
    assert all(b == a + 1 for a, b in down)
    assert sorted(down) == sorted([(i, i + 1) for i in range(steps)] * times)
    assert (walk[0], walk[-1]) == (0, steps)


@pytest.mark.parametrize(("jump", "times"), [(0, 1), (1, 0)])
def test_refused(jump, times):
    with pytest.raises(UserError, match="at least 1"):
        resampling_walk(5, jump, times)


def test_more_noise_goes_from_level_to_level():
    """x at 0.8 has the variance 0.8 s^2 + 0.2 of data of deviation s; so it has 0.3 s^2 + 0.7 at 0.3."""
    s = 0.5
    x = (0.8 * s**2 + 0.2) ** 0.5 * torch.randn(1, 1, 400, 400, generator=torch.Generator().manual_seed(0))
    noisier = add_more_noise(x, 0.8, 0.3, generators_for([1]))
    assert noisier.var().item() == pytest.approx(0.3 * s**2 + 0.7, rel=0.02)
    assert torch.corrcoef(torch.stack([x.flatten(), noisier.flatten()]))[0, 1].item() == pytest.approx(
        (0.3 / 0.8) ** 0.5 * ((0.8 * s**2 + 0.2) / (0.3 * s**2 + 0.7)) ** 0.5, rel=0.02
    )


def test_the_known_part_is_at_its_level():
    x, known = torch.zeros(1, 1, 200, 200), torch.full((1, 1, 200, 200), 0.5)
    unknown = torch.zeros(200, 200, dtype=torch.bool)
    unknown[:100] = True
    mixed = with_known(x, known, unknown, 0.64, generators_for([0]))
    assert not mixed[:, :, :100].any()
    assert mixed[:, :, 100:].mean().item() == pytest.approx(0.8 * 0.5, abs=0.02)
    assert mixed[:, :, 100:].std().item() == pytest.approx(0.6, rel=0.02)
    assert torch.equal(with_known(x, known, unknown, 1.0, generators_for([0]))[:, :, 100:], known[:, :, 100:])
