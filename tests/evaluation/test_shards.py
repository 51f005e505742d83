"""Shards that several processes make."""

import numpy as np

from sddpm.evaluation.processes import Processes
from sddpm.evaluation.shards import Shards, fill


class Slow(Processes):
    """A process among two that begins when the other, which is the first, has already made its share."""

    agreed: list[int]

    def agree(self, value):
        if self.first:
            Slow.agreed = value
        return Slow.agreed

    def wait(self):
        pass


def test_every_shard_is_made_once_though_one_process_begins_late(tmp_path):
    """What is missing differs by then: were it shared out anew, pieces would be left over."""
    made = []

    def make(shards, i):
        made.append(i)
        shards.write(i, np.full((1, 2), i))

    for rank in (0, 1):
        shards = Shards(tmp_path / "rows", 7, 1)
        fill(shards.missing(), lambda i, shards=shards: make(shards, i), Slow(rank, 2), "rows", 7)
    assert sorted(made) == list(range(7))
    assert shards[:][:, 0].tolist() == list(range(7))
