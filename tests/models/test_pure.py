"""The pure wiring, in which every convolution but the first receives spikes, and the folded time embedding."""

import pytest
import torch
from torch import nn

from sddpm import SpikingUNet2DModel, UserError
from sddpm.conversion import to_reference
from sddpm.models.folding import fold_time
from sddpm.models.layers import StepConv2d


@pytest.fixture(params=[False, True], ids=["sddpm", "pure"])
def model(request):
    torch.manual_seed(0)
    model = SpikingUNet2DModel(
        sample_size=8,
        base_channels=8,
        channel_mult=(1, 2),
        num_res_blocks=1,
        num_train_timesteps=20,
        pure=request.param,
    )
    nn.init.normal_(model.readout.conv.weight)
    with torch.no_grad():
        model.train()(torch.randn(8, 3, 8, 8), torch.randint(20, (8,)))
    return model.eval()


@torch.no_grad()
def real_valued_inputs(model):
    """Names of the convolutions and linear layers whose input holds anything but 0 and 1."""
    found = []

    def look(name):
        return lambda _layer, inputs: None if set(inputs[0].unique().tolist()) <= {0.0, 1.0} else found.append(name)

    hooks = [
        layer.register_forward_pre_hook(look(name))
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Conv2d | nn.Linear)
    ]
    model(torch.randn(4, 3, 8, 8), torch.tensor([0, 3, 10, 19]))
    for hook in hooks:
        hook.remove()
    return found


def test_only_the_first_convolution_of_a_pure_network_sees_numbers(model):
    real = real_valued_inputs(fold_time(model))
    shortcuts = [name for name, m in model.named_modules() if name.endswith("shortcut") and isinstance(m, StepConv2d)]
    assert shortcuts
    if model.config.pure:
        assert real == ["encoder.conv1"]
    else:
        assert set(real) == {"encoder.conv1", *shortcuts, "readout.conv", "readout.out_conv"}


def test_shortcuts_without_convolution_add_the_real_input():
    """Two blocks in the middle keep their channels: with silent convolutions they hand their input on as it is."""
    model = SpikingUNet2DModel(sample_size=8, base_channels=8, channel_mult=(1,), num_res_blocks=1, pure=True).eval()
    block = model.middle[0]
    for norm in (block.norm1, block.norm2):
        nn.init.zeros_(norm.weight)
    x = torch.randn(4, 2, 8, 8, 8)
    assert torch.equal(block(x, torch.randn(2, 32)), x)


@torch.no_grad()
def test_folded_time_changes_nothing(model):
    x, t = torch.randn(20, 3, 8, 8).double(), torch.arange(20)
    model.double()
    folded = fold_time(model)
    assert torch.allclose(folded(x, t).sample, model(x, t).sample, rtol=1e-10, atol=1e-10)
    assert torch.allclose(folded(x, 7).sample, model(x, 7).sample, rtol=1e-10, atol=1e-10)
    assert folded.up[0].blocks[0].time_projection.weight.shape == (20, 16)
    assert not any(isinstance(layer, nn.Linear) for layer in folded.modules())
    assert any(isinstance(layer, nn.Linear) for layer in model.modules())  # the original is as it was


def test_pure_trains_and_saves(tmp_path):
    model = SpikingUNet2DModel(sample_size=8, base_channels=8, channel_mult=(1, 2), num_res_blocks=1, pure=True)
    nn.init.normal_(model.readout.conv.weight)
    model(torch.randn(3, 3, 8, 8), torch.tensor([0, 500, 999])).sample.square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    model.eval().save_pretrained(tmp_path)
    loaded = SpikingUNet2DModel.from_pretrained(tmp_path)
    x = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        assert loaded.config.pure and torch.equal(loaded(x, 3).sample, model(x, 3).sample)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"v_reset": None}, "has v_reset=0.0, this model has None"),
        ({"v_reset": None, "signed_spikes": True}, "has v_reset=0.0, this model has None"),
        ({"initial_charge": 0.5}, "has initial_charge=0.0, this model has 0.5"),
        ({"v_threshold": {"up.*": 0.9}}, "has one threshold, this model has one for each layer"),
    ],
)
def test_the_reference_has_no_such_neurons(options, words):
    small = {"sample_size": 8, "base_channels": 8, "channel_mult": (1,), "num_res_blocks": 1}
    with pytest.raises(UserError, match=words):
        to_reference(SpikingUNet2DModel(**small, **options))


def test_the_reference_has_no_pure_network():
    with pytest.raises(UserError, match="the reference's network has pure=False, this model has True"):
        to_reference(SpikingUNet2DModel(sample_size=8, base_channels=8, channel_mult=(1,), num_res_blocks=1, pure=True))


def test_a_folded_model_is_not_saved(model, tmp_path):
    with pytest.raises(UserError, match="save the model before fold_time"):
        fold_time(model).save_pretrained(tmp_path)
    assert not list(tmp_path.iterdir())
