"""Threshold curves: everything is drawn where it belongs."""

import numpy as np
import pytest

from sddpm.errors import UserError
from sddpm.figures.thresholds import Curve, threshold_curves, threshold_trials

THRESHOLDS = [0.9, 0.99, 0.999, 1.0, 1.001, 1.1]
VALUES = [12.0, 9.0, 9.8, 10.0, 10.1, 15.0]
INTERVALS = [(1.0, 3.0), (-1.5, -0.5), (-0.4, 0.1), (0.0, 0.0), (-0.1, 0.3), (4.0, 6.0)]
FAD, LOSS = Curve("fad", VALUES, INTERVALS), Curve("loss", [v / 100 for v in VALUES], [(0, 0)] * 6)


def test_bars_are_drawn_from_the_trained_value():
    figure = threshold_curves(THRESHOLDS, [FAD, LOSS], trained=3, chosen=1)
    axes = figure.axes[0]
    bars = [segment[:, 1] for segment in axes.collections[0].get_segments()]
    np.testing.assert_allclose(bars[1], [8.5, 9.5])
    np.testing.assert_allclose(bars[0], [11, 13])
    assert axes.lines[0].get_ydata()[0] == 10
    assert (axes.lines[2].get_xdata()[0], axes.lines[2].get_ydata()[0]) == (0.99, 9.0)
    assert [panel.get_ylabel() for panel in figure.axes] == ["fad", "loss"]


def test_close_thresholds_are_drawn_apart(tmp_path):
    """Steps of 0.001 and 0.099, which a linear scale would draw 100 times as wide."""
    figure = threshold_curves(THRESHOLDS, [FAD], trained=3, chosen=1, title="model")
    figure.savefig(tmp_path / "curve.png")
    place = [figure.axes[0].transData.transform((x, 10.0))[0] for x in THRESHOLDS]
    assert np.all(np.diff(place) > 0) and np.diff(place).max() < 6 * np.diff(place).min()


def test_several_thresholds_at_once():
    names = [f"encoder {x}, decoder 1" for x in THRESHOLDS]
    axes = threshold_trials(names, [FAD, LOSS], trained=3, chosen=1).axes[0]
    best = next(line for line in axes.lines if line.get_label() == "best so far")
    np.testing.assert_array_equal(best.get_ydata(), [12, 9, 9, 9, 9, 9])


def test_what_cannot_be_drawn():
    with pytest.raises(UserError, match="at least one"):
        threshold_curves([], [FAD], trained=0, chosen=0)
    with pytest.raises(UserError, match="fad: 6 values for 1 thresholds"):
        threshold_curves([1.0], [FAD], trained=0, chosen=0)
