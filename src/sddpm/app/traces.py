"""One picture's way, and what the neurons of a layer do at one evaluation of it."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sddpm.app.drawing import captions_of, one_picture
from sddpm.app.settings import Settings
from sddpm.data import to_uint8
from sddpm.errors import UserError
from sddpm.models.thresholds import Thresholds, spiking_neurons
from sddpm.neurons import SpikingNeuron
from sddpm.neurons.functional import steps
from sddpm.pipelines import DenoisingStep, SpikingDiffusionPipeline
from sddpm.pipelines.class_guidance import ClassGuidance
from sddpm.pipelines.denoise import predict

MOST_NEURONS = 48
MOST_EVALUATIONS = 250  # x_t of each is kept, and a slider has no more places


@dataclass(frozen=True)
class Trace:
    """How one picture came about.

    settings: what was filled in. caption: what it is. layers: names of the spiking layers. total: evaluations in all.
    timesteps: t of those that are done. x_t: what the network was evaluated at, [1, C, H, W] each. x0: the clean image
    that it implied, uint8 [C, H, W] each. picture: uint8 [C, H, W], as far as it is. rates: firing rate of every layer,
    [layers] each. label: number of the class, None of a model without classes.
    """

    settings: Settings
    caption: str
    layers: list[str]
    total: int
    timesteps: list[int]
    x_t: list[Tensor]
    x0: list[Tensor]
    picture: Tensor
    rates: list[list[float]]
    label: int | None

    @property
    def mean_rates(self) -> list[float]:
        """Mean over the layers at each evaluation."""
        return [sum(rates) / len(rates) for rates in self.rates]


@dataclass(frozen=True)
class LayerView:
    """One layer at one evaluation.

    spikes: bool [T, C, ...]. membranes: h[n] / v_threshold before firing, [T, C, ...]; the neuron fires at 1 or more.
    """

    spikes: Tensor
    membranes: Tensor

    @property
    def chosen(self) -> Tensor:
        """Numbers of up to 48 neurons, evenly spread over the layer."""
        count = self.spikes[0].numel()
        return torch.linspace(0, count - 1, min(MOST_NEURONS, count)).long()

    @property
    def raster(self) -> Tensor:
        """bool [neurons, T] of the chosen ones."""
        return self.spikes.flatten(1)[:, self.chosen].T

    def busiest(self, channels: int) -> Tensor:
        """Numbers of the channels that fire most, in order."""
        counts = self.spikes.flatten(2).sum((0, 2)) if self.spikes.ndim > 2 else self.spikes.sum(0)
        return counts.argsort(descending=True, stable=True)[:channels].sort().values


def trace(
    pipeline: SpikingDiffusionPipeline, settings: Settings, report: Callable[[Trace], None] = lambda _: None
) -> Trace:
    """Draw one picture and keep its way; `report` gets it after every evaluation.

    Raises:
        UserError: more than one seed, settings that are invalid for this model, or a model without spikes.
    """
    if pipeline.unet.config.get("synaptic_currents"):
        raise UserError("this model denoises synaptic currents, whose steps are no pictures: choose another")
    wanted, options = one_picture(pipeline, settings)
    neurons = spiking_neurons(pipeline.unet)
    if (total := pipeline.evaluations_of(options)) > MOST_EVALUATIONS:
        raise UserError(f"evaluations must be at most {MOST_EVALUATIONS} here, not {total}")
    label = None if wanted.labels is None else wanted.labels[0]
    caption, layers = captions_of(pipeline, wanted)[0], list(neurons)
    rates: dict[str, float] = {}
    done: list[tuple[DenoisingStep, list[float]]] = []

    def after(step: DenoisingStep) -> None:
        done.append((step, [rates[name] for name in layers]))
        report(made())

    def made() -> Trace:
        walked = [step for step, _ in done]
        return Trace(
            settings,
            caption,
            layers,
            total,
            [step.t for step in walked],
            [step.x_t for step in walked],
            [to_uint8(step.x0[0]) for step in walked],
            to_uint8(walked[-1].x_prev[0]),
            [each for _, each in done],
            label,
        )

    def count(name: str) -> Callable[..., None]:
        def hook(_: SpikingNeuron, __: object, spikes: Tensor) -> None:
            rates[name] = float(spikes[:, :1].abs().mean())

        return hook

    hooks = [neuron.register_forward_hook(count(name)) for name, neuron in neurons.items()]
    try:
        for _ in pipeline.stream(
            wanted.seeds, class_labels=wanted.labels, options=options, callback=after, progress=False
        ):
            pass
    finally:
        for hook in hooks:
            hook.remove()
    return made()


def look(pipeline: SpikingDiffusionPipeline, trace: Trace, index: int, layer: str) -> LayerView:
    """What a layer does at one evaluation of a trace: the network is evaluated there once more.

    Raises:
        UserError: a layer that the model does not have, or a model that has become another.
    """
    neurons = spiking_neurons(pipeline.unet)
    if layer not in neurons or list(neurons) != trace.layers:
        raise UserError("this model is not the one of the trace any more: trace the picture again")
    options = pipeline.resolve_options(replace(trace.settings.options, engine="eager"))
    index = max(0, min(index, len(trace.x_t) - 1))
    x_t, t, thresholds = trace.x_t[index], trace.timesteps[index], options.v_threshold
    chosen: Thresholds | None = thresholds(index, t) if callable(thresholds) else thresholds
    guidance = None
    if trace.label is not None:
        guidance = ClassGuidance(torch.tensor([trace.label]), pipeline.num_classes or 0, options.guidance_scale)
    seen: list[LayerView] = []

    def hook(neuron: SpikingNeuron, inputs: tuple[Tensor, ...], spikes: Tensor) -> None:
        walked = steps(inputs[0][:, 0], neuron.dynamics, v_threshold=neuron.v_threshold, **neuron.learned)
        membranes = torch.stack([h / neuron.v_threshold for _, _, h in walked])
        seen.append(LayerView(spikes[:, 0] != 0, membranes))

    handle = neurons[layer].register_forward_hook(hook)  # pyright: ignore[reportArgumentType]
    try:
        predict(pipeline.unet, x_t, t, chosen, guidance)
    finally:
        handle.remove()
    return seen[0]
