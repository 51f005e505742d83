"""The error of a converted network relative to its ANN, layer by layer."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sddpm.conversion.ann import quantized_layers
from sddpm.errors import UserError
from sddpm.models import SpikingUNet2DModel


@dataclass(frozen=True)
class LayerError:
    """name: of the layer of neurons.
    relative_error: |threshold x mean of the spikes over T - activation| / |activation|, Euclidean norms over all.
    differing: share of neurons whose number of spikes is not that of the activation: T x activation / threshold,
        rounded.
    firing_rate: spikes of either sign per neuron and time step.
    """

    name: str
    relative_error: float
    differing: float
    firing_rate: float


@dataclass(frozen=True)
class ConversionErrors:
    """layers: in the order of the network. prediction: relative error of the prediction. images: number of images
    measured."""

    layers: tuple[LayerError, ...]
    prediction: float
    images: int

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@torch.no_grad()
def conversion_errors(
    ann: SpikingUNet2DModel, spiking: SpikingUNet2DModel, batches: Iterable[tuple[Tensor, ...]]
) -> ConversionErrors:
    """Both networks receive the same input; each layer of the spiking one receives the spikes of its own earlier
    layers.

    Args:
        ann: a network with quantised activations, in evaluation mode.
        spiking: the result of `convert_ann`, possibly fine-tuned.
        batches: x_t [B, C, H, W], t [B] and, for a model with classes, labels [B].

    Raises:
        UserError: no batches.
    """
    layers, thresholds = quantized_layers(ann), {name: n.v_threshold for name, n in spiking.neurons().items()}
    sums = {name: torch.zeros(5, dtype=torch.float64) for name in layers}
    prediction, images = torch.zeros(2, dtype=torch.float64), 0
    with outputs(ann, layers) as activations, outputs(spiking, layers) as fired:
        for batch in batches:
            wanted, got = ann(*batch).sample, spiking(*batch).sample
            prediction += torch.stack([(got - wanted).square().sum(), wanted.square().sum()]).cpu().double()
            images += len(wanted)
            for name, layer in layers.items():
                activation, spikes, s = activations[name][0], fired[name], thresholds[name]
                mean = spikes.mean(0) * s
                differing = spikes.sum(0).round() != (activation * (len(spikes) / layer.step)).round()
                sums[name] += torch.stack(
                    [
                        (mean - activation).square().sum(),
                        activation.square().sum(),
                        differing.sum(),
                        (spikes != 0).sum() / len(spikes),
                        torch.tensor(differing.numel(), device=mean.device),
                    ]
                ).cpu().double()  # fmt: skip
    if not images:
        raise UserError("there are no images: at least one batch is needed to measure the error of the conversion")
    found = tuple(
        LayerError(name, _relative(s[0], s[1]), float(s[2] / s[4]), float(s[3] / s[4])) for name, s in sums.items()
    )
    return ConversionErrors(found, _relative(prediction[0], prediction[1]), images)


def _relative(error: Tensor, of: Tensor) -> float:
    return float((error / of.clamp(min=1e-30)).sqrt())


@contextmanager
def outputs(model: nn.Module, names: Iterable[str]) -> Iterator[dict[str, Tensor]]:
    """The latest outputs of the named layers, inside the block."""
    last: dict[str, Tensor] = {}

    def keep(name: str):
        def hook(_layer: nn.Module, _inputs: Any, out: Tensor) -> None:
            last[name] = out

        return hook

    with ExitStack() as stack:
        for name in names:
            stack.callback(model.get_submodule(name).register_forward_hook(keep(name)).remove)
        yield last
