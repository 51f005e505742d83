"""Firing thresholds by layer name: one for all neurons, or patterns such as {"up*": 0.998}.

A threshold is a number, or a multiple of the layer's present threshold, written "0.998x". With multiples, models whose
layers have different thresholds (such as converted ones) keep their proportions.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from fnmatch import fnmatchcase
from typing import TypeVar

from torch import nn

from sddpm.errors import UserError
from sddpm.neurons import SpikingNeuron

Threshold = float | str
Thresholds = Threshold | Mapping[str, Threshold]
V = TypeVar("V")


def spiking_neurons(model: nn.Module) -> dict[str, SpikingNeuron]:
    """All spiking neuron layers of a model by their module name, in the order of the network."""
    return {name: module for name, module in model.named_modules() if isinstance(module, SpikingNeuron)}


def match_layers(names: Iterable[str], patterns: Mapping[str, V]) -> dict[str, V]:
    """{layer: value} from {layer name pattern: value}; later patterns win over earlier ones.

    Raises:
        UserError: a pattern that no layer matches.
    """
    names, resolved = list(names), dict[str, V]()
    for pattern, value in patterns.items():
        matches = [name for name in names if fnmatchcase(name, pattern)]
        if not matches:
            raise UserError(f"no neuron layer matches {pattern!r}; layers are named like {names[0]!r} or {names[-1]!r}")
        resolved.update(dict.fromkeys(matches, value))
    return resolved


def parse_threshold(threshold: Threshold) -> tuple[float, bool]:
    """A threshold's number, and whether it is a multiple ("0.998x").

    Raises:
        UserError: not a positive finite number, nor such a number followed by "x".
    """
    value, is_multiple = threshold, False
    if isinstance(threshold, str) and threshold.endswith("x"):
        is_multiple = True
        with suppress(ValueError):  # the check below raises
            value = float(threshold[:-1])
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise UserError(f'v_threshold must be a positive number or a multiple such as "0.998x", not {threshold!r}')
    return float(value), is_multiple


def resolve_thresholds(present: Mapping[str, float], thresholds: Thresholds) -> dict[str, float]:
    """The layers that `thresholds` names, and their new thresholds; later patterns win over earlier ones.

    Args:
        present: {layer name: its current threshold}, for all layers.

    Raises:
        UserError: a threshold that is not positive and finite, a pattern that no layer matches, or a model without
            spiking layers.
    """
    if not present:
        raise UserError("v_threshold was given, but this model has no spiking neurons")
    patterns = thresholds if isinstance(thresholds, Mapping) else {"*": thresholds}
    parsed = {pattern: parse_threshold(threshold) for pattern, threshold in patterns.items()}
    return {
        name: present[name] * number if is_multiple else number
        for name, (number, is_multiple) in match_layers(present, parsed).items()
    }


def apply_thresholds(model: nn.Module, thresholds: Thresholds) -> None:
    """Set the firing thresholds of the layers that `thresholds` names; do not change the others. Raises `UserError`."""
    neurons = spiking_neurons(model)
    present = {name: neuron.v_threshold for name, neuron in neurons.items()}
    for name, value in resolve_thresholds(present, thresholds).items():
        neurons[name].v_threshold = value


@contextmanager
def at_threshold(model: nn.Module, thresholds: Thresholds | None) -> Iterator[None]:
    """Use other firing thresholds inside a `with` block (threshold guidance, SDDPM section 4.3); None changes
    nothing."""
    if thresholds is None:
        yield
        return
    before = {name: neuron.v_threshold for name, neuron in spiking_neurons(model).items()}
    apply_thresholds(model, thresholds)
    try:
        yield
    finally:
        for name, neuron in spiking_neurons(model).items():
            neuron.v_threshold = before[name]
