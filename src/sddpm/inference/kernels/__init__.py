"""Convolutions over binary spikes on the CPU, and the neurons behind them."""

from sddpm.inference.kernels.fire import fire
from sddpm.inference.kernels.spike_conv import SpikeConv2d

__all__ = ["SpikeConv2d", "fire"]
