"""Data sets as uint8 images, opened by `open_dataset`. Names are imported on first use because torch is slow to
load."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sddpm.data.dataset import ImageDataset as ImageDataset
    from sddpm.data.dataset import LazyDataset as LazyDataset
    from sddpm.data.dataset import MemoryDataset as MemoryDataset
    from sddpm.data.loading import iterate_batches as iterate_batches
    from sddpm.data.nearest import nearest_images as nearest_images
    from sddpm.data.open import open_dataset as open_dataset
    from sddpm.data.registry import DATASETS as DATASETS
    from sddpm.data.registry import register_dataset as register_dataset
    from sddpm.data.sources import Request as Request
    from sddpm.data.sources import Source as Source
    from sddpm.data.sources import source_of_arrays as source_of_arrays
    from sddpm.data.transforms import random_flip as random_flip
    from sddpm.data.transforms import to_model as to_model
    from sddpm.data.transforms import to_uint8 as to_uint8
    from sddpm.data.transforms import unit_to_uint8 as unit_to_uint8

_LAZY = {
    "DATASETS": "registry",
    "ImageDataset": "dataset",
    "LazyDataset": "dataset",
    "MemoryDataset": "dataset",
    "iterate_batches": "loading",
    "nearest_images": "nearest",
    "open_dataset": "open",
    "Request": "sources",
    "Source": "sources",
    "random_flip": "transforms",
    "register_dataset": "registry",
    "source_of_arrays": "sources",
    "to_model": "transforms",
    "to_uint8": "transforms",
    "unit_to_uint8": "transforms",
}
__all__ = [
    "DATASETS",
    "ImageDataset",
    "LazyDataset",
    "MemoryDataset",
    "Request",
    "Source",
    "iterate_batches",
    "nearest_images",
    "open_dataset",
    "random_flip",
    "register_dataset",
    "source_of_arrays",
    "to_model",
    "to_uint8",
    "unit_to_uint8",
]


def __getattr__(name: str):
    if name in _LAZY:
        return getattr(import_module(f"sddpm.data.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'sddpm.data' has no attribute {name!r}")
