"""Traces the denoising of one picture, and the activity of a layer's neurons at one evaluation."""

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
MOST_EVALUATIONS = 250  # x_t of each is kept in memory, and a slider has no more positions


@dataclass(frozen=True)
class Trace:
    """The denoising of one picture.

    settings: the visitor's settings. caption: description of the picture. layers: names of the spiking layers. total:
    number of evaluations. timesteps: t of the completed ones. x_t: input of the network, [1, C, H, W] each. x0: the
    implied clean image, uint8 [C, H, W] each. picture: uint8 [C, H, W], its current state. rates: firing rate of every
    layer, [layers] each. label: number of the class, None for a model without classes.
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
        """Mean firing rate over the layers at each evaluation."""
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
        """Indices of up to 48 neurons, evenly spread over the layer."""
        count = self.spikes[0].numel()
        return torch.linspace(0, count - 1, min(MOST_NEURONS, count)).long()

    @property
    def raster(self) -> Tensor:
        """Spikes of the chosen neurons, bool [neurons, T]."""
        return self.spikes.flatten(1)[:, self.chosen].T

    def busiest(self, channels: int) -> Tensor:
        """Indices of the channels that fire most, in order."""
        counts = self.spikes.flatten(2).sum((0, 2)) if self.spikes.ndim > 2 else self.spikes.sum(0)
        return counts.argsort(descending=True, stable=True)[:channels].sort().values


def trace(
    pipeline: SpikingDiffusionPipeline, settings: Settings, report: Callable[[Trace], None] = lambda _: None
) -> Trace:
    """Draw one picture and record its denoising; `report` receives the record after every evaluation.

    Raises:
        UserError: more than one seed, settings that are invalid for this model, or a model without spikes.
    """
    if pipeline.unet.config.get("synaptic_currents"):
        raise UserError("this model denoises synaptic currents, whose steps are not pictures: choose another model")
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
    """The activity of a layer at one evaluation of a trace; evaluates the network there again.

    Raises:
        UserError: an unknown layer, or a model that has changed.
    """
    neurons = spiking_neurons(pipeline.unet)
    if layer not in neurons or list(neurons) != trace.layers:
        raise UserError("this model has changed since the trace: trace the picture again")
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
