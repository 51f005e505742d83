"""Fixtures shared by all tests: where the data lie, and one thread a process so that workers do not fight for cores."""

import os
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
