"""The twin without spikes: the published size, diffusers' network inside, patches, attention where it belongs."""

import pytest
import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import Attention

from sddpm.errors import UserError
from sddpm.models import ANNUNet2DModel, SpikingUNet2DModel
from sddpm.models.macs import layer_macs

TINY = {"sample_size": 16, "in_channels": 1, "out_channels": 1, "base_channels": 8, "channel_mult": (1, 2)}


def test_published_size():
    """67,602,691 parameters with the table of 1000 x 128 for the time; 6.351 GMAC at 32 x 32."""
    with torch.device("meta"):
        model = ANNUNet2DModel()
        macs = sum(layer_macs(model).values())
    assert sum(p.numel() for p in model.parameters()) + 1000 * 128 == 67_602_691
    assert macs == pytest.approx(6.351e9, rel=3e-4)


def test_nearly_the_size_of_its_spiking_twin():
    with torch.device("meta"):
        sizes = [(sum(p.numel() for p in m.parameters()), sum(layer_macs(m).values()))
                 for m in (ANNUNet2DModel(), SpikingUNet2DModel())]  # fmt: skip
    assert [a / b for a, b in zip(*sizes, strict=True)] == pytest.approx([1, 1], rel=0.03)


@torch.no_grad()
def test_answers_with_the_network_of_diffusers():
    torch.manual_seed(0)
    model = ANNUNet2DModel(**TINY, patch_size=2).eval()
    for parameter in model.parameters():  # the last layers start near zero
        parameter.add_(0.1 * torch.randn_like(parameter))
    x, t = torch.randn(3, 1, 16, 16), torch.tensor([0, 5, 999])
    patches = torch.stack([x[:, 0, i::2, j::2] for i in range(2) for j in range(2)], 1)
    expected = F.pixel_shuffle(model.unet(patches, t).sample, 2)
    assert torch.equal(model(x, t).sample, expected)
    assert torch.equal(model(x, t, return_dict=False)[0], expected)
    alone = torch.cat([model(x[i : i + 1], int(t[i])).sample for i in range(3)])
    torch.testing.assert_close(alone, expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_starts_near_zero():
    torch.manual_seed(0)
    assert ANNUNet2DModel(**TINY)(torch.randn(2, 1, 16, 16), 10).sample.abs().max() < 1e-2


@pytest.mark.parametrize(
    ("options", "where"),
    [
        ({}, {"mid_block"}),
        ({"middle_attention": False}, set()),
        ({"attention_resolutions": (8,)}, {"mid_block", "down_blocks.1", "up_blocks.0"}),
        ({"attention_resolutions": (16,)}, {"mid_block", "down_blocks.0", "up_blocks.1"}),
        ({"attention_resolutions": (8,), "patch_size": 2}, {"mid_block", "down_blocks.0", "up_blocks.1"}),
    ],
)
def test_attention_is_where_it_was_asked_for(options, where):
    model = ANNUNet2DModel(**TINY, **options)
    layers = {name: m for name, m in model.unet.named_modules() if isinstance(m, Attention)}
    assert {name.split(".attentions")[0] for name in layers} == where
    assert all(layer.heads == 1 for layer in layers.values())
    assert model(torch.zeros(1, 1, 16, 16), 3).sample.shape == (1, 1, 16, 16)


def test_what_cannot_be_built_or_fed():
    with pytest.raises(UserError, match="attention_resolutions names 7; the levels of this network are 16, 8 pixels"):
        ANNUNet2DModel(**TINY, attention_resolutions=(7,))
    with pytest.raises(UserError, match="multiple of 2"):
        ANNUNet2DModel(**{**TINY, "sample_size": 9})
    with pytest.raises(UserError, match="base_channels must be even"):
        ANNUNet2DModel(**{**TINY, "base_channels": 9})
    with pytest.raises(UserError, match="expected a sample"):
        ANNUNet2DModel(**TINY)(torch.zeros(1, 3, 16, 16), 0)
