"""Figures of spikes and energy: what is drawn is what was given, and what cannot be drawn is said."""

import numpy as np
import pytest

from sddpm.errors import UserError
from sddpm.figures.energy import (
    ParetoPoint,
    energy_by_diffusion_step,
    energy_by_layer,
    pareto,
    pareto_front,
    relative_energy,
)
from sddpm.figures.spikes import channel_rates, membrane_histograms, raster, rate_by_diffusion_step, rate_map

NAMES = ["encoder.neuron", "down.0.neuron", "up.0.neuron"]
RATES = np.array([[0.5, 0.1], [0.2, 0.0], [0.3, 0.25]])


def texts(figure):
    figure.canvas.draw()
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def test_raster():
    spikes = np.zeros((5, 6), bool)
    spikes[1, 4] = True
    axes = raster(spikes, T=2, timesteps=[99, 50, 0], title="layer").axes[0]
    assert np.array_equal(axes.images[0].get_array().astype(bool), spikes)
    assert [label.get_text() for label in axes.get_xticklabels()] == ["99", "50", "0"]
    assert list(axes.get_xticks()) == [0.5, 2.5, 4.5]  # the middle of each diffusion step
    with pytest.raises(UserError, match="needs"):
        raster(spikes, T=2, timesteps=[99, 50])


def test_rate_map_writes_its_numbers():
    figure = rate_map(NAMES, RATES)
    assert texts(figure) == ["0.50", "0.10", "0.20", "0.00", "0.30", "0.25"]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == NAMES
    with pytest.raises(UserError, match="names"):
        rate_map(NAMES[:2], RATES)


def test_rates_over_diffusion_steps():
    figure = rate_by_diffusion_step([*NAMES[:2], "all"], [9, 0], RATES)
    above, below = figure.axes[:2]
    assert above.lines[0].get_ydata().tolist() == [0.3, 0.25] and above.get_ylim()[1] > 0.3
    assert np.array_equal(below.images[0].get_array(), RATES[:2])
    with pytest.raises(UserError, match="3 diffusion steps need as many rates, not 2"):
        rate_by_diffusion_step(NAMES, [9, 5, 0], RATES)


def test_membranes():
    edges = np.linspace(-1.5, 1.5, 4)
    figure = membrane_histograms(["a"], edges, np.array([[1.0, 2.0, 1.0]]))
    assert figure.axes[0].images[0].get_array().tolist() == [[0.5]]  # inner bins; the outer ones are numbers
    assert [text.strip() for text in texts(figure)][:2] == ["25%", "25%"]
    assert figure.axes[0].lines[0].get_xdata()[0] == 1.0  # the threshold


def test_channels_are_counted():
    figure = channel_rates(["a", "b"], [np.array([0.0, 0.0, 0.5]), np.array([1.0, 0.2, 0.3])])
    assert texts(figure) == ["2 dead", "1 always"]
    with pytest.raises(UserError):
        channel_rates(["a"], [])


def test_energy_bars_are_stacked():
    figure = energy_by_layer(["a", "b"], {"accumulates": [1, 2], "memory": [3, 0], "neurons": [0, 0]}, "nJ")
    bars = figure.axes[0].patches
    assert [bar.get_width() for bar in bars] == [1, 2, 3, 0] and [bar.get_x() for bar in bars] == [0, 0, 1, 2]
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert labels == ["accumulates", "memory"]
    with pytest.raises(UserError):
        energy_by_layer(["a"], {"memory": [1, 2]}, "nJ")
    steps = energy_by_diffusion_step([9, 0], {"accumulates": [1, 2]}, "nJ")
    assert [bar.get_height() for bar in steps.axes[0].patches] == [1, 2]
    with pytest.raises(UserError):
        energy_by_diffusion_step([], {}, "nJ")


def test_relative_energy():
    assert [text.strip() for text in texts(relative_energy(["a", "b"], [0.42, 1.36]))] == ["42%", "136%"]
    with pytest.raises(UserError):
        relative_energy(["a"], [])


def test_pareto_front_by_hand():
    points = [
        ParetoPoint("a", "x", 1.0, 9.0),
        ParetoPoint("b", "x", 2.0, 5.0),
        ParetoPoint("worse", "y", 2.5, 6.0),
        ParetoPoint("same energy", "y", 2.0, 7.0),
        ParetoPoint("c", "y", 3.0, 1.0, (0.5, 1.5)),
        ParetoPoint("last", "y", 4.0, 1.0),
    ]
    assert [point.name for point in pareto_front(points)] == ["a", "b", "c"]
    figure = pareto(points, "energy", "FAD")
    assert {"a", "b", "worse", "c"} <= set(texts(figure))
    with pytest.raises(UserError, match="at least one point"):
        pareto([], "energy", "FAD")
