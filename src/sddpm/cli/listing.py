"""`sddpm list`: lists everything that has a name."""

from collections.abc import Callable
from typing import Annotated

import typer

from sddpm.choices import did_you_mean
from sddpm.cli.app import app
from sddpm.errors import UserError


def models() -> dict[str, str]:
    """The models that come with the package."""
    from sddpm.pretrained import pretrained_names, summary

    return {name: summary(name) for name in pretrained_names()}


def configs() -> dict[str, str]:
    """The configs that come with the project."""
    from sddpm.training.config_files import config_names, summary

    return {name: summary(name) for name in config_names()}


def data() -> dict[str, str]:
    """The data sets, including registered ones."""
    from sddpm.data.registry import DATASETS

    return {name: entry.help for name, entry in DATASETS.items()}


def solvers() -> dict[str, str]:
    """The sampling solvers."""
    from sddpm.diffusion.solver_registry import SOLVERS

    return {
        name: solver.description + ("; after sddpm moments" if solver.needs_moments else "")
        for name, solver in SOLVERS.items()
    }


def metrics() -> dict[str, str]:
    """The metrics of sddpm evaluate."""
    from sddpm.evaluation.metrics import METRICS

    return {name: metric.help for name, metric in METRICS.items()}


def neurons() -> dict[str, str]:
    """The kinds of spiking neurons."""
    from sddpm.neurons import NEURONS

    return {name: neuron.description for name, neuron in NEURONS.items()}


def surrogates() -> dict[str, str]:
    """The surrogate gradients of spikes."""
    from sddpm.neurons.surrogates import SURROGATES

    return {
        name: f"{each.description or 'a surrogate gradient'}; default alpha {each.default_alpha:g}"
        for name, each in SURROGATES.items()
    }


def densities() -> dict[str, str]:
    """The densities of noise levels, for the config key diffusion.density."""
    from sddpm.diffusion.density import DENSITIES

    return {name: density.description for name, density in DENSITIES.items()}


def cost_models() -> dict[str, str]:
    """The cost models of sddpm energy."""
    from sddpm.energy.cost import cost_model_names, load_cost_model

    return {name: load_cost_model(name).description for name in cost_model_names()}


LISTS: dict[str, Callable[[], dict[str, str]]] = {
    each.__name__.replace("_", "-"): each
    for each in (models, configs, data, solvers, metrics, neurons, surrogates, densities, cost_models)
}


@app.command("list")
def list_names(
    kind: Annotated[
        str, typer.Argument(metavar="KIND", help=f"{', '.join(LISTS)}.", autocompletion=lambda: list(LISTS))
    ],
) -> None:
    """List the names of models, configs, data sets and other parts, each with a description."""
    if kind not in LISTS:
        known = ", ".join(LISTS)
        raise UserError(f"unknown list {kind!r}: {did_you_mean(kind, LISTS, f'choose one of {known}')}")
    rows = LISTS[kind]()
    width = max(map(len, rows))
    for name, description in rows.items():
        typer.echo(f"{name:{width}}  {description}".rstrip())
