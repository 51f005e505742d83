"""The nearest training image of a sample, in pixels, to detect copies."""

import torch
from torch import Tensor

from sddpm.data.dataset import ImageDataset
from sddpm.errors import UserError


def nearest_images(queries: Tensor, dataset: ImageDataset, k: int = 1, chunk: int = 4096) -> tuple[Tensor, Tensor]:
    """The `k` images of `dataset` nearest to each query in Euclidean distance over the uint8 pixels.

    `queries` uint8 [M, C, H, W]. Returns indices int64 [M, k] and distances float64 [M, k] in grey levels, nearest
    first, ties to the lowest index. Exact: squares are sums of integers far below 2^53, which float64 represents
    exactly. `chunk` images are compared at a time.
    """
    shape = (dataset.channels, dataset.image_size, dataset.image_size)
    if queries.dtype != torch.uint8 or queries.shape[1:] != shape:
        found = f"{queries.dtype} {list(queries.shape)}"
        raise UserError(f"queries must be uint8 [M, {shape[0]}, {shape[1]}, {shape[2]}] as the data, not {found}")
    if not 1 <= k <= len(dataset):
        raise UserError(f"k must be from 1 to the {len(dataset)} images of {dataset.name}, not {k}")
    q = queries.cpu().flatten(1).double()
    q_square = q.square().sum(1, keepdim=True)
    best = torch.empty(len(q), 0, dtype=torch.long)
    for start in range(0, len(dataset), chunk):
        indices = torch.arange(start, min(start + chunk, len(dataset)))
        x = dataset.gather(indices).flatten(1).double()
        squares = (q_square + x.square().sum(1) - 2 * q @ x.T).long()
        # One integer holds distance and index, so equal distances are ordered by index.
        keys = torch.cat([best, squares * len(dataset) + indices], 1)
        best = keys.topk(min(k, keys.shape[1]), largest=False).values
    return best % len(dataset), (best // len(dataset)).double().sqrt()
