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
