"""From real-valued features over T time steps to one prediction."""

import torch
from torch import Tensor, nn

from sddpm.models.batch_norm import StepBatchNorm2d
from sddpm.models.blocks import MakeConv, MakeNeuron
from sddpm.models.layers import StepConv2d


def membrane_readout(x: Tensor, decay: float) -> Tensor:
    """[T, B, ...] -> [B, ...]: sum over n of decay^(T-1-n) x[n].

    The membrane at the last time step of a leaky neuron that never fires (FSVAE, Kamata et al., AAAI 2022, decay
    0.8). The weights are float32 powers, as in trained checkpoints, then cast to the dtype of x.
    """
    exponents = torch.arange(x.shape[0] - 1, -1, -1, dtype=torch.float32, device=x.device)
    weights = torch.pow(decay, exponents).to(x.dtype)
    return (x * weights.view(-1, *[1] * (x.ndim - 1))).sum(0)


class SpikingReadout(nn.Module):
    """[T, B, C, H, W] -> [B, C_out, H, W]: a = conv(SiLU(norm(x))); a + SiLU(norm(conv(a))), read over T.

    The second convolution is purely spatial (the reference stores it as a 3 x 3 x 1 Conv3d).
    """

    def __init__(self, channels: int, out_channels: int, decay: float, make_conv: MakeConv):
        super().__init__()
        self.decay = decay
        self.norm = StepBatchNorm2d(channels)
        self.conv = make_conv(channels, out_channels, 3)
        rows, columns = self.conv.kernel_size
        self.out_conv = StepConv2d(out_channels, out_channels, (rows, columns), padding=(rows // 2, columns // 2))
        self.out_norm = StepBatchNorm2d(out_channels)
        self.act = nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        a = self.conv(self.act(self.norm(x)))
        return membrane_readout(a + self.act(self.out_norm(self.out_conv(a))), self.decay)


class PureSpikingReadout(nn.Module):
    """[T, B, C, H, W] -> [B, C_out, H, W]: conv(neuron(norm(x))), read over T. The convolution receives spikes."""

    def __init__(self, channels: int, out_channels: int, decay: float, make_conv: MakeConv, make_neuron: MakeNeuron):
        super().__init__()
        self.decay = decay
        self.norm = StepBatchNorm2d(channels)
        self.neuron = make_neuron()
        self.conv = make_conv(channels, out_channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        return membrane_readout(self.conv(self.neuron(self.norm(x))), self.decay)


class CurrentReadout(nn.Module):
    """[T, B, C, H, W] -> [T, B, C_out, H, W]: conv(neuron(norm(x))), a synaptic current at each time step (FSDDIM)."""

    def __init__(self, channels: int, out_channels: int, make_conv: MakeConv, make_neuron: MakeNeuron):
        super().__init__()
        self.norm = StepBatchNorm2d(channels)
        self.neuron = make_neuron()
        self.conv = make_conv(channels, out_channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.neuron(self.norm(x)))
