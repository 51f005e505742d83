"""Batches for a training loop, decoded ahead of time if needed."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from torch import Tensor

from sddpm.data.dataset import ImageDataset, Indices, MemoryDataset


def iterate_batches(dataset: ImageDataset, batches: Iterable[Indices], *, prefetch: int = 2) -> Iterator[Tensor]:
    """Yields `dataset.gather(batch)`, uint8 [B, C, H, W], for each batch of indices (which can be endless).

    Lazy data are decoded in the background, up to `prefetch` batches ahead, so `batches` is also read that far ahead
    (in the caller's thread). Errors of decoding are raised at their batch; closing the iterator early stops the
    background work.
    """
    if isinstance(dataset, MemoryDataset) or prefetch < 1:
        for batch in batches:
            yield dataset.gather(batch)
        return
    pool = ThreadPoolExecutor(1, thread_name_prefix="sddpm-prefetch")
    pending: deque[Future[Tensor]] = deque()
    try:
        for batch in batches:
            pending.append(pool.submit(dataset.gather, batch))
            if len(pending) > prefetch:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
