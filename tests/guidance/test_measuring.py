"""Two points compared on the same seeds: over all seed sets together, and each by itself."""

from types import SimpleNamespace

import pytest
import torch

from sddpm.guidance.measuring import compare

SPREAD = torch.linspace(-1, 1, 41, dtype=torch.float64)
TRIALS = SimpleNamespace(  # a distance of point x sum of first seeds, which varies as much as it is large
    space=SimpleNamespace(origin=(1.0,)),
    value=lambda point, seeds: point[0] * sum(seeds),
    resampled=lambda point, seeds: point[0] * sum(seeds) * (1 + SPREAD),
)


@pytest.mark.parametrize(("against", "factor"), [(None, 2.0), ((1.5,), 1.5)])
def test_each_seed_set_has_its_own_value_and_difference(against, factor):
    found = compare(TRIALS, (3.0,), [10, 100], against)  # type: ignore[arg-type]
    assert (found.point, found.value, found.values) == ((3.0,), 330, [30, 300])
    for difference, seeds in zip((found.difference, *found.differences), (110, 10, 100), strict=True):
        assert difference.value == factor * seeds
        assert difference.standard_error == pytest.approx(factor * seeds * float(SPREAD.std()))
