"""The average of weights and batch-norm statistics, by its closed form."""

import pytest
import torch
from torch import nn

from sddpm.training.ema import ema_decay_at, make_ema, update_ema


def net() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))


def fill(model: nn.Module, value: float) -> None:
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.fill_(value)


def test_closed_form_for_parameters_and_buffers():
    """After values x_1..x_n from x_0: decay^n x_0 + (1 - decay) sum decay^(n - k) x_k."""
    model = net()
    fill(model, 2.0)
    ema, values, decay = make_ema(model), [5.0, -1.0, 3.0], 0.9
    for value in values:
        fill(model, value)
        update_ema(ema, model, decay)
    n = len(values)
    expected = decay**n * 2.0 + (1 - decay) * sum(decay ** (n - k) * x for k, x in enumerate(values, 1))
    for name, tensor in ema.state_dict().items():
        if name.endswith("num_batches_tracked"):
            assert tensor == 3  # whole numbers are copied
        else:
            assert tensor.dtype == torch.float32
            torch.testing.assert_close(tensor, torch.full_like(tensor, expected), rtol=1e-6, atol=0)
    assert "1.running_var" in ema.state_dict()


def test_decay_zero_is_the_model_itself():
    model = net()
    ema = make_ema(model)
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.normal_()
    update_ema(ema, model, 0.0)
    for a, b in zip(ema.state_dict().values(), model.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_it_is_a_copy_for_evaluation():
    model = net().train()
    ema = make_ema(model)
    assert not ema.training and model.training
    assert not any(p.requires_grad for p in ema.parameters())
    fill(model, 7.0)
    assert not any((tensor == 7).all() for tensor in ema.state_dict().values())


@pytest.mark.parametrize(("step", "expected"), [(0, 0.1), (8, 0.5), (90, 0.91), (10**7, 0.999)])
def test_warm_up_of_the_decay(step, expected):
    assert ema_decay_at(step, 0.999) == pytest.approx(expected)
    assert ema_decay_at(step, 0.0) == 0.0
