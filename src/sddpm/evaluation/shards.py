"""Arrays on disk in pieces, each written atomically, so that interrupted work can continue."""

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from sddpm.errors import UserError
from sddpm.evaluation.processes import Processes
from sddpm.files import atomic_path


class Shards:
    """An array [count, ...] stored as FOLDER/START-STOP.npy, `size` rows each (the last one can have fewer).

    Indexing by a slice or an integer array returns a NumPy array and reads only the indexed rows.
    """

    def __init__(self, folder: Path, count: int, size: int):
        self.folder = folder
        self.bounds = [(start, min(start + size, count)) for start in range(0, count, size)]
        self.count, self.size = count, size
        self._open = lru_cache(maxsize=8)(self._load)

    def missing(self) -> list[int]:
        """The numbers of the missing shards."""
        return [i for i in range(len(self.bounds)) if not self.path(i).is_file()]

    def path(self, i: int) -> Path:
        """The file of shard i."""
        start, stop = self.bounds[i]
        return self.folder / f"{start:08d}-{stop:08d}.npy"

    def write(self, i: int, rows: np.ndarray) -> None:
        """Store shard i. Raises `UserError` if it cannot be written."""
        with atomic_path(self.path(i)) as temporary, temporary.open("wb") as file:
            np.save(file, rows)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.count, *self._open(0).shape[1:]

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: Any) -> np.ndarray:
        wanted = np.arange(self.count)[index]
        out = np.empty((len(wanted), *self.shape[1:]), self._open(0).dtype)
        shard = wanted // self.size
        for i in np.unique(shard):
            here = shard == i
            out[here] = self._open(int(i))[wanted[here] - i * self.size]
        return out

    def _load(self, i: int) -> np.ndarray:
        try:
            rows = np.load(self.path(i), mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise UserError(f"{self.path(i)} is damaged ({error}); delete it, and it is made again") from error
        start, stop = self.bounds[i]
        if len(rows) != stop - start:
            raise UserError(f"{self.path(i)} is damaged: {len(rows)} rows; delete it, and it is made again")
        return rows


def fill(missing: list[int], make: Callable[[int], None], processes: Processes, title: str, shards_in_all: int) -> None:
    """Make the missing shards, each process its share, and wait until all exist."""
    from tqdm import tqdm

    # A faster process may already have made some shards: all processes must divide the same list.
    missing = processes.agree(missing)
    mine = processes.share(missing)
    with tqdm(
        total=shards_in_all,
        initial=shards_in_all - len(missing),
        desc=title,
        unit="shard",
        leave=False,
        disable=None if processes.first else True,
    ) as bar:
        for i in mine:
            make(i)
            bar.update(processes.count)
    processes.wait()
