"""Figures of moments and of learned scales show the numbers they are given."""

import pytest

from sddpm.errors import UserError
from sddpm.figures.conversion import conversion_figure
from sddpm.figures.modulation import modulation_figure
from sddpm.figures.moments import moments_figure


def test_scales_by_layer_and_time_step():
    figure = modulation_figure({"first": [1.0, 0.5], "second": [1.25, 1.0], "third": [1.0, 1.0]})
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["first", "second", "third"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "2"]
    assert [text.get_text() for text in axes.texts] == ["1.000", "0.500", "1.250", "1.000", "1.000", "1.000"]
    (image,) = axes.images
    assert image.get_clim() == (0.5, 1.5)  # 1 lies in the middle of the colours
    with pytest.raises(UserError, match="no temporal modulation"):
        modulation_figure({})


def test_moments_with_their_band():
    figure = moments_figure([0.5, 0.75], [0.01, 0.02], [9, 4], {"optimal": [0.2, 0.1], "large": [0.3, 0.2]})
    left, right = figure.axes
    assert left.lines[0].get_ydata().tolist() == [0.5, 0.25]
    low, high = left.collections[0].get_paths()[0].get_extents().intervaly
    assert (low, high) == pytest.approx((0.25 - 0.04, 0.5 + 0.02))
    assert {line.get_label(): list(line.get_ydata()) for line in right.lines} == {
        "optimal": [0.2, 0.1],
        "large": [0.3, 0.2],
    }
    assert list(right.lines[0].get_xdata()) == [9, 4]
    assert "2 steps" in right.get_ylabel()


def test_errors_of_a_conversion_by_layer():
    (axes,) = conversion_figure(["first", "last"], {"converted": [0.0, 0.5], "fine-tuned": [0.1, 0.3]}).axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["first", "last"]
    assert {line.get_label(): list(line.get_ydata()) for line in axes.lines} == {
        "converted": [0.0, 0.5],
        "fine-tuned": [0.1, 0.3],
    }
