"""The noise levels that a run learns from: as the config says, by seed and step alone."""

import pytest
import torch

from sddpm.data import open_dataset
from sddpm.errors import UserError
from sddpm.training import load_config, train
from sddpm.training.batches import training_batches
from sddpm.training.config_files import changed_keys
from sddpm.training.noise import noise_schedule
from sddpm.training.randomness import generator

LOG_NORMAL = ("diffusion.density=log-normal", "diffusion.density_mean=-0.4", "diffusion.density_width=1.0")


def batches(config, start=0):
    dataset = open_dataset("digits", image_size=8)
    return list(training_batches(dataset, config, start, torch.arange(config.train.batch_size)))


def test_uniform_is_the_default_and_the_same_bits_as_ever(tiny):
    for step, batch in enumerate(batches(tiny())):
        assert torch.equal(batch.t, torch.randint(1000, (8,), generator=generator(0, "t", step)))


def test_only_the_noise_levels_are_others(tiny):
    for one, other in zip(batches(tiny()), batches(tiny(*LOG_NORMAL)), strict=True):
        assert torch.equal(one.images, other.images) and torch.equal(one.noise, other.noise)
        assert not torch.equal(one.t, other.t)


def test_a_resumed_run_learns_from_the_same_levels(tiny):
    config = tiny(*LOG_NORMAL)
    for one, other in zip(batches(config)[3:], batches(config, start=3), strict=True):
        assert torch.equal(one.t, other.t)


def test_a_run_of_an_older_version_goes_on(tiny):
    config = tiny().to_dict()
    older = {section: {k: v for k, v in keys.items() if "density" not in k} for section, keys in config.items()}
    assert changed_keys(older, config) == []
    assert changed_keys(older, tiny(*LOG_NORMAL).to_dict()) == [
        "diffusion.density", "diffusion.density_mean", "diffusion.density_width"
    ]  # fmt: skip


def test_it_trains(tiny, tmp_path):
    assert train(tiny(*LOG_NORMAL, "train.steps=2"), tmp_path / "run").step == 2
    assert load_config(tmp_path / "run" / "config.yaml").diffusion.density == "log-normal"


def test_an_unknown_density_and_a_mean_without_one_are_refused(tiny, tmp_path):
    with pytest.raises(UserError, match="density 'normal', which is not registered"):
        tiny("diffusion.density=normal")
    with pytest.raises(UserError, match="leave density_mean out"):
        noise_schedule(tiny("diffusion.density_mean=-1.2").diffusion)
    with pytest.raises(UserError, match="leave density_mean out"):
        train(tiny("diffusion.density_mean=-1.2"), tmp_path / "run")
    assert not (tmp_path / "run").exists()
