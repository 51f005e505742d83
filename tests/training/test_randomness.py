"""What a step draws depends on (seed, step) and the row of the batch alone."""

from collections import Counter

import pytest
import torch

from sddpm.data import open_dataset
from sddpm.errors import UserError
from sddpm.training.batches import share_of_batch, training_batches
from sddpm.training.randomness import batch_indices, generator


@pytest.mark.parametrize(("batch_size", "size"), [(4, 12), (5, 12), (7, 3), (1, 2)])
def test_every_epoch_has_every_image_once(batch_size, size):
    epochs = 5
    steps = epochs * size // batch_size + 1
    order = torch.cat([batch_indices(3, step, batch_size, size) for step in range(steps)])
    for epoch in range(epochs):
        assert Counter(order[epoch * size : (epoch + 1) * size].tolist()) == Counter(range(size))
    assert len(order) == steps * batch_size


def test_epochs_and_seeds_have_different_orders():
    orders = [tuple(batch_indices(seed, epoch, 50, 50).tolist()) for seed in range(3) for epoch in range(3)]
    assert len(set(orders)) == 9


def test_purposes_are_unrelated():
    draws = torch.stack([torch.randn(20_000, generator=generator(0, p, n)) for p, n in (("a", 0), ("b", 0), ("a", 1))])
    correlation = torch.corrcoef(draws) - torch.eye(3)
    assert correlation.abs().max() < 5 / 20_000**0.5


@pytest.fixture(scope="module")
def digits():
    return open_dataset("digits", image_size=8, limit=50)


def test_processes_and_microbatches_partition_the_global_batch(tiny, digits):
    config = tiny("data.flip=true", "train.batch_size=12", "train.steps=3")
    whole = list(training_batches(digits, config, 0, share_of_batch(12, 1, 0, 1)))
    shares = [list(training_batches(digits, config, 0, share_of_batch(12, 2, rank, 3))) for rank in range(3)]
    for step in range(3):
        for name in ("images", "noise", "t"):
            parts = [[getattr(part, name) for part in share[step].split(2)] for share in shares]
            micro_batches = [torch.cat([parts[rank][micro] for rank in range(3)]) for micro in range(2)]
            assert torch.equal(torch.cat(micro_batches), getattr(whole[step], name))
            assert {len(part) for of_rank in parts for part in of_rank} == {2}


def test_a_later_start_goes_on_with_the_same_batches(tiny, digits):
    config = tiny("data.flip=true")
    rows = torch.arange(8)
    whole, rest = list(training_batches(digits, config, 0, rows)), list(training_batches(digits, config, 4, rows))
    assert len(whole) == 6
    for a, b in zip(whole[4:], rest, strict=True):
        assert torch.equal(a.images, b.images) and torch.equal(a.noise, b.noise) and torch.equal(a.t, b.t)
    assert not torch.equal(whole[0].noise, whole[1].noise)


def test_flips_mirror_about_half_and_nothing_else(tiny, digits):
    plain = list(training_batches(digits, tiny("train.batch_size=50", "train.steps=8"), 0, torch.arange(50)))
    flipped = list(
        training_batches(digits, tiny("train.batch_size=50", "train.steps=8", "data.flip=true"), 0, torch.arange(50))
    )
    mirrored = 0
    for a, b in zip(plain, flipped, strict=True):
        for before, after in zip(a.images, b.images, strict=True):
            if not torch.equal(before, after):
                assert torch.equal(before.flip(-1), after)
                mirrored += 1
    assert 150 < mirrored < 250  # of 400; five standard deviations are 50


def test_time_steps_are_uniform(tiny, digits):
    config = tiny("train.batch_size=500", "train.steps=20", "diffusion.num_train_timesteps=10")
    t = torch.cat([batch.t for batch in training_batches(digits, config, 0, torch.arange(500))])
    counts = torch.bincount(t, minlength=10).double()
    assert len(counts) == 10
    assert (counts - 1000).abs().max() < 5 * 30  # standard deviation sqrt(10000 * 0.1 * 0.9) = 30


def test_a_batch_that_does_not_divide_is_refused():
    with pytest.raises(UserError, match=r"10 is not divisible by 2 processes x train.accumulation 3.*multiple of 6"):
        share_of_batch(10, 3, 0, 2)
