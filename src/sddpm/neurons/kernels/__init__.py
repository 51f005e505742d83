"""Implementations of the multi-step neuron behind one function."""

from sddpm.neurons.functional import multi_step as multi_step
