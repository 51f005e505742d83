"""Noise assigned to images: the nearest order of all, of the same noise, for each micro-batch and step alone."""

from itertools import permutations

import pytest
import torch

from sddpm.data import open_dataset, to_model
from sddpm.errors import UserError
from sddpm.training import assignment, train
from sddpm.training.assignment import assign_noise
from sddpm.training.batches import share_of_batch, training_batches


def distance(images, noise):
    return (to_model(images, torch.float64) - noise.double()).square().sum().item()


def draw(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, 1, 4, 4), dtype=torch.uint8, generator=generator)
    return images, torch.randn(count, 1, 4, 4, generator=generator)


def test_the_nearest_of_all_orders():
    images, noise = draw(5)
    assigned = assign_noise(images, noise)
    least = min(distance(images, noise[list(order)]) for order in permutations(range(5)))
    assert distance(images, assigned) == pytest.approx(least, rel=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_the_same_noise_no_further_than_before(seed):
    images, noise = draw(32, seed)
    assigned = assign_noise(images, noise)
    assert distance(images, assigned) < distance(images, noise)
    before, after = noise.flatten(1), assigned.flatten(1)
    assert torch.equal(before[before[:, 0].argsort()], after[after[:, 0].argsort()])
    assert torch.equal(assign_noise(images, assigned), assigned)


def test_signals_are_taken_as_they_are():
    signals, noise = torch.tensor([[[0.9, 1.0]], [[-1.0, -0.8]]]), torch.tensor([[[-2.0, -1.0]], [[1.0, 2.0]]])
    assert torch.equal(assign_noise(signals, noise), noise.flip(0))


def test_micro_batches_of_training(tiny):
    """All but the order of the noise is as without; no noise leaves its micro-batch; a later start sees the same."""
    dataset = open_dataset("digits", image_size=8)
    rows = share_of_batch(8, 2, 0, 1)

    def batches(assign, start=0):
        config = tiny("train.accumulation=2", f"train.assign_noise={assign}")
        return list(training_batches(dataset, config, start, rows))

    plain, assigned = batches("false"), batches("true")
    moved = 0
    for before, after in zip(plain, assigned, strict=True):
        assert torch.equal(before.images, after.images) and torch.equal(before.t, after.t)
        for one, other in zip(before.split(2), after.split(2), strict=True):
            assert {tuple(row) for row in one.noise.flatten(1).tolist()} == {
                tuple(row) for row in other.noise.flatten(1).tolist()
            }
            assert distance(other.images, other.noise) <= distance(one.images, one.noise)
            moved += not torch.equal(one.noise, other.noise)
    assert moved > 6
    for late, same in zip(batches("true", start=3), assigned[3:], strict=True):
        assert torch.equal(late.noise, same.noise)


def test_without_scipy_nothing_is_written(tiny, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "scipy.optimize", None)
    with pytest.raises(UserError, match=r"train\.assign_noise needs scipy"):
        assignment.assignment_solver()
    with pytest.raises(UserError, match="needs scipy"):
        train(tiny("train.assign_noise=true"), tmp_path / "run", progress=False)
    assert not any((tmp_path / "run").glob("*"))
