"""Sums means and covariances over several processes, bit-identical to a single process."""

from dataclasses import replace
from itertools import pairwise

import numpy as np

from sddpm.evaluation.metrics.score import Features
from sddpm.evaluation.processes import Processes
from sddpm.evaluation.statistics import Moments

PARTS = 16


def sum_moments(features: Features, processes: Processes) -> Features:
    """The features with the moments of all their vectors in the first process; in the others the features are returned
    unchanged.

    The vectors are always cut into the same parts. The processes sum the parts in turn, and the first process adds them
    in order, so that not even rounding depends on the number of processes.
    """
    if features.rows is None:
        return features
    total: Moments | None = None
    bounds = np.linspace(0, len(features), min(PARTS, len(features)) + 1).astype(int)
    for i, (start, stop) in enumerate(pairwise(bounds)):
        owner = i % processes.count
        if processes.rank == owner:
            part = Moments.of_batches(features.chunks(np.arange(start, stop))).packed()
        elif processes.first:
            part = Moments.nothing(features.rows.shape[1]).packed()
        else:
            continue
        processes.to_first(part, owner)
        if processes.first:
            moments = Moments.unpacked(part)
            total = moments if total is None else total + moments
    return replace(features, summed=total)
