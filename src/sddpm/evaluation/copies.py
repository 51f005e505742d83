"""Finds samples that are copies: of training images (near copies), or of the reference images."""

from typing import Any

import torch

from sddpm.data import nearest_images
from sddpm.data.dataset import ImageDataset
from sddpm.errors import UserError
from sddpm.evaluation.images import ImageSet

NEIGHBOURS, FACTOR = 50, 0.5
MAX_OVERLAP = 0.01
_QUERIES = 1 << 26  # bytes of samples compared at a time, as float64
_TRAINING = 1024  # number of training images compared at a time


def near_copies(samples: ImageSet, training: ImageDataset, limit: int = 10_000) -> dict[str, Any]:
    """The share of the first `limit` samples that are near copies of training images, and their list.

    A sample is a near copy if the Euclidean distance in pixels to its nearest training image is less than half the mean
    distance to its 50 nearest ones (Carlini et al., arXiv 2301.13188, section 5.1).

    Returns:
        checked, count, share, criterion, and `pairs`: [sample, training image, distance in grey levels] of up to 20.
    """
    checked = min(limit, samples.count)
    step = max(1, _QUERIES // (8 * training.channels * training.image_size**2))
    pairs: list[tuple[int, int, float]] = []
    for start in range(0, checked, step):
        chosen = torch.arange(start, min(start + step, checked))
        k = min(NEIGHBOURS, len(training))
        indices, distances = nearest_images(samples.gather(chosen), training, k, _TRAINING)
        nearest = distances[:, 0]
        copied = (nearest < FACTOR * distances.mean(1)) | (nearest == 0)
        pairs += [(start + i, int(indices[i, 0]), float(nearest[i])) for i in copied.nonzero()[:, 0].tolist()]
    return {
        "checked": checked,
        "count": len(pairs),
        "share": len(pairs) / checked,
        "criterion": f"distance to the nearest < {FACTOR} x mean distance to the {NEIGHBOURS} nearest, in pixels",
        "training_images": len(training),
        "pairs": sorted(pairs, key=lambda pair: pair[2])[:20],
    }


def refuse_overlap(samples: ImageSet, reference: ImageSet, allowed: bool) -> int:
    """The number of samples that are pixel-identical to images of the reference.

    Raises:
        UserError: more than one in a hundred, unless `allowed`.
    """
    known = set(reference.digests)
    shared = sum(digest in known for digest in samples.digests)
    if shared > MAX_OVERLAP * samples.count and not allowed:
        raise UserError(
            f"the reference overlaps the samples: {shared:,} of {samples.count:,} samples are images of "
            f"{reference.source.name}; compare with other images, or add `allow_overlap=True`"
        )
    return shared
