"""A data set and two metrics that users might have registered."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

import sddpm
from sddpm.data import DATASETS, Request, source_of_arrays
from sddpm.evaluation import METRICS


def stripes(request: Request):
    """Stripes of 8x8: across (class 0) or down (class 1), 90 to train and 80 to test, no two of them alike."""
    count, seed = (90, 0) if request.split == "train" else (80, 1)
    rng = np.random.default_rng(seed)
    lines = rng.integers(0, 256, (count, 8), dtype=np.uint8)
    labels = np.arange(count) % 2
    across = np.repeat(lines[:, :, None], 8, 2)
    images = np.where(labels[:, None, None] == 0, across, across.transpose(0, 2, 1))
    return source_of_arrays(images, labels, "stripes")


def brightness(samples, reference):
    """How far the mean pixel of the samples is from that of the reference."""
    return abs(float(samples.moments.mean.mean() - reference.moments.mean.mean()))


def share_of_first_class(samples):
    """Of the samples; needs their classes and no reference."""
    return float((samples.labels == 0).mean())


@contextmanager
def measured_strangers() -> Iterator[None]:
    """The data set "stripes" and the metrics "brightness" and "first-class" are registered."""
    options = {"splits": {"train": 90, "test": 80}, "channels": 1, "image_size": 8, "classes": ("across", "down")}
    sddpm.register_dataset("stripes", stripes, description="Stripes", **options)
    sddpm.register_metric("brightness", brightness, help="mean brightness", features="pixels", minimum=50)
    sddpm.register_metric(
        "first-class", share_of_first_class, features="pixels", against="nothing", labels=True, lower_is_better=False
    )
    try:
        yield
    finally:
        del DATASETS["stripes"], METRICS["brightness"], METRICS["first-class"]
