"""The figures of a report: plain numbers for `sddpm.figures`, each with a one-sentence caption."""

from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from sddpm.energy.account import Account
from sddpm.energy.activity import MEMBRANE_EDGES, SATURATED
from sddpm.energy.cost import Energy, energy_of
from sddpm.energy.ledger import firing_rate
from sddpm.energy.parts import PARTS
from sddpm.figures import energy as energy_figures
from sddpm.figures import spikes as spike_figures

RASTERS = 3


@dataclass(frozen=True)
class Picture:
    """name: short, for file names; title and caption: for readers."""

    name: str
    title: str
    caption: str
    figure: Figure


def pictures(account: Account) -> list[Picture]:
    """All figures for which the account has data."""
    found = [_relative, _by_layer, _by_diffusion_step]
    if account.ledger.spiking:
        found += [_rate_map, _rate_by_diffusion_step]
    made = [picture for make in found if (picture := make(account)) is not None]
    if account.activity is not None and account.activity.layers:
        made += [_channels(account)]
        if next(iter(account.activity.layers.values())).raster:
            made += [_membranes(account), *_rasters(account)]
    return made


def _parts(energies: list[Energy], scale: float) -> dict[str, list[float]]:
    return {part.title: [e.parts[name] / scale for e in energies] for name, part in PARTS.items()}


def _colours() -> dict[str, str]:
    return {part.title: part.colour for part in PARTS.values()}


def _unit(energies: list[Energy]) -> tuple[str, float]:
    largest = max(e.total for e in energies)
    return next(
        ((unit, s) for unit, s in (("mJ", 1e9), ("\N{GREEK SMALL LETTER MU}J", 1e6)) if largest >= s), ("nJ", 1e3)
    )


def _relative(account: Account) -> Picture | None:
    savings = {cost.name: account.saving(cost) for cost in account.costs}
    shares = {name: 1 - saving for name, saving in savings.items() if saving is not None}
    if not shares:
        return None
    return Picture(
        "relative",
        "Compared with the ANN",
        "Energy of one evaluation of the spiking network (all its time steps) as a share of that of an ANN U-Net of "
        "the "
        "same widths, for each cost model. Bars beyond the line cost more than the ANN.",
        energy_figures.relative_energy(list(shares), list(shares.values())),
    )


def _by_layer(account: Account) -> Picture:
    runs, cost = account.ledger.network_runs, account.costs[0]
    layers = [layer for layer in account.ledger.layers if layer.kind != "neuron" or cost.update_pj]
    energies = [energy_of([layer], cost) / runs for layer in layers]
    unit, scale = _unit(energies)
    return Picture(
        "layers",
        "Energy by layer",
        f"One evaluation of one image, cost model {cost.name}. Layers whose input is real-valued multiply.",
        energy_figures.energy_by_layer([layer.name for layer in layers], _parts(energies, scale), unit, _colours()),
    )


def _by_diffusion_step(account: Account) -> Picture:
    cost, evaluations = account.costs[0], account.ledger.evaluations
    energies = [energy_of(e.layers, cost) / e.images for e in evaluations]
    unit, scale = _unit(energies)
    return Picture(
        "diffusion-steps",
        "Energy by diffusion step",
        f"Each evaluation from noise to image, for one image, cost model {cost.name}.",
        energy_figures.energy_by_diffusion_step([e.t for e in evaluations], _parts(energies, scale), unit, _colours()),
    )


def _rate_map(account: Account) -> Picture:
    neurons = [layer for layer in account.ledger.layers if layer.kind == "neuron"]
    rates = np.zeros((len(neurons), account.ledger.T))
    for row, layer in zip(rates, neurons, strict=True):
        row[: len(layer.rates)] = layer.rates
    return Picture(
        "rates",
        "Firing rate by layer and SNN time step",
        "Spikes per neuron and time step, over all images and diffusion steps.",
        spike_figures.rate_map([layer.name for layer in neurons], rates),
    )


def _rate_by_diffusion_step(account: Account) -> Picture:
    evaluations = account.ledger.evaluations
    columns = [
        [layer.rate for layer in e.layers if layer.kind == "neuron"] + [firing_rate(e.layers)] for e in evaluations
    ]
    names = [layer.name for layer in evaluations[0].layers if layer.kind == "neuron"] + ["all"]
    return Picture(
        "rates-diffusion",
        "Firing rate by diffusion step",
        "From noise (left) to image (right): mean of all neurons (top), and each layer (bottom).",
        spike_figures.rate_by_diffusion_step(names, [e.t for e in evaluations], np.array(columns).T),
    )


def _channels(account: Account) -> Picture:
    layers = account.activity.layers if account.activity else {}
    return Picture(
        "channels",
        "Channels",
        "A dot for each channel: its firing rate over all images, positions, time steps and diffusion steps. Grey "
        "channels "
        f"never fired; red ones fired at {SATURATED:.0%} of the time steps or more. Neither carries information.",
        spike_figures.channel_rates(list(layers), [layer.channel_rates.numpy() for layer in layers.values()]),
    )


def _membranes(account: Account) -> Picture:
    layers = account.activity.layers if account.activity else {}
    counts = np.stack([layer.membrane.numpy() for layer in layers.values()])
    return Picture(
        "membranes",
        "Membranes against the threshold",
        "The membrane potential right before firing, for the first image over all time and diffusion steps. Values "
        "to the right of the line fire.",
        spike_figures.membrane_histograms(list(layers), MEMBRANE_EDGES.numpy(), counts),
    )


def _rasters(account: Account) -> list[Picture]:
    """The first, a middle and the last layer."""
    layers = list(account.activity.layers.items()) if account.activity else []
    chosen = sorted({0, len(layers) // 2, len(layers) - 1})[:RASTERS]
    timesteps = [e.t for e in account.ledger.evaluations]
    found = []
    for i in chosen:
        name, layer = layers[i]
        spikes = layer.joined_raster().numpy()[:, : account.ledger.T * len(timesteps)]  # of the first batch
        found.append(
            Picture(
                f"raster-{name}",
                f"Spikes of {name}",
                f"{len(spikes)} of its neurons while the first image is sampled; every diffusion step has "
                f"{account.ledger.T} SNN time steps.",
                spike_figures.raster(spikes, account.ledger.T, timesteps),
            )
        )
    return found
