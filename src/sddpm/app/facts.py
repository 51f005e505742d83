"""The facts about a model that the page needs for its choices."""

from dataclasses import dataclass

from sddpm.diffusion.solver_registry import SOLVERS
from sddpm.diffusion.timesteps import is_distilled
from sddpm.models.thresholds import spiking_neurons
from sddpm.pipelines import SamplingOptions, SpikingDiffusionPipeline
from sddpm.pipelines.class_guidance import class_name

ANY, ALL, NONE = "random", "all", "none"


@dataclass(frozen=True)
class Facts:
    """A summary of a model.

    classes: (text, label) of each choice; empty without classes. samplers: names of the saved samplers. solvers: the
    possible solvers. solver, steps: those of a picture if nothing is chosen. distilled: whether no other number of
    steps is possible. layers: names of its spiking layers. T: SNN time steps, 1 for an ANN.
    """

    classes: list[tuple[str, str]]
    samplers: list[str]
    solvers: list[str]
    solver: str
    steps: int
    distilled: bool
    layers: list[str]
    T: int


def facts_of(pipeline: SpikingDiffusionPipeline) -> Facts:
    """The facts of a pipeline."""
    count, names = pipeline.num_classes, pipeline.class_names or []
    layers = list(spiking_neurons(pipeline.unet))
    classes: list[tuple[str, str]] = []
    if count is not None:
        called = [class_name(i, names) for i in range(count)]
        classes = [("any, drawn from the seed", ANY), ("all, one row each", ALL), ("none", NONE)]
        classes += [(name, name if str(i) in names else str(i)) for i, name in enumerate(called)]  # names win
    config = pipeline.scheduler.config
    default = pipeline.resolve_options(SamplingOptions())
    solvers = [name for name, solver in SOLVERS.items() if not solver.needs_moments or config.get("moments")]
    return Facts(
        classes=classes,
        samplers=list(pipeline.samplers),
        solvers=["ddim"] if is_distilled(config) else solvers,
        solver=default.solver or pipeline.solver,
        steps=default.num_inference_steps or pipeline.num_inference_steps,
        distilled=is_distilled(config),
        layers=layers,
        T=pipeline.unet.config["T"] if layers else 1,
    )
