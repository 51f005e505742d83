"""Recording of denoising steps."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from sddpm.data import to_uint8
from sddpm.pipelines.denoise import DenoisingStep


@dataclass
class DenoisingRecorder:
    """A pipeline callback that records all steps of the first few samples of the first batch.

    `figures.grid.denoising_strip(*recorder.frames())` draws it.
    """

    samples: int = 4
    x_t: list[Tensor] = field(default_factory=list)
    x0: list[Tensor] = field(default_factory=list)
    timesteps: list[int] = field(default_factory=list)

    def __call__(self, step: DenoisingStep) -> None:
        if step.index < len(self.timesteps):
            return  # a later batch
        self.x_t.append(to_uint8(step.x_t[: self.samples].cpu()))
        self.x0.append(to_uint8(step.x0[: self.samples].cpu()))
        self.timesteps.append(step.t)

    def frames(self, moments: int = 10) -> tuple[Tensor, Tensor, list[int]]:
        """x_t and x_0, uint8 [S, N, C, H, W], and t, at S steps, evenly spaced from the first to the last."""
        last = len(self.timesteps) - 1
        moments = min(moments, last + 1)
        chosen = [round(i * last / max(moments - 1, 1)) for i in range(moments)]
        return (
            torch.stack([self.x_t[i] for i in chosen]),
            torch.stack([self.x0[i] for i in chosen]),
            [self.timesteps[i] for i in chosen],
        )
