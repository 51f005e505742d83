"""Noise assigned to the images of a batch: near ones meet ("Immiscible Diffusion", Li et al., 2024, arXiv 2406.12303).

Noise that is drawn for any image lies between all of them; assigned, each image keeps to a part of it, which makes what
the network has to predict less ambiguous. Every batch has the noise that it would have had, in another order.
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
        raise UserError("train.assign_noise takes scipy: `pip install scipy`, or leave it out") from error
    return linear_sum_assignment


def assign_noise(images: Tensor, noise: Tensor) -> Tensor:
    """`noise` [B, ...] in the order whose sum of squared distances to `images` (as the model sees them) is least.

    The norms of both do not depend on the order: the sum of products is what is maximised. Raises `UserError` as
    `assignment_solver`.
    """
    products = to_model(images, torch.float64).flatten(1) @ noise.double().flatten(1).T
    _, order = assignment_solver()(products.numpy(), maximize=True)
    return noise[torch.from_numpy(order)]
