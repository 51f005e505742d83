"""Learning rates by hand; the fused optimiser against Adam's formulas."""

import math

import pytest
import torch
from torch import nn

from sddpm.training.config import TrainConfig
from sddpm.training.optim import learning_rate, make_optimizer, set_learning_rate


@pytest.mark.parametrize("schedule", ["constant", "cosine", "linear"])
def test_warm_up_rises_linearly_to_the_rate(schedule):
    config = TrainConfig(lr=0.4, warmup_steps=4, steps=12, lr_schedule=schedule)
    assert [learning_rate(step, config) for step in range(5)] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4])


def test_after_the_warm_up():
    def rates(schedule: str) -> list[float]:
        config = TrainConfig(lr=2.0, warmup_steps=4, steps=12, lr_schedule=schedule)  # type: ignore[arg-type]
        return [learning_rate(step, config) for step in (4, 6, 8, 12)]

    assert rates("constant") == [2.0] * 4
    assert rates("linear") == pytest.approx([2.0, 1.5, 1.0, 0.0])
    assert rates("cosine") == pytest.approx([2.0, 1 + math.cos(math.pi / 4), 1.0, 0.0])


def test_no_warm_up_and_a_warm_up_longer_than_the_run():
    assert learning_rate(0, TrainConfig(lr=1.0, warmup_steps=0)) == 1.0
    assert learning_rate(9, TrainConfig(lr=1.0, warmup_steps=100, steps=10, lr_schedule="cosine")) == 0.1


@pytest.mark.parametrize("kind", ["adam", "adamw"])
def test_two_steps_follow_the_published_update(kind):
    """Kingma & Ba (2015), algorithm 1; decay added to the gradient for adam, to the weight for adamw."""
    config = TrainConfig(optimizer=kind, lr=0.1, betas=(0.8, 0.9), weight_decay=0.5)
    parameter = nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))
    optimizer = make_optimizer([parameter], config, torch.device("cpu"))
    x, m, v = [1.0, -2.0], [0.0, 0.0], [0.0, 0.0]
    for step, (gradient, lr) in enumerate([([0.3, 4.0], 0.1), ([-1.0, 0.5], 0.02)], start=1):
        parameter.grad = torch.tensor(gradient, dtype=torch.float64)
        set_learning_rate(optimizer, lr)
        optimizer.step()
        for i in range(2):
            g = gradient[i] + (0.5 * x[i] if kind == "adam" else 0.0)
            x[i] -= lr * 0.5 * x[i] if kind == "adamw" else 0.0
            m[i] = 0.8 * m[i] + 0.2 * g
            v[i] = 0.9 * v[i] + 0.1 * g * g
            x[i] -= lr * m[i] / (1 - 0.8**step) / (math.sqrt(v[i] / (1 - 0.9**step)) + 1e-8)
    assert parameter.tolist() == pytest.approx(x, rel=1e-12)
