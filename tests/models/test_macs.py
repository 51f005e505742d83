"""Dense MACs against PyTorch's own counter and against the published size."""

import torch
from torch.utils.flop_counter import FlopCounterMode

from sddpm import SpikingUNet2DModel
from sddpm.models.macs import layer_macs


def test_published_network():
    """6.484 GMAC per SNN time step at 32 x 32, in 92 convolutions and linear layers."""
    with torch.device("meta"):
        macs = layer_macs(SpikingUNet2DModel())
    assert round(sum(macs.values()) / 1e9, 3) == 6.484
    assert len(macs) == 92


def test_against_flop_counter():
    """At T = 1 every layer runs once: PyTorch counts two FLOPs a MAC."""
    model = SpikingUNet2DModel(sample_size=16, base_channels=8, channel_mult=(1, 2), T=1, patch_size=2).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, 3, 16, 16), 0)
    assert 2 * sum(layer_macs(model).values()) == counter.get_total_flops()


def test_where_neurons_must_be_fused(monkeypatch):
    model = SpikingUNet2DModel(sample_size=8, base_channels=8, channel_mult=(1,), T=1)
    expected = layer_macs(model)
    monkeypatch.setenv("SDDPM_NEURON_KERNEL", "fused")
    assert layer_macs(model) == expected
