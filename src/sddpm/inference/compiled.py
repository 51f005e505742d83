"""`compile_model`: a form of a spiking U-Net that computes the same result faster, for sampling only."""

from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from sddpm.choices import check_choice
from sddpm.errors import UserError
from sddpm.inference.arithmetic import arithmetic_for
from sddpm.inference.network import FoldedUNet
from sddpm.inference.support import Snapshot, unsupported
from sddpm.models.config import check_sample, labels_for, steps_for
from sddpm.models.thresholds import Thresholds
from sddpm.models.unet import SpikingUNet2DModel, SpikingUNet2DOutput
from sddpm.neurons import SpikingNeuron

MODES = {
    "exact": "the error of every layer is no larger than that of float32",
    "fast": "coarser weights; benchmarks/fast_mode_quality.py measures the loss of quality",
}


def compile_model(unet: SpikingUNet2DModel, mode: str = "exact") -> "CompiledUNet":
    """Fold a spiking U-Net for sampling. The model itself is not changed.

    Args:
        unet: on the CPU or a CUDA device, float32 (or, in exact mode, float64).
        mode: "exact" or "fast", as in `MODES`.

    Raises:
        UserError: an unknown mode, or a model that cannot be compiled, with the reason.
    """
    check_choice("mode", mode, MODES)
    compiled = CompiledUNet(unet, mode)
    compiled.refresh()
    return compiled


class CompiledUNet(nn.Module):
    """Computes the same as the `SpikingUNet2DModel` that it was compiled from, in evaluation mode, without gradients.

    Neurons are shared with the model, so thresholds set on either of the two take effect at once. Weights are folded; a
    call folds them again if they have changed. Changes are detected by addresses and versions. A change through `.data`
    alters neither: call `refresh` after it. Nothing else is kept between calls.
    """

    def __init__(self, unet: SpikingUNet2DModel, mode: str):
        super().__init__()
        self.unet, self.mode = unet, mode
        self._folded: tuple[Snapshot, FoldedUNet] | None = None

    def refresh(self) -> FoldedUNet:
        """Fold the current weights. Raises `UserError` if the model cannot be compiled (any more)."""
        reason = unsupported(self.unet, self.mode)
        if reason is not None:
            raise UserError(f"this model cannot be compiled in {self.mode} mode: {reason}")
        with torch.no_grad():
            network = FoldedUNet(self.unet, arithmetic_for(self.unet.device, self.unet.dtype, self.mode))
        self._folded = Snapshot(self.unet), network
        return network

    @torch.no_grad()
    def forward(
        self,
        sample: Tensor,
        timestep: Tensor | int,
        class_labels: Tensor | None = None,
        return_dict: bool = True,
    ) -> SpikingUNet2DOutput | tuple[Tensor]:
        """As in `SpikingUNet2DModel`. Images with different diffusion steps or classes are computed in separate groups,
        one after the other.

        Raises:
            UserError: as in `SpikingUNet2DModel`, and for a model that cannot be compiled any more, for example because
                it has a forward hook, which would not be called here.
        """
        check_sample(self.config, sample.shape)
        folded = self._folded
        network = folded[1] if folded and folded[0].holds() else self.refresh()
        t = steps_for(self.config, timestep, len(sample)).tolist()
        labels = labels_for(self.config, class_labels, sample)
        points = list(zip(t, [None] * len(t) if labels is None else labels.tolist(), strict=True))
        if len(set(points)) == 1:
            out = network(sample, *points[0]).to(sample.dtype)
        else:
            out = sample.new_empty(len(sample), self.config["out_channels"], *sample.shape[2:])
            for step, label in set(points):
                chosen = [i for i, other in enumerate(points) if other == (step, label)]
                out[chosen] = network(sample[chosen], step, label).to(sample.dtype)
        return SpikingUNet2DOutput(sample=out) if return_dict else (out,)

    def at_threshold(self, thresholds: Thresholds | None) -> AbstractContextManager[None]:
        """As in `SpikingUNet2DModel`."""
        return self.unet.at_threshold(thresholds)

    def set_v_threshold(self, thresholds: Thresholds, pattern: str = "*") -> None:
        """As in `SpikingUNet2DModel`."""
        self.unet.set_v_threshold(thresholds, pattern)

    def neurons(self) -> dict[str, SpikingNeuron]:
        """As in `SpikingUNet2DModel`."""
        return self.unet.neurons()

    @property
    def config(self) -> Any:
        return self.unet.config

    @property
    def dtype(self) -> torch.dtype:
        return self.unet.dtype

    @property
    def device(self) -> torch.device:
        return self.unet.device

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_folded": None}  # a copy folds its weights itself
