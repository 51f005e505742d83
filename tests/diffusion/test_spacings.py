"""Spacings of time steps, against what they are even in."""

import numpy as np
import pytest

from sddpm.diffusion.schedule import NoiseSchedule
from sddpm.diffusion.spacings import SPACINGS
from sddpm.diffusion.timesteps import check_timesteps
from sddpm.errors import UserError

A = NoiseSchedule().alphas_cumprod
SIGMA = ((1 - A) / A).sqrt().numpy()
MEASURES = {
    "trailing": np.arange(1, 1001),
    "quadratic": np.arange(1, 1001) ** 0.5,
    "log-snr": np.log(SIGMA),
    "angle": np.arctan(SIGMA),
}


@pytest.mark.parametrize("name", SPACINGS)
@pytest.mark.parametrize("n", [1, 2, 4, 10, 50, 999, 1000])
def test_they_fall_from_the_noisiest_step(name, n):
    found = SPACINGS[name](n, A)
    check_timesteps(found, 1000)
    assert len(found) == n and found[0] == 999
    with pytest.raises(UserError):
        SPACINGS[name](1001, A)


@pytest.mark.parametrize("name", SPACINGS)
def test_they_are_even_in_their_measure(name):
    measure, found = MEASURES[name], SPACINGS[name](10, A)
    end = measure[0] if name == "log-snr" else 0.0
    wanted = np.linspace(measure[-1], end, 11)[:10]
    half = np.abs(np.diff(measure)).max() if name != "log-snr" else 0.5  # the strides of log sigma are wide at t = 0
    assert np.abs(measure[found] - wanted).max() <= half


def test_the_linear_schedules_four_trailing_steps_are_not_even_in_the_angle():
    degrees = np.degrees(MEASURES["angle"])
    assert degrees[SPACINGS["trailing"](4, A)] == pytest.approx([89.6, 86.7, 73.7, 43.6], abs=0.1)
    assert degrees[SPACINGS["angle"](4, A)] == pytest.approx([89.6, 67.2, 44.8, 22.4], abs=0.2)
