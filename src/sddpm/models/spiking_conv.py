"""Neurons and the convolution that receives their spikes, with the batch norm before them if there is one.

The layers are plain modules; only the evaluation of a training step is fused. A fused step keeps only the convolution's
output before the norm for the backward pass: normalised currents, membranes and spikes are recomputed from it in one
pass over memory.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sddpm.layouts import channels_innermost, innermost
from sddpm.models.batch_norm import StepBatchNorm2d
from sddpm.models.fused_norm import BatchStatistics
from sddpm.models.kernels import norm as norm_kernels
from sddpm.models.kernels.fused_layers import normalize_and_fire
from sddpm.models.kernels.geometry import ConvGeometry
from sddpm.models.kernels.norm import NeuronCall
from sddpm.models.layers import ModulatedStepConv2d, StepConv2d, upsample_nearest
from sddpm.models.training_conv import TrainingConv, autocast_dtype
from sddpm.neurons import QuantizedReLU, SpikingNeuron
from sddpm.neurons.kernels import cpu, fused_allowed
from sddpm.neurons.modules import replaceable, watched


def spiking_conv(
    x: Tensor,
    neuron: SpikingNeuron | QuantizedReLU,
    conv: StepConv2d,
    *,
    norm: StepBatchNorm2d | None = None,
    shift: Tensor | None = None,
    upsample: tuple[int, int] = (1, 1),
) -> Tensor:
    """conv(neuron(norm(x) + shift)).

    Args:
        x: [T, B, C, H, W].
        neuron: `conv` receives its spikes (or quantised activations).
        conv: C -> C' channels.
        norm: None for no norm.
        shift: [B, C], added to the norm's result, the same at all time steps and pixels; None for 0.
        upsample: factor by which H and W of the spikes are enlarged before the convolution (nearest neighbour).

    Returns:
        [T, B, C', H', W'].
    """
    doubled = upsample == (2, 2)
    if (doubled or upsample == (1, 1)) and isinstance(neuron, SpikingNeuron) and _fusable(x, neuron, conv, norm):
        return _fused(x, neuron, conv, norm, shift, doubled)
    spikes = neuron(x) if norm is None else normalize_and_fire(norm, neuron, x, shift)
    return conv(spikes if upsample == (1, 1) else upsample_nearest(spikes, upsample))


def _fusable(x: Tensor, neuron: SpikingNeuron, conv: StepConv2d, norm: StepBatchNorm2d | None) -> bool:
    """Whether a gradient is needed, the kernels support these layers, and no hook observes the values between them."""
    if not (torch.is_grad_enabled() and fused_allowed() and channels_innermost(x)):
        return False
    if not replaceable(neuron) or type(conv) not in (StepConv2d, ModulatedStepConv2d) or watched(conv):
        return False
    if cpu.unsupported(x, neuron.dynamics, neuron.v_threshold, neuron.w) is not None:
        return False
    if norm is None:
        return True
    return type(norm) is StepBatchNorm2d and not watched(norm) and norm.training and norm.fusable(x)


def _fused(
    x: Tensor,
    neuron: SpikingNeuron,
    conv: StepConv2d,
    norm: StepBatchNorm2d | None,
    shift: Tensor | None,
    doubled: bool,
) -> Tensor:
    leak = None if neuron.w is None else neuron.w.sigmoid()
    statistics = gain = None
    if norm is not None:
        statistics, gain = norm.statistics(x), norm.weight
        shift = norm.bias if shift is None else norm.bias + shift.to(norm.bias.dtype)
    layer = _Layer(
        NeuronCall(neuron.dynamics, neuron.v_threshold, leak),
        statistics,
        TrainingConv(ConvGeometry.of(conv), autocast_dtype(x), doubled),
    )
    out: Any = _SpikingConv.apply(x, gain, shift, leak, conv.weight, conv.bias, layer)
    return out * conv.scales if isinstance(conv, ModulatedStepConv2d) else out


@dataclass(frozen=True)
class _Layer:
    """The non-tensor arguments of a fused layer."""

    neuron: NeuronCall
    statistics: BatchStatistics | None
    conv: TrainingConv


class _SpikingConv(torch.autograd.Function):
    """The tensors are x, the norm's weight [C], its bias plus the shift, [C] or [B, C], PLIF's leak, and the weight and
    bias of the convolution."""

    @staticmethod
    def forward(ctx, x, gain, shift, leak, weight, bias, layer: _Layer):
        ctx.save_for_backward(x, gain, shift, weight)
        ctx.layer = layer
        neuron, statistics = layer.neuron, layer.statistics
        if statistics is None:
            spikes = cpu.forward(x, leak, neuron.dynamics, neuron.v_threshold)
        else:
            scale = gain * statistics.rstd
            spikes = norm_kernels.fire(x, scale, shift - statistics.mean * scale, neuron)
        out = layer.conv.convolve(spikes.flatten(0, 1), weight, bias)
        return out.unflatten(0, x.shape[:2])

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):  # type: ignore[override]
        x, gain, shift, weight = ctx.saved_tensors
        layer: _Layer = ctx.layer
        neuron, statistics = layer.neuron, layer.statistics
        grad, spikes = grad.flatten(0, 1), torch.empty_like(x)
        grad_x = layer.conv.input_gradient(grad, weight, x.flatten(0, 1))
        grad_x = innermost(grad_x.unflatten(0, x.shape[:2]))
        if statistics is None:
            leak, dynamics = neuron.leak, neuron.dynamics
            grad_leak = cpu.backward(x, leak, dynamics, neuron.v_threshold, grad_x, grad_x=grad_x, spikes=spikes)
            grad_gain = grad_shift = None
        else:
            mean, scale = statistics.mean, gain * statistics.rstd
            sums, image_sums, grad_leak = norm_kernels.fire_backward(
                x, mean, scale, shift - mean * scale, neuron, grad=grad_x, spikes=spikes
            )
            norm_kernels.input_gradient(x, mean, scale, statistics.factors(sums), grad_x, grad_x)
            grad_gain = (sums[1] * statistics.rstd).to(gain)
            grad_shift = (image_sums if shift.dim() == 2 else sums[0]).to(shift)
        grad_weight, grad_bias = layer.conv.weight_gradient(grad, spikes.flatten(0, 1), weight)
        return grad_x, grad_gain, grad_shift, grad_leak, grad_weight, grad_bias, None
