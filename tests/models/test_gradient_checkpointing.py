"""Gradient checkpointing: the same bits, fewer bytes kept, level by level."""

import copy

import pytest
import torch
from torch import nn

from sddpm import SpikingUNet2DModel, UserError
from sddpm.neurons.kernels import VARIABLE


def build():
    torch.manual_seed(0)
    model = SpikingUNet2DModel(sample_size=16, base_channels=8, channel_mult=(1, 2, 2), num_res_blocks=1)
    nn.init.normal_(model.readout.conv.weight)
    return model.to(memory_format=torch.channels_last)


def train(model):
    """Output, gradients and buffers of one step, and the bytes it kept between forward and backward."""
    x = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1)).contiguous(
        memory_format=torch.channels_last
    )
    kept = {}
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.__setitem__(t.data_ptr(), t) or t, lambda t: t):
        out = model(x, torch.tensor([3, 800])).sample
    out.square().mean().backward()
    result = (
        {"out": out.detach()} | {name: p.grad for name, p in model.named_parameters()} | dict(model.named_buffers())
    )
    return result, sum(t.nbytes for t in kept.values())


@pytest.mark.parametrize("choice", ["auto", "eager"])
def test_same_bits_with_less_kept(choice, monkeypatch):
    monkeypatch.setenv(VARIABLE, choice)
    model = build()
    expected, everything = train(copy.deepcopy(model))
    kept = []
    for levels in ([2], [0], [0, 1], None):
        recomputing = copy.deepcopy(model)
        recomputing.enable_gradient_checkpointing(levels)
        assert recomputing.is_gradient_checkpointing
        result, size = train(recomputing)
        for name, value in expected.items():
            assert torch.equal(result[name], value), (levels, name)
        kept.append(size)
    assert everything > kept[0] > kept[1] > kept[2] > kept[3]
    recomputing.disable_gradient_checkpointing()
    assert not recomputing.is_gradient_checkpointing


def test_unknown_levels_are_refused():
    with pytest.raises(UserError, match="levels 0 to 2, got"):
        build().enable_gradient_checkpointing([3])
