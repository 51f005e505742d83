"""The figure holds the numbers it was given."""

import pytest

from sddpm.errors import UserError
from sddpm.figures.curves import loss_curve


def test_lines_and_axes():
    figure = loss_curve({"a": ([1, 10, 100], [1.0, 0.5, 0.1]), "b": ([5], [2.0])})
    (axes,) = figure.axes
    assert [line.get_xydata().tolist() for line in axes.lines] == [[[1, 1.0], [10, 0.5], [100, 0.1]], [[5, 2.0]]]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["a", "b"]
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert axes.get_xlabel() and axes.get_ylabel()


def test_what_is_no_curve_is_refused():
    with pytest.raises(UserError, match="at least one run"):
        loss_curve({})
    with pytest.raises(UserError, match="a: 2 steps, but 1 losses"):
        loss_curve({"a": ([1, 2], [0.5])})


@pytest.mark.parametrize(
    ("steps", "losses"),
    [
        ([50], [0.3]),
        ([50, 100], [0.31, 0.3]),
        ([1, 2, 3, 4], [1.0, 0.9, 0.8, 0.7]),
        ([200, 400], [2.1, 0.4]),
        ([3, 6, 12], [0.1000, 0.1001, 0.1002]),
        ([50, 5000], [0.9, 0.03]),
    ],
)
def test_every_axis_has_ticks_that_say_a_number(steps, losses):
    figure = loss_curve({"a": (steps, losses)})
    figure.draw_without_rendering()
    (axes,) = figure.axes
    for axis, (low, high) in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
        ticks = [*axis.get_major_ticks(), *axis.get_minor_ticks()]
        assert any(tick.label1.get_text() and low <= tick.get_loc() <= high for tick in ticks)
