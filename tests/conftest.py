"""Fixtures shared by all tests: where the data lie, and one thread a process so that workers do not fight for cores."""

import os
import sys
from pathlib import Path

import pytest
import torch

if not torch.cuda.is_available():  # read when triton is first imported: kernels for GPUs then run on the CPU
    os.environ.setdefault("TRITON_INTERPRET", "1")

ROOT = Path(__file__).resolve().parent.parent


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("cuda") and not torch.cuda.is_available():
        pytest.skip("no CUDA device")


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def vectors_dir() -> Path:
    """Exact outputs of the reference implementation (data, see tests/vectors/README.md)."""
    return ROOT / "tests" / "vectors"


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """Real data sets, which are not part of the repository: SDDPM_SHARED, or ../shared beside it."""
    folder = Path(os.environ.get("SDDPM_SHARED", ROOT.parent / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip("real data not present: set SDDPM_SHARED to a folder with data/mnist, data/cifar10, ...")
    return folder


@pytest.fixture
def sddpm(monkeypatch, tmp_path, capfd):
    """Runs the command in an empty folder; returns its exit code and what it printed on stdout and stderr."""
    from sddpm.cli.main import run

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SDDPM_CACHE", str(tmp_path / "cache"))

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["sddpm", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit:
            run()
        return exit.value.code or 0, *capfd.readouterr()

    return call


@pytest.fixture
def registries():
    """Neurons and surrogates that a test registers are gone after it."""
    from sddpm.neurons import NEURONS, SURROGATES

    before = [(registry, dict(registry)) for registry in (NEURONS, SURROGATES)]
    yield
    for registry, parts in before:
        registry.clear()
        registry.update(parts)
