"""Several processes that share one evaluation: torchrun starts them, files carry the results, gloo lets them meet."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from sddpm.choices import number_from_environment
from sddpm.pipelines.devices import pick_device

T = TypeVar("T")


@dataclass(frozen=True)
class Processes:
    """This process is number `rank` of `count`."""

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        return self.rank == 0

    def share(self, work: Sequence[T]) -> Sequence[T]:
        """Every count-th piece of work, from the rank-th on."""
        return work[self.rank :: self.count]

    def wait(self) -> None:
        """Until all processes have come here."""
        if self.count > 1:
            dist.barrier()

    def agree(self, value: T) -> T:
        """The first process's value, so that all go the same way from here."""
        values = [value]
        if self.count > 1:
            dist.broadcast_object_list(values)
        return values[0]

    def to_first(self, tensor: Tensor, owner: int) -> None:
        """Bring the tensor of process `owner` to the first one, into the tensor of the same shape given there."""
        if owner != 0 and self.rank == owner:
            dist.send(tensor, 0)
        elif owner != 0 and self.first:
            dist.recv(tensor, owner)


@contextmanager
def launched_processes() -> Iterator[Processes]:
    """The processes that torchrun started, as its environment variables say; alone without them."""
    count = number_from_environment("WORLD_SIZE", 1)
    if count == 1:
        yield Processes()
        return
    # gloo, also where there are GPUs: it only has to wait, for as long as the slowest process samples.
    dist.init_process_group("gloo", timeout=timedelta(days=7))
    try:
        yield Processes(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()


def local_device(name: str = "auto") -> torch.device:
    """`pick_device`, and of several GPUs each process on this machine its own."""
    device = pick_device(name)
    if device.type != "cuda" or device.index is not None:
        return device
    return torch.device("cuda", number_from_environment("LOCAL_RANK", 0) % torch.cuda.device_count())
