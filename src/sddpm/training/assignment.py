"""Assign the noise of a batch to its images, near ones to near ones ("Immiscible Diffusion", Li et al., 2024, arXiv
2406.12303).

With random pairing, any noise can meet any image. With the assignment, each image is paired with noise from its own
region, so the network's target is less ambiguous. Each batch keeps its noise samples; only their order changes.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from sddpm.data import to_model
from sddpm.errors import UserError


def assignment_solver() -> Callable[..., Any]:
    """scipy's `linear_sum_assignment`. Raises `UserError` if scipy is not installed."""
    try:
        from scipy.optimize import linear_sum_assignment
    except ImportError as error:
        raise UserError(
            "train.assign_noise needs scipy: `pip install scipy`, or set train.assign_noise=false"
        ) from error
    return linear_sum_assignment


def assign_noise(images: Tensor, noise: Tensor) -> Tensor:
    """`noise` [B, ...] in the order with the smallest sum of squared distances to `images` (scaled as the model
    receives them).

    The norms of both do not depend on the order, so this maximises the sum of products. Raises `UserError` as
    `assignment_solver` does.
    """
    products = to_model(images, torch.float64).flatten(1) @ noise.double().flatten(1).T
    _, order = assignment_solver()(products.numpy(), maximize=True)
    return noise[torch.from_numpy(order)]
