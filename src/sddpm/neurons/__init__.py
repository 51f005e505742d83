"""Spiking neurons: surrogate gradients, pure multi-step functions, and the module around them."""

from sddpm.neurons.functional import NEURONS, Dynamics
from sddpm.neurons.kernels import multi_step
from sddpm.neurons.modules import SpikingNeuron
from sddpm.neurons.quantized import QuantizedReLU
from sddpm.neurons.surrogates import SURROGATES

__all__ = ["NEURONS", "SURROGATES", "Dynamics", "QuantizedReLU", "SpikingNeuron", "multi_step"]
