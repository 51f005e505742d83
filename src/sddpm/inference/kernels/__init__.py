"""Convolutions over binary spikes on the CPU, and the neurons after them."""

from sddpm.inference.kernels.firing import fire
from sddpm.inference.kernels.spike_conv import make_spike_conv, spike_conv_kernel

__all__ = ["fire", "make_spike_conv", "spike_conv_kernel"]
