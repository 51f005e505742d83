"""Means and covariances added up by several processes, to the same bits as by one."""

from dataclasses import replace
from itertools import pairwise

import numpy as np

from sddpm.evaluation.metrics.score import Features
from sddpm.evaluation.processes import Processes
from sddpm.evaluation.statistics import Moments

PARTS = 16


def sum_moments(features: Features, processes: Processes) -> Features:
    """The features with the moments of all their vectors, which the first process gets; the others get them back as
    they are.

    The vectors are always cut into the same parts, which are summed by turns and added in their order by the first
    process, so that not even rounding depends on how many processes there are.
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
