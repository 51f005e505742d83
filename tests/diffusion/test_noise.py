import pytest
import torch

from sddpm.diffusion.noise import draw_noise, generators_for, seeded_noise
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


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_seeds_beyond_32_bits_are_refused(seed):
    with pytest.raises(UserError, match="0 to 4294967295"):
        seeded_noise([0, seed], (1, 2, 2))
