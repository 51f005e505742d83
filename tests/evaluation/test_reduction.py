"""Moments summed by several processes: the numbers of NumPy, and the same bits however many processes there are."""

import threading
from queue import Queue

import numpy as np
import pytest
import torch

from sddpm.evaluation.metrics import Features
from sddpm.evaluation.processes import Processes, local_device
from sddpm.evaluation.reduction import sum_moments
from sddpm.evaluation.statistics import Moments


class Threads(Processes):
    """Processes that are threads of this one, with queues for lines."""

    def __init__(self, rank, count, lines):
        super().__init__(rank, count)
        object.__setattr__(self, "lines", lines)

    def to_first(self, tensor, owner):
        if owner != 0 and self.rank == owner:
            self.lines[owner].put(tensor.clone())
        elif owner != 0 and self.first:
            tensor.copy_(self.lines[owner].get(timeout=20))


def summed_by(count, features):
    lines = [Queue() for _ in range(count)]
    found = {}
    threads = [
        threading.Thread(target=lambda r=r: found.update({r: sum_moments(features, Threads(r, count, lines))}))
        for r in range(count)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert all(found[r].summed is None for r in range(1, count))
    return found[0].moments


@pytest.mark.parametrize("count", [2, 5, 17, 1003])
def test_any_number_of_processes_gives_the_same_bits(count):
    rows = (np.random.default_rng(0).normal(size=(count, 6)) * 10 + 100).astype(np.float32)
    alone = sum_moments(Features("x", rows), Processes()).moments
    np.testing.assert_allclose(alone.gaussian().covariance, np.cov(rows.astype(float), rowvar=False), atol=1e-9)
    np.testing.assert_allclose(alone.mean, rows.astype(float).mean(0), rtol=1e-12)
    for processes in (2, 3, 20):
        together = summed_by(processes, Features("x", rows))
        assert together.count == count
        assert torch.equal(together.mean, alone.mean) and torch.equal(together.scatter, alone.scatter)


def test_statistics_files_have_nothing_to_sum():
    known = Features("x", None, Moments.of(torch.randn(5, 2)).gaussian())
    assert sum_moments(known, Processes()) is known


@pytest.mark.parametrize("dim", [1, 2, 7])
def test_packed_and_unpacked(dim):
    moments = Moments.of(torch.randn(9, dim, generator=torch.Generator().manual_seed(0)))
    again = Moments.unpacked(moments.packed())
    assert again.count == 9
    assert torch.equal(again.mean, moments.mean) and torch.equal(again.scatter, moments.scatter)


def test_each_process_takes_a_gpu_of_its_own(monkeypatch):
    assert local_device("cpu") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert local_device() == torch.device("cuda:0")
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert local_device() == torch.device("cuda:1")
    assert local_device("cuda:0") == torch.device("cuda:0")
