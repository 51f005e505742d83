"""A pipeline without diffusers' base class, for commands that only sample: that class takes seconds to import."""

from collections.abc import Mapping
from os import PathLike
from typing import Any

import torch
from tqdm import tqdm

from sddpm.pipelines.parts import load_parts
from sddpm.pipelines.streaming import StreamingPipeline


class PlainPipeline(StreamingPipeline):
    """Samples as a `SpikingDiffusionPipeline` of the same parts does, bit for bit.

    Args:
        unet, scheduler: as of `SpikingDiffusionPipeline`.
        about: its other arguments.

    Raises:
        UserError: as there.
    """

    def __init__(self, unet: Any, scheduler: Any, about: Mapping[str, Any]):
        self.unet, self.scheduler, self.config = unet, scheduler, about
        self._begin(about)
        self.device = self._execution_device = unet.device

    def to(self, device: torch.device | str) -> "PlainPipeline":
        """The same on a device."""
        return PlainPipeline(self.unet.to(device), self.scheduler, self.about)

    def progress_bar(self, total: int) -> tqdm:
        """The bar of a call."""
        return tqdm(total=total)


def load_plain(path: str | PathLike[str], device: torch.device | str = "cpu") -> PlainPipeline:
    """As `load_pipeline`."""
    parts = load_parts(path)
    with parts.naming_the_file():
        pipeline = PlainPipeline(parts.unet, parts.scheduler, parts.about)
    return pipeline if pipeline.device == torch.device(device) else pipeline.to(device)
