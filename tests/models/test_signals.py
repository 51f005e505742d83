"""Signals of one dimension: the same network on [B, C, L], against Conv1d, and against images where they must agree."""

import logging

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sddpm.energy import counting
from sddpm.errors import UserError
from sddpm.inference.engine import Engines
from sddpm.models import SpikingUNet2DModel
from sddpm.models.layers import StepConv2d
from sddpm.models.macs import layer_macs
from sddpm.models.patches import from_patches, to_patches

SMALL = {"sample_size": 16, "in_channels": 2, "out_channels": 2, "base_channels": 8, "channel_mult": (1, 2)}


def make(**config):
    torch.manual_seed(0)
    model = SpikingUNet2DModel(**{**SMALL, "num_res_blocks": 1, "T": 2, "dims": 1, **config})
    torch.nn.init.xavier_uniform_(model.readout.conv.weight)
    for name, parameter in model.named_parameters():
        if "norm" in name and name.endswith("bias"):
            torch.nn.init.constant_(parameter, 0.3)  # or an untrained network would hardly fire
    return model.double().eval()


class AsConv1d(nn.Module):
    """What a convolution of a signals' network computes, by PyTorch's Conv1d."""

    def __init__(self, conv: StepConv2d):
        super().__init__()
        assert conv.kernel_size[0] == 1 and conv.stride[0] == 1
        self.conv = nn.Conv1d(
            conv.in_channels, conv.out_channels, conv.kernel_size[1], conv.stride[1], conv.kernel_size[1] // 2
        )
        self.conv.load_state_dict({"weight": conv.weight[:, :, 0], "bias": conv.bias})
        self.kernel_size = (1, conv.kernel_size[1])

    def forward(self, x):
        return self.conv(x.flatten(0, 1)[:, :, 0]).unsqueeze(2).unflatten(0, x.shape[:2])


@torch.no_grad()
def test_convolutions_are_those_of_signals():
    model = make(pure=False)
    x, t = torch.randn(3, 2, 16, dtype=torch.float64), torch.tensor([0, 500, 999])
    expected = model(x, t).sample
    assert expected.shape == x.shape and expected.abs().max() > 0.01
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, StepConv2d):
                setattr(parent, name, AsConv1d(child).double())
    torch.testing.assert_close(model(x, t).sample, expected)


@torch.no_grad()
def test_a_signals_network_is_an_images_network_that_sees_rows():
    """Images all of whose rows are the signal: 3x3 filters whose middle row is the signal's, wrapped by no padding."""
    signals, images = make(), make(dims=2)
    state = {
        name: F.pad(value, (0, 0, 1, 1)) if value.ndim == 4 and value.shape[-1] == 3 else value
        for name, value in signals.state_dict().items()
    }
    images.load_state_dict(state)
    x = torch.randn(2, 2, 16, dtype=torch.float64)
    out = images(x[:, :, None].expand(-1, -1, 16, -1), 700).sample
    torch.testing.assert_close(out, signals(x, 700).sample[:, :, None].expand_as(out))


@pytest.mark.parametrize("patch", [1, 2, 4])
def test_patches_of_signals(patch):
    x = torch.arange(2 * 3 * 8.0).view(2, 3, 8)
    folded = to_patches(x, patch)
    assert folded.shape == (2, 3 * patch, 1, 8 // patch)
    for c in range(3):  # channel c p + i holds samples i, i + p, i + 2 p, ...
        for i in range(patch):
            assert torch.equal(folded[:, c * patch + i, 0], x[:, c, i::patch])
    assert torch.equal(from_patches(folded, patch, 1), x)


@pytest.mark.parametrize(
    "config",
    [{"patch_size": 2}, {"pure": True}, {"temporal_modulation": True}, {"attention_resolutions": (8,)},
     {"num_classes": 3}, {"neuron": "plif"}],
)  # fmt: skip
def test_variants_train(config):
    model = make(**config).float().train().to(memory_format=torch.channels_last)
    model.enable_gradient_checkpointing()
    x = torch.randn(4, 2, 16)
    model(x, torch.arange(4)).sample.square().sum().backward()
    without = {name for name, p in model.named_parameters() if p.grad is None}
    assert not without


@torch.no_grad()
def test_the_account_knows_synapses_along_one_axis():
    model = make().float()
    with counting(model) as counter:
        model(torch.randn(2, 2, 16), 5)
    layers = {layer.name: layer for layer in counter.take()}
    conv = layers["encoder.conv2"]
    assert conv.macs == layer_macs(model)["encoder.conv2"] == 16 * 8 * 8 * 3
    assert conv.synapses == (16 * 3 - 2) * 8 * 8  # two taps of each filter hang over the ends
    assert 0 < conv.ac < conv.synapses * 2 * 2


def test_what_is_refused(caplog):
    with pytest.raises(UserError, match=r"expected signals \[B, 2, L\], got \[1, 2, 16, 16\]"):
        make()(torch.zeros(1, 2, 16, 16), 0)
    with pytest.raises(UserError, match="the length must be a multiple of 2, got 15"):
        make()(torch.zeros(1, 2, 15), 0)
    with pytest.raises(UserError, match="dims must be 2 for images or 1 for signals, got 3"):
        make(dims=3)
    with caplog.at_level(logging.WARNING):
        assert Engines().resolve(make().float(), "auto") == "eager"
    assert "sampling without compiling the model: it is for signals of one dimension" in caplog.text
