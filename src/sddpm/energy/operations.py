"""Counts operations with forward hooks, for every layer in one evaluation of the network, from its data."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from sddpm.energy.counts import LayerCount, NeuronCount, SynapticCount, in_sequence
from sddpm.energy.fanout import product_operations, synapses, synaptic_operations
from sddpm.errors import UserError
from sddpm.models.attention import SpikeProduct
from sddpm.models.config import sample_shape
from sddpm.models.input_skip import InputSkip
from sddpm.neurons import NEURONS, SpikingNeuron


class OperationCounter:
    """Collects the counts of a model's layers until `take`."""

    def __init__(self) -> None:
        self._parts: dict[str, list[Any]] = {}

    def take(self) -> list[LayerCount]:
        """The counts since the last call, of one evaluation, in the order in which the layers ran."""
        taken, self._parts = self._parts, {}
        return [in_sequence(parts) for parts in taken.values()]

    def synaptic(self, name: str, layer: nn.Conv2d | nn.Linear, x: Tensor, out: Tensor) -> None:
        """Count the inputs and outputs of a convolution or linear layer."""
        if not (isinstance(layer, nn.Conv2d) and x.ndim == 5):  # no time axis: it runs once for all T
            if name in self._parts:
                return
            x, out = x.unsqueeze(0), out.unsqueeze(0)
        active, binary = look(x)
        weight: Tensor = layer.weight
        positions = 1 if isinstance(layer, nn.Conv2d) else out[0, 0].numel() // layer.out_features
        connections = synapses(layer, x.shape) * positions
        none = (0,) * len(x)
        self._add(
            SynapticCount(
                name=name,
                kind="conv" if isinstance(layer, nn.Conv2d) else "linear",
                shape=tuple(out.shape[2:]),
                parameters=sum(p.numel() for p in layer.parameters()),
                macs=weight[0].numel() * out[0, 0].numel(),
                synapses=connections,
                inputs=x[0, 0].numel(),
                images=(x.shape[1],) * len(x),
                active=active,
                sops=tuple(synaptic_operations(x, layer)) if binary else none,
                multiplications=none if binary else (connections * x.shape[1],) * len(x),
                binary=binary,
            )
        )

    def product(self, name: str, layer: SpikeProduct, inputs: tuple[Tensor, ...], out: Tensor) -> None:
        """Count the input spikes of an attention product: queries, keys and values."""
        found = [look(x) for x in inputs]
        binary = all(each for _, each in found)
        macs = layer.macs(out.shape[2], out[0, 0, 0].numel())
        none = (0,) * len(out)
        self._add(
            SynapticCount(
                name=name,
                kind="product",
                shape=tuple(out.shape[2:]),
                parameters=0,
                macs=macs,
                synapses=macs,
                inputs=sum(x[0, 0].numel() for x in inputs),
                images=(out.shape[1],) * len(out),
                active=tuple(map(sum, zip(*(active for active, _ in found), strict=True))),
                sops=tuple(product_operations(layer, *inputs)) if binary else none,
                multiplications=none if binary else (macs * out.shape[1],) * len(out),
                binary=binary,
            )
        )

    def skip(self, name: str, x: Tensor) -> None:
        """Count the linear path from x_t to the prediction: each value times a gain, once for all T."""
        size = x[0].numel()
        self._add(
            SynapticCount(
                name=name,
                kind="other",
                shape=tuple(x.shape[1:]),
                parameters=0,  # those of its gains are in their own layer
                macs=size,
                synapses=size,
                inputs=size,
                images=(len(x),),
                active=look(x.unsqueeze(0))[0],
                sops=(0,),
                multiplications=(x.numel(),),
                binary=False,
            )
        )

    def neurons(self, name: str, layer: SpikingNeuron, spikes: Tensor) -> None:
        """Count the spikes of a layer of neurons."""
        active, binary = look(spikes)
        self._add(
            NeuronCount(
                name=name,
                shape=tuple(spikes.shape[2:]),
                parameters=sum(p.numel() for p in layer.parameters()),
                neurons=spikes[0, 0].numel(),
                images=(spikes.shape[1],) * len(spikes),
                fired=active,
                binary=binary,
                leaks=NEURONS[layer.dynamics.neuron].leaks,
            )
        )

    def _add(self, count: LayerCount) -> None:
        self._parts.setdefault(count.name, []).append(count)


def look(x: Tensor) -> tuple[tuple[int, ...], bool]:
    """Number of nonzero entries of [T, ...] for each time step, and whether all are 0, 1 or -1 (NaN is not).

    Needs the memory of one mask for one time step.
    """

    def count(of: Tensor) -> int:
        return int(torch.count_nonzero(of))

    def are_spikes(now: Tensor, active: int) -> bool:
        positive = count(now == 1)  # all of them, in most networks
        return positive == active or positive + count(now == -1) == active

    active = tuple(count(now != 0) for now in x)
    return active, all(map(are_spikes, x, active))


def check_measurable(model: nn.Module, x: Tensor) -> None:
    """Raise `UserError` for a sample for which the estimate would not be that of the trained network.

    These are NaN or infinity, another image size than in training, or another T than in training.
    """
    config: Any = model.config
    if not x.isfinite().all():
        raise UserError("the network's input is NaN or infinity: the energy needs finite inputs")
    expected = sample_shape(config)[1:]
    if (size := tuple(x.shape[-len(expected) :])) != expected:
        trained, given = (" x ".join(map(str, each)) for each in (expected, size))
        raise UserError(f"the model was trained on images of {trained}, not {given}: use images of that size")
    encoder = getattr(model, "encoder", None)
    if encoder is not None and config["T"] != encoder.T:
        raise UserError(
            f"the model was trained with T = {config['T']}, not {encoder.T}: its readout is only valid for the trained "
            "T"
        )


@contextmanager
def counting(model: nn.Module) -> Iterator[OperationCounter]:
    """Count the operations of every evaluation of `model` inside the block. The hooks are removed afterwards.

    Raises:
        UserError: as in `check_measurable`, raised by the evaluation.
    """
    counter = OperationCounter()

    def check(_model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        check_measurable(model, args[0] if args else kwargs["sample"])

    def synaptic(name: str):
        return lambda layer, inputs, out: counter.synaptic(name, layer, inputs[0], out)

    def product(name: str):
        return lambda layer, inputs, out: counter.product(name, layer, inputs, out)

    def skip(name: str):
        return lambda _layer, inputs, _out: counter.skip(name, inputs[0])

    def neurons(name: str):
        return lambda layer, _inputs, out: counter.neurons(name, layer, out)

    with ExitStack() as stack:
        stack.callback(model.register_forward_pre_hook(check, with_kwargs=True).remove)
        for name, layer in model.named_modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                stack.callback(layer.register_forward_hook(synaptic(name)).remove)
            elif isinstance(layer, SpikeProduct):
                stack.callback(layer.register_forward_hook(product(name)).remove)
            elif isinstance(layer, InputSkip):
                stack.callback(layer.register_forward_hook(skip(name)).remove)
            elif isinstance(layer, SpikingNeuron):
                stack.callback(layer.register_forward_hook(neurons(name)).remove)
        yield counter
