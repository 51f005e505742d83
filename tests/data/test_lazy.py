"""Data beyond the memory limit: the same pixels, damaged images replaced, batches decoded ahead."""

import json
import logging
import threading
import time

import pytest
import torch
from torch.utils.data import DataLoader

from sddpm.data import LazyDataset, MemoryDataset, iterate_batches, open_dataset
from sddpm.errors import UserError


@pytest.fixture
def zip_path(tmp_path, pictures, encode, make_zip):
    files = {f"{i}.png": encode(picture) for i, picture in enumerate(pictures)}
    labels = json.dumps({"labels": [[f"{i}.png", 9 - i] for i in range(10)]}).encode()
    return make_zip(tmp_path / "x.zip", files | {"dataset.json": labels})


def test_lazy_equals_memory(zip_path):
    for options in ({}, {"image_size": 5, "channels": 1}, {"limit": 4}):
        held, lazy = open_dataset(zip_path, **options), open_dataset(zip_path, memory_limit=0, **options)
        assert isinstance(held, MemoryDataset) and isinstance(lazy, LazyDataset)
        assert (lazy.channels, lazy.image_size, len(lazy)) == (held.channels, held.image_size, len(held))
        assert torch.equal(lazy.labels, held.labels) and lazy.names == held.names
        indices = torch.tensor([3, 0, 3, 2])
        assert torch.equal(lazy.gather(indices), held.gather(indices))
        assert torch.equal(torch.stack(list(lazy)), held.images)
        assert torch.equal(lazy[-1], held[-1])
        for ds in (held, lazy):
            with pytest.raises(IndexError):
                ds[len(ds)]


def test_the_limit_is_in_decoded_bytes(zip_path):
    size = 10 * 3 * 8 * 8
    assert isinstance(open_dataset(zip_path, memory_limit=size), MemoryDataset)
    assert isinstance(open_dataset(zip_path, memory_limit=size - 1), LazyDataset)


def test_damaged_images_are_replaced_by_the_next_and_named_once(tmp_path, pictures, encode, make_folder, caplog):
    files = {f"{i}.png": encode(pictures[i]) if i not in (4, 5, 9) else b"bad" for i in range(10)}
    files["dataset.json"] = json.dumps({"labels": [[f"{i}.png", i] for i in range(10)]}).encode()
    with caplog.at_level(logging.WARNING):
        ds = open_dataset(make_folder(tmp_path / "x", files), memory_limit=0)
        first, again = ds.gather(range(10)), ds.gather(range(10))
    expected = pictures[[0, 1, 2, 3, 6, 6, 6, 7, 8, 0]]
    assert torch.equal(first, torch.from_numpy(expected).permute(0, 3, 1, 2)) and torch.equal(first, again)
    assert ds.labels.tolist() == [0, 1, 2, 3, 6, 6, 6, 7, 8, 0]
    assert sorted(ds.skipped) == [(f"{i}.png", "not an image") for i in (4, 5, 9)]
    assert len(caplog.records) == 3


def batches(n, count):
    return [torch.arange(i, i + n) % 10 for i in range(count)]


@pytest.mark.parametrize("memory_limit", [0, 1 << 30])
@pytest.mark.parametrize("prefetch", [0, 1, 2, 7])
def test_batches_come_in_order(zip_path, memory_limit, prefetch):
    ds = open_dataset(zip_path, memory_limit=memory_limit)
    wanted = batches(3, 12)
    got = list(iterate_batches(ds, iter(wanted), prefetch=prefetch))
    assert len(got) == 12
    assert all(torch.equal(x, ds.gather(i)) for x, i in zip(got, wanted, strict=True))


class Slow:
    """Stands in for lazy data whose decoding takes a while and may fail."""

    def __init__(self, seconds: float = 0.05, fail_at: int | None = None):
        self.seconds, self.fail_at, self.calls = seconds, fail_at, []

    def gather(self, indices):
        self.calls.append(indices)
        time.sleep(self.seconds)
        if indices == self.fail_at:
            raise UserError(f"batch {indices} is bad")
        return torch.tensor([indices])


def test_decoding_runs_while_the_consumer_works():
    start = time.perf_counter()
    for _ in iterate_batches(Slow(0.05), range(10)):
        time.sleep(0.05)
    assert time.perf_counter() - start < 0.85  # one after the other takes 1.0 s


def test_errors_arrive_at_their_batch():
    stream = iterate_batches(Slow(0.001, fail_at=3), range(100))
    assert [int(next(stream)) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(UserError, match="batch 3 is bad"):
        next(stream)


def test_stopping_early_stops_the_background():
    ds, before = Slow(0.01), threading.active_count()
    stream = iterate_batches(ds, iter(int, 1))  # for ever
    next(stream)
    stream.close()
    assert threading.active_count() == before
    made = len(ds.calls)
    time.sleep(0.05)
    assert len(ds.calls) == made <= 4


@pytest.mark.parametrize("start", ["fork", "spawn"])
@pytest.mark.timeout(120)
def test_worker_processes_are_refused_and_do_not_hang(zip_path, start):
    lazy = open_dataset(zip_path, memory_limit=0)
    loader = DataLoader(lazy, num_workers=1, multiprocessing_context=start)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="num_workers=0"):
        next(iter(loader))
    assert len(list(DataLoader(lazy))) == len(lazy)  # type: ignore[arg-type]
