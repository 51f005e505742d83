import math

import pytest
import torch

from sddpm.diffusion.interpolation import slerp


def test_on_a_circle_the_angle_grows_evenly():
    start, end = torch.tensor([2.0, 0.0]), torch.tensor([0.0, 2.0])
    for weight in (0.0, 0.25, 0.5, 1.0):
        angle = weight * math.pi / 2
        assert slerp(start, end, weight).tolist() == pytest.approx([2 * math.cos(angle), 2 * math.sin(angle)], abs=1e-6)


def test_ends_are_exact_and_noise_keeps_its_length():
    """A straight line would be shorter by 1 / sqrt(2) in the middle."""
    a, b = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert torch.equal(slerp(a, b, 0), a) and torch.equal(slerp(a, b, 1), b)
    middle = slerp(a, b, 0.5)
    assert middle.shape == a.shape and middle.dtype == a.dtype
    assert middle.std().item() == pytest.approx(1, abs=0.03)
    assert ((a + b) / 2).std().item() == pytest.approx(0.5**0.5, abs=0.03)
    torch.testing.assert_close(slerp(a, b, 0.3), slerp(b, a, 0.7))


def test_a_draw_and_itself():
    a = torch.randn(1, 4, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(slerp(a, a, 0.3), a)
