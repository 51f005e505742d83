"""A network so small that a step takes milliseconds, and Python processes that train it."""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from sddpm.training import Config, load_config

TINY = [
    "data.image_size=8",
    "model.base_channels=8",
    "model.channel_mult=[1,2]",
    "model.num_res_blocks=1",
    "model.T=2",
    "model.patch_size=1",
    "train.batch_size=8",
    "train.steps=6",
    "train.warmup_steps=2",
    "train.log_every=1",
    "train.sample_every=0",
    "train.checkpoint_every=3",
    "train.precision=float32",
    "train.tensorboard=false",
]


@pytest.fixture(scope="session")
def tiny_settings() -> list[str]:
    """What `--set` makes of the digits config."""
    return list(TINY)


@pytest.fixture(scope="session")
def tiny() -> Callable[..., Config]:
    """The digits config in its smallest form, with further overrides."""

    def make(*overrides: str) -> Config:
        return load_config("digits", [*TINY, *overrides])

    return make


@pytest.fixture(scope="session")
def start() -> Callable[..., subprocess.Popen]:
    """Start a Python process (`python ARGUMENTS`) on one thread, as this one."""

    def popen(arguments: Sequence[str | Path], **options) -> subprocess.Popen:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **options.pop("env", {})}
        return subprocess.Popen(
            [sys.executable, *map(str, arguments)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **options,
        )

    return popen
