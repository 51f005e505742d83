"""What the page has to know of a model to offer what it can do."""

from dataclasses import dataclass

from sddpm.diffusion.solver_registry import SOLVERS
from sddpm.diffusion.timesteps import is_distilled
from sddpm.models.thresholds import spiking_neurons
from sddpm.pipelines import SpikingDiffusionPipeline

ANY, ALL, NONE = "random", "all", "none"


@dataclass(frozen=True)
class Facts:
    """A model in short.

    classes: (what to show, label) of each choice; empty without classes. samplers: names of those kept with it.
    solvers: those that it can be sampled with. own: its way of sampling in words. steps: its own number. distilled:
    whether it knows no other. layers: names of its spiking layers. T: SNN time steps, 1 of an ANN.
    """

    classes: list[tuple[str, str]]
    samplers: list[str]
    solvers: list[str]
    own: str
    steps: int
    distilled: bool
    layers: list[str]
    T: int


def facts_of(pipeline: SpikingDiffusionPipeline) -> Facts:
    """The facts of a pipeline."""
    count, names = pipeline.num_classes, pipeline.class_names
    layers = list(spiking_neurons(pipeline.unet))
    classes: list[tuple[str, str]] = []
    if count is not None:
        called = [names[i] if names and i < len(names) else f"class {i}" for i in range(count)]
        classes = [("any, drawn by the seed", ANY), ("all, a row each", ALL), ("none", NONE)]
        classes += [(name, str(i)) for i, name in enumerate(called)]
    config = pipeline.scheduler.config
    return Facts(
        classes=classes,
        samplers=list(pipeline.samplers),
        solvers=[name for name, solver in SOLVERS.items() if not solver.needs_moments or config.get("moments")],
        own=pipeline.solver,
        steps=pipeline.num_inference_steps,
        distilled=is_distilled(config),
        layers=layers,
        T=pipeline.unet.config["T"] if layers else 1,
    )
