"""The blocks of the spiking U-Net. All take and return real-valued [T, B, C, H, W] and apply the neuron first
(pre-spike)."""

from collections.abc import Callable

from torch import Tensor, nn

from sddpm.models.batch_norm import StepBatchNorm2d
from sddpm.models.layers import StepConv2d, repeat_steps
from sddpm.models.spiking_conv import spiking_conv
from sddpm.neurons import QuantizedReLU, SpikingNeuron

MakeNeuron = Callable[[], SpikingNeuron | QuantizedReLU]
MakeConv = Callable[..., StepConv2d]


class SpikingEncoder(nn.Module):
    """[B, C_in, H, W] or [T, B, C_in, H, W] -> [T, B, C, H, W]: conv, norm, neuron, conv, norm.

    The image is the same input current at every time step (direct coding), so the first convolution is evaluated once.
    If `source` is set, it supplies that convolution's output: x -> [S, B, C, H, W] at the S time steps to evaluate.
    """

    source: Callable[[Tensor], Tensor] | None = None

    def __init__(self, in_channels: int, channels: int, T: int, make_conv: MakeConv, make_neuron: MakeNeuron):
        super().__init__()
        self.T = T
        self.conv1 = make_conv(in_channels, channels, 3)
        self.norm1 = StepBatchNorm2d(channels)
        self.neuron = make_neuron()
        self.conv2 = make_conv(channels, channels, 3)
        self.norm2 = StepBatchNorm2d(channels)

    def first_current(self, x: Tensor) -> Tensor:
        """The output of the first convolution, [1, B, C, H, W] if all time steps share it, else [T, ...]."""
        return self.conv1(x.unsqueeze(0) if x.ndim == 4 else x)

    def forward(self, x: Tensor) -> Tensor:
        # The norm receives all T copies, because its running variance depends on their number (n / (n - 1)).
        current = self.source(x) if self.source is not None else repeat_steps(self.first_current(x), self.T)
        return self.norm2(spiking_conv(current, self.neuron, self.conv2, norm=self.norm1))


class SpikingResBlock(nn.Module):
    """neuron, conv, norm, + time, neuron, conv, norm; plus the real-valued input (1x1 conv if channels change)."""

    def __init__(
        self, in_channels: int, out_channels: int, time_channels: int, make_conv: MakeConv, make_neuron: MakeNeuron
    ):
        super().__init__()
        self.neuron1 = make_neuron()
        self.conv1 = make_conv(in_channels, out_channels, 3)
        self.norm1 = StepBatchNorm2d(out_channels)
        self.time_projection = nn.Sequential(nn.SiLU(), nn.Linear(time_channels, out_channels))
        self.neuron2 = make_neuron()
        self.conv2 = make_conv(out_channels, out_channels, 3)
        self.norm2 = StepBatchNorm2d(out_channels)
        self.shortcut = make_conv(in_channels, out_channels, 1) if in_channels != out_channels else nn.Identity()

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = spiking_conv(x, self.neuron1, self.conv1)
        h = spiking_conv(h, self.neuron2, self.conv2, norm=self.norm1, shift=self.time_projection(emb))
        return self.norm2(h, self.shortcut(x))


class PureSpikingResBlock(SpikingResBlock):
    """A residual block whose 1x1 shortcut convolution takes the block's spikes instead of its real-valued input.

    Where the number of channels does not change, the input is added unchanged, which needs no multiplication.
    """

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        spikes = self.neuron1(x)
        h = self.conv1(spikes)
        h = spiking_conv(h, self.neuron2, self.conv2, norm=self.norm1, shift=self.time_projection(emb))
        return self.norm2(h, x if isinstance(self.shortcut, nn.Identity) else self.shortcut(spikes))


class SpikingDownsample(nn.Module):
    """neuron, 3x3 conv with stride 2, norm: H and W are halved (only W for signals)."""

    def __init__(self, channels: int, make_conv: MakeConv, make_neuron: MakeNeuron):
        super().__init__()
        self.neuron = make_neuron()
        self.conv = make_conv(channels, channels, 3, stride=2)
        self.norm = StepBatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(spiking_conv(x, self.neuron, self.conv))


class SpikingUpsample(nn.Module):
    """neuron, nearest x2, 3x3 conv, norm: H and W are multiplied by `factors` (only W for signals)."""

    def __init__(self, channels: int, make_conv: MakeConv, make_neuron: MakeNeuron, factors: tuple[int, int] = (2, 2)):
        super().__init__()
        self.factors = factors
        self.neuron = make_neuron()
        self.conv = make_conv(channels, channels, 3)
        self.norm = StepBatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(spiking_conv(x, self.neuron, self.conv, upsample=self.factors))
