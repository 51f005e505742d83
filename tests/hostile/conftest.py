"""Real files of every kind, made once; everything that a command imports is imported before forks are made."""

import shutil
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sddpm.conversion import save_reference
from sddpm.evaluation.features.fad import FadEncoder
from sddpm.evaluation.statistics import Gaussian
from sddpm.evaluation.statistics_files import StatisticsFile, write_statistics
from sddpm.moving import pack_run
from sddpm.pipelines import load_pipeline
from sddpm.training import load_config, train
from tests.helpers.tiny import TINY

PARTS = (
    "cli.main",
    "conversion",
    "release",
    "energy.account",
    "guidance",
    "figures.grid",
    "evaluation.run",
    "moving",
)


@pytest.fixture(scope="session")
def real(tmp_path_factory) -> Path:
    """run/, pack/, model/, images/, reference.pt, fad.pth, statistics.npz, images.npz, grey.npz, image.png, .jpg."""
    for part in PARTS:
        import_module(f"sddpm.{part}")
    folder = tmp_path_factory.mktemp("real")
    train(load_config("digits", TINY), folder / "run", progress=False)
    pack_run(folder / "run", folder / "pack", half=True)
    shutil.copytree(folder / "run" / "model", folder / "model")
    unet = load_pipeline(folder / "model").unet
    save_reference(unet, folder / "reference.pt")
    rng = np.random.default_rng(0)
    samples = rng.normal(size=(50, 6))
    gaussian = Gaussian(torch.tensor(samples.mean(0)), torch.tensor(np.cov(samples.T)), 50)
    write_statistics(folder / "statistics.npz", StatisticsFile({"pool": gaussian}))
    np.savez(folder / "images.npz", rng.integers(0, 256, (5, 8, 8, 3), np.uint8))
    np.savez(folder / "grey.npz", rng.integers(0, 256, (200, 8, 8, 1), np.uint8))
    torch.manual_seed(0)
    torch.save(FadEncoder(1).state_dict(), folder / "fad.pth")
    (folder / "images").mkdir()
    for i in range(3):
        image = Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8))
        image.save(folder / "images" / f"{i}.png")
    image.save(folder / "image.png")
    image.save(folder / "image.jpg")
    return folder


@pytest.fixture
def place(real, tmp_path) -> Path:
    """An own copy of all of it."""
    return shutil.copytree(real, tmp_path / "place")
