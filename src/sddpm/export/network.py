"""A network as an ONNX model: x_t, t and class in, the prediction out, all T time steps of its neurons unrolled."""

import copy
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from sddpm.errors import UserError
from sddpm.export.graph import build
from sddpm.export.recording import Mark, record
from sddpm.models.config import sample_shape
from sddpm.models.thresholds import Thresholds, apply_thresholds, spiking_neurons
from sddpm.neurons.kernels import VARIABLE

INPUTS, PREDICTION, RATES = ("x_t", "t", "class"), "prediction", "firing_rates"


def network_graph(unet: nn.Module, thresholds: Thresholds | None = None, *, rates: bool = False) -> onnx.ModelProto:
    """The uncompiled network, operator by operator, as an ONNX model for batches of any size.

    Inputs x_t float32 [B, C, H, W] (for signals [B, C, L]; with synaptic currents [T, B, C, H, W]), t int64 [B] and, if
    the network has classes, class int64 [B]; output prediction, of the shape of x_t. Batch norm is not folded into its
    convolution. The currents and spikes of a layer of neurons are named LAYER.current and LAYER.spikes.

    Args:
        unet: the network; it is not changed.
        thresholds: firing thresholds for the export; None for the network's own.
        rates: add an output firing_rates [B, layers]: the mean of |spike| over time and pixels, for the layers of
            `spiking_neurons`.

    Raises:
        UserError: thresholds of layers that the network does not have, rates of a network without spikes, or an
            operator without a translation.
    """
    neurons = spiking_neurons(unet)
    if rates and not neurons:
        raise UserError("firing rates are for networks with spiking neurons; this one has none")
    unet = copy.deepcopy(unet).cpu().float().eval().requires_grad_(False)
    if thresholds is not None:
        apply_thresholds(unet, thresholds)
    config: Any = unet.config
    shape, steps = sample_shape(config), ((config["T"],) if config.get("synaptic_currents") else ())
    inputs = INPUTS if config.get("num_classes") is not None else INPUTS[:2]

    def example(batch: int) -> list[Tensor]:
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(*steps, batch, *shape, generator=generator)
        return [x, *(torch.zeros(batch, dtype=torch.int64) for _ in inputs[1:])]

    outputs = [PREDICTION, RATES] if rates else [PREDICTION]
    with _plain_neurons():
        recording = record(partial(_evaluate, unet, rates), example)
    names = {id(tensor): name for name, tensor in [*unet.named_parameters(), *unet.named_buffers()]}
    return build(recording, names, inputs, outputs)


def _evaluate(unet: nn.Module, rates: bool, inputs: Sequence[Tensor], mark: Mark) -> list[Tensor]:
    """The outputs of the network; the currents and spikes of every layer of neurons are marked."""
    firing: list[Tensor] = []

    def told(name: str, module: nn.Module, arguments: tuple[Tensor, ...], spikes: Tensor) -> None:
        mark(f"{name}.current", arguments[0])
        mark(f"{name}.spikes", spikes)
        if rates:
            firing.append(spikes.abs().mean([0, *range(2, spikes.ndim)]))

    hooks = [neuron.register_forward_hook(partial(told, name)) for name, neuron in spiking_neurons(unet).items()]
    try:
        prediction = unet(*inputs).sample
    finally:
        for hook in hooks:
            hook.remove()
    return [prediction, torch.stack(firing, 1)] if rates else [prediction]


@contextmanager
def _plain_neurons() -> Iterator[None]:
    """Compute neurons with PyTorch's operators inside the block, instead of with our kernels."""
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = "eager"
    try:
        yield
    finally:
        os.environ.pop(VARIABLE)
        if before is not None:
            os.environ[VARIABLE] = before
