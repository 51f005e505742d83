"""Firing thresholds by layer name: one number for all neurons, or patterns such as {"up*": 0.998}."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatchcase

from torch import nn

from sddpm.errors import UserError
from sddpm.neurons import SpikingNeuron

Thresholds = float | Mapping[str, float]


def spiking_neurons(model: nn.Module) -> dict[str, SpikingNeuron]:
    """All spiking neuron layers of a model by their module name, in the order of the network."""
    return {name: module for name, module in model.named_modules() if isinstance(module, SpikingNeuron)}


def match_layers(names: list[str], patterns: Mapping[str, float]) -> dict[str, float]:
    """{layer: number} from {layer name pattern: number}; later patterns win over earlier ones.

    Raises:
        UserError: a pattern that no layer matches.
    """
    resolved = {}
    for pattern, value in patterns.items():
        matches = [name for name in names if fnmatchcase(name, pattern)]
        if not matches:
            raise UserError(f"no neuron layer matches {pattern!r}; layers are named like {names[0]!r} or {names[-1]!r}")
        resolved.update(dict.fromkeys(matches, float(value)))
    return resolved


def resolve_thresholds(names: list[str], thresholds: Thresholds) -> dict[str, float]:
    """The layers that `thresholds` speaks of, and their value; later patterns win over earlier ones.

    Raises:
        UserError: a threshold that is not positive and finite, a pattern that no layer matches, or no layers.
    """
    if not names:
        raise UserError("v_threshold was given, but this model has no spiking neurons")
    patterns = thresholds if isinstance(thresholds, Mapping) else {"*": thresholds}
    for pattern, value in patterns.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
            raise UserError(f"v_threshold must be a positive number, got {value!r} for layers {pattern!r}")
    return match_layers(names, patterns)


def apply_thresholds(model: nn.Module, thresholds: Thresholds) -> None:
    """Set the firing thresholds of the layers that `thresholds` speaks of; leave the others. Raises `UserError`."""
    neurons = spiking_neurons(model)
    for name, value in resolve_thresholds(list(neurons), thresholds).items():
        neurons[name].v_threshold = value


@contextmanager
def at_threshold(model: nn.Module, thresholds: Thresholds | None) -> Iterator[None]:
    """Other firing thresholds inside a `with` block (threshold guidance, SDDPM section 4.3); None changes nothing."""
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
