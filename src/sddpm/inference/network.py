"""The whole spiking U-Net, folded: `SpikingUNet2DModel.forward`, layer by layer, for fixed weights."""

from contextlib import nullcontext
from dataclasses import dataclass
from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from sddpm.inference.arithmetic import Arithmetic
from sddpm.inference.blocks import Encoder, PureReadout, Readout, Resample, ResBlock
from sddpm.inference.graphs import Graphed
from sddpm.inference.time import TimeBiases
from sddpm.inference.torch_ops import without_tf32
from sddpm.models.blocks import SpikingResBlock
from sddpm.models.level import Level
from sddpm.models.readout import PureSpikingReadout
from sddpm.models.unet import SpikingUNet2DModel


@dataclass
class FoldedLevel:
    """One resolution of the U-Net."""

    blocks: list[ResBlock]
    resample: Resample | None


class FoldedUNet:
    """x_t [B, C, H, W], one diffusion step and one class (None without classes) for all images -> prediction
    [B, C_out, H, W], in the dtype of the arithmetic.

    On a CUDA device calls are recorded and replayed (`graphs`; None to always launch kernels one by one). What is kept
    between calls does not change results.
    """

    def __init__(self, unet: SpikingUNet2DModel, arithmetic: Arithmetic):
        self.patch_size = unet.config["patch_size"]
        self.encoder = Encoder(unet.encoder, arithmetic)

        def res_blocks(blocks: nn.ModuleList) -> list[ResBlock]:
            return [ResBlock(cast(SpikingResBlock, block), arithmetic) for block in blocks]

        def level(source: Level) -> FoldedLevel:
            resample = None if source.resample is None else Resample(source.resample, arithmetic)  # type: ignore[arg-type]
            return FoldedLevel(res_blocks(source.blocks), resample)

        self.down = [level(source) for source in unet.down]
        self.middle = res_blocks(unet.middle)
        self.up = [level(source) for source in unet.up]
        pure = isinstance(unet.readout, PureSpikingReadout)
        self.readout = (PureReadout if pure else Readout)(unet.readout, unet.config["T"], arithmetic)  # type: ignore[arg-type]
        levels = [*self.down, FoldedLevel(self.middle, None), *self.up]
        self.time_biases = TimeBiases(
            unet.time_embedding,
            unet.class_embedding,
            [block for level in levels for block in level.blocks],
            unet.skip,
            arithmetic,
        )

        self.graphs = Graphed(self.evaluate) if arithmetic.device.type == "cuda" else None
        self.neurons, self.exact = list(unet.neurons().values()), arithmetic.precision == "exact"

    def __call__(self, sample: Tensor, t: int, label: int | None = None) -> Tensor:
        # 1. time, and class
        biases = self.time_biases(t, label)
        with without_tf32() if self.exact else nullcontext():
            if self.graphs is None:
                return self.evaluate(sample, *biases)
            return self.graphs(sample, *biases, key=tuple(neuron.v_threshold for neuron in self.neurons))

    def evaluate(self, sample: Tensor, *time_biases: Tensor) -> Tensor:
        """The prediction, from x_t and the output of `time_biases`: for each residual block, then the input skip's."""
        biases = iter(time_biases)
        # 2. encode
        h = self.encoder(F.pixel_unshuffle(sample, self.patch_size).permute(0, 2, 3, 1).contiguous())
        # 3. down
        skips = [h]
        for level in self.down:
            for block in level.blocks:
                h = block([h], next(biases))
                skips.append(h)
            if level.resample is not None:
                h = level.resample(h)
                skips.append(h)
        # 4. middle
        for block in self.middle:
            h = block([h], next(biases))
        # 5. up
        for level in self.up:
            for block in level.blocks:
                h = block([h, skips.pop()], next(biases))
            if level.resample is not None:
                h = level.resample(h)
        # 6. read out
        out = F.pixel_shuffle(self.readout(h).permute(0, 3, 1, 2), self.patch_size)
        gain = next(biases, None)
        return out if gain is None else out + sample * gain
