"""CUDA graphs: the kernels of a function recorded once and replayed, so that the host launches all of them with one
call.

A recording fixes shapes, addresses, and every number that Python passed to a kernel. Tensor arguments of a call are
copied to the addresses that the recorded kernels read; anything else that can change must be part of the key of the
call.
"""

import logging
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

WARM_UPS = 2  # kernels are compiled and chosen, and workspaces allocated, before anything is recorded

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recording:
    """replay() reads `inputs` and writes `output`; both keep their addresses."""

    inputs: tuple[Tensor, ...]
    output: Tensor
    replay: Callable[[], Any]


def record(function: Callable[..., Tensor], inputs: tuple[Tensor, ...], pool: Any = None) -> Recording:
    """Record a function of tensors on one CUDA device, without gradients.

    Args:
        function: only launches kernels: no synchronisation, no lasting allocation.
        inputs: an example of each argument.
        pool: memory shared with other recordings, none of which runs at the same time.
    """
    device = inputs[0].device
    with torch.no_grad(), torch.cuda.device(device):
        static = tuple(x.detach().clone() for x in inputs)
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(WARM_UPS):
                function(*static)
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=pool):
            output = function(*static)
    return Recording(static, output, graph.replay)


class Graphed:
    """A function of tensors that is replayed from a recording if this is faster, else called normally.

    A call is recorded if the previous call had the same shapes, dtypes, memory layouts and key; so neither a last small
    batch nor a threshold that changes at every step causes useless recordings.

    Args:
        function: tensors -> tensor, suitable for `record`.
        limit: maximum number of recordings, the most recently used ones.
        recorder: `record`, or a replacement for other devices.
    """

    def __init__(
        self, function: Callable[..., Tensor], *, limit: int = 4, recorder: Callable[..., Recording] | None = None
    ):
        self._function, self._limit, self._recorder = function, limit, recorder
        self._recordings: OrderedDict[Hashable, Recording] = OrderedDict()
        self._previous: Hashable = None
        self._pool: Any = None

    def __call__(self, *inputs: Tensor, key: Hashable = None) -> Tensor:
        """function(*inputs), in memory that later calls do not overwrite.

        `key` identifies everything else that the function reads and that is not at a fixed address, such as numbers.
        """
        seen = (key, *((x.shape, x.dtype, x.device, x.stride()) for x in inputs))
        recording = self._recordings.get(seen) or self._try_to_record(seen, inputs)
        self._previous = seen
        if recording is None:
            return self._function(*inputs)
        self._recordings.move_to_end(seen)
        torch._foreach_copy_(list(recording.inputs), list(inputs))  # pyright: ignore[reportPrivateImportUsage]
        recording.replay()
        return recording.output.clone()

    def _try_to_record(self, seen: Hashable, inputs: tuple[Tensor, ...]) -> Recording | None:
        if seen != self._previous or self._limit == 0:
            return None
        try:
            if self._recorder is not None:
                recording = self._recorder(self._function, inputs)
            else:
                self._pool = self._pool or torch.cuda.graph_pool_handle()
                recording = record(self._function, inputs, self._pool)
        except RuntimeError as error:  # an operation that cannot be recorded must not stop sampling
            logger.warning("continuing without CUDA graphs: %s", str(error).splitlines()[0])
            self._limit = 0
            return None
        self._recordings[seen] = recording
        if len(self._recordings) > self._limit:
            self._recordings.popitem(last=False)
        return recording
