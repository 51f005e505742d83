"""Several processes that share one evaluation: torchrun starts them, files hold the results, gloo synchronises them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from sddpm.choices import number_from_environment
from sddpm.errors import UserError, reason
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
        """Every count-th piece of work, starting with the rank-th."""
        return work[self.rank :: self.count]

    def wait(self) -> None:
        """Wait until all processes have reached this point."""
        if self.count > 1:
            dist.barrier()

    def agree(self, value: T) -> T:
        """The first process's value, so that all processes continue in the same way."""
        values = [value]
        if self.count > 1:
            dist.broadcast_object_list(values)
        return values[0]

    def to_first(self, tensor: Tensor, owner: int) -> None:
        """Send the tensor of process `owner` to the first process, into the tensor of the same shape passed there."""
        if owner != 0 and self.rank == owner:
            dist.send(tensor, 0)
        elif owner != 0 and self.first:
            dist.recv(tensor, owner)


@contextmanager
def launched_processes() -> Iterator[Processes]:
    """The processes that torchrun started, according to its environment variables; a single process without them.

    Raises:
        UserError: variables that are missing or wrong, or processes that cannot be connected.
    """
    count = number_from_environment("WORLD_SIZE", 1)
    if count == 1:
        yield Processes()
        return
    # gloo, even on GPUs: it is only used to wait, for as long as the slowest process samples.
    try:
        dist.init_process_group("gloo", timeout=timedelta(days=7))
    except (ValueError, RuntimeError) as error:
        raise UserError(
            f"the {count} processes of WORLD_SIZE cannot be connected: {reason(error)}; start them with `torchrun "
            f"--nproc-per-node {count} --no-python sddpm ...`, or unset WORLD_SIZE"
        ) from error
    try:
        yield Processes(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()


def local_device(name: str = "auto") -> torch.device:
    """`pick_device`; with several GPUs, each process on this machine gets its own."""
    device = pick_device(name)
    if device.type != "cuda" or device.index is not None:
        return device
    return torch.device("cuda", number_from_environment("LOCAL_RANK", 0) % torch.cuda.device_count())
