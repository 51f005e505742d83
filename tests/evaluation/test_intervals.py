"""95 % intervals on data whose truth is known: they hold it about as often as they say."""

import pytest

from benchmarks.interval_coverage import CASES, coverage


@pytest.mark.parametrize("name", CASES)
def test_intervals_hold_the_truth_as_often_as_they_say(name):
    held, errors, apart = coverage(CASES[name](150), draws=80)
    assert held > 0.88  # 95 % give or take three standard deviations of 80 draws
    assert 0.75 < errors < 2  # the jackknife errs towards too much (Efron and Stein 1981)
    assert abs(apart) < 4  # the values themselves are right on average
