"""Spiking neurons: surrogate gradients, multi-step neurons as pure functions, and a module that wraps them."""

from sddpm.neurons.definition import NEURONS, Dynamics, Neuron, Option, State, register_neuron
from sddpm.neurons.functional import fire, reset, step, steps
from sddpm.neurons.kernels import multi_step
from sddpm.neurons.modules import SpikingNeuron
from sddpm.neurons.quantized import QuantizedReLU
from sddpm.neurons.surrogates import SURROGATES, register_surrogate

__all__ = [
    "NEURONS",
    "SURROGATES",
    "Dynamics",
    "Neuron",
    "Option",
    "QuantizedReLU",
    "SpikingNeuron",
    "State",
    "fire",
    "multi_step",
    "register_neuron",
    "register_surrogate",
    "reset",
    "step",
    "steps",
]
