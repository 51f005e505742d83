"""The linear path from x_t to the prediction, compared with its formula."""

import copy

import pytest
import torch
from torch.nn import functional as F

from sddpm import SpikingUNet2DModel, UserError
from sddpm.conversion.ann import convert_ann
from sddpm.energy.measure import measure_network
from sddpm.export.nir_graph import refusal
from sddpm.models.early_exit import EarlyExit
from sddpm.models.folding import fold_time
from sddpm.models.macs import layer_macs
from tests.helpers.exported_networks import calibrated, inputs

CONFIG = {"in_channels": 3, "out_channels": 3, "num_classes": 2, "pure": True, "input_skip": True}


def without(model):
    """The same network without its input skip."""
    plain = type(model)(**{**model.config, "input_skip": False}).double().eval()
    plain.load_state_dict({name: value for name, value in model.state_dict().items() if not name.startswith("skip.")})
    return plain


def gains(model, t, label):
    """The gain of each channel, by the formula."""
    time = model.time_embedding
    hidden = F.silu(time.table[t] @ time.linear1.weight.T + time.linear1.bias)
    emb = hidden @ time.linear2.weight.T + time.linear2.bias + model.class_embedding.weight[label]
    projection = model.skip.gain[1]
    return F.silu(emb) @ projection.weight.T + projection.bias


@pytest.fixture(scope="module")
def model():
    return calibrated(T=3, **CONFIG)


@torch.no_grad()
def test_the_prediction_gains_x_t_times_a_number_for_each_channel_step_and_class(model):
    x, t, labels = inputs(model, 3)
    expected = without(model)(x, t, labels).sample
    for i in range(3):
        expected[i] += gains(model, t[i], labels[i])[:, None, None] * x[i]
    assert torch.allclose(model(x, t, labels).sample, expected, rtol=1e-12, atol=1e-12)
    assert not torch.allclose(gains(model, t[0], labels[0]), gains(model, t[1], labels[0]))


@torch.no_grad()
def test_a_new_network_has_the_weights_and_predictions_of_one_without():
    networks = []
    for skip in (False, True):
        torch.manual_seed(3)
        networks.append(SpikingUNet2DModel(sample_size=8, base_channels=8, channel_mult=(1,), input_skip=skip).eval())
        drawn = torch.rand(1)
    plain, model = networks
    torch.manual_seed(3)
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in plain.state_dict().items())
    SpikingUNet2DModel(sample_size=8, base_channels=8, channel_mult=(1,))
    assert torch.equal(torch.rand(1), drawn)  # later draws are the same too
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(model(x, 5).sample, plain(x, 5).sample)


@torch.no_grad()
def test_folding_time_keeps_the_gains(model):
    x, t, labels = inputs(model, 3)
    assert torch.allclose(fold_time(model)(x, t, labels).sample, model(x, t, labels).sample, rtol=1e-10, atol=1e-10)


@torch.no_grad()
def test_early_exit_adds_it_once(model):
    x, t, labels = inputs(model, 3)
    early, plain = EarlyExit(model, 0.3).eval(), EarlyExit(without(model), 0.3).eval()
    found, rest = early(x, t, labels).sample, plain(x, t, labels).sample
    for i in range(3):
        if early.snn_steps[i] == plain.snn_steps[i]:
            expected = rest[i] + gains(model, t[i], labels[i])[:, None, None] * x[i]
            assert torch.allclose(found[i], expected, rtol=1e-10, atol=1e-10)
    assert (early.snn_steps == plain.snn_steps).any() and model.skip is not None


@torch.no_grad()
def test_conversion_from_quantised_activations_keeps_it():
    quantised = calibrated(T=1, neuron="quantized_relu", **CONFIG)
    x, t, labels = inputs(quantised, 2)
    spiking = convert_ann(quantised)
    difference = spiking(x, t, labels).sample - without(spiking)(x, t, labels).sample
    expected = gains(quantised, t[1], labels[1])[:, None, None] * x[1]
    assert torch.allclose(difference[1], expected, rtol=1e-10, atol=1e-10)


@torch.no_grad()
def test_its_products_are_counted(model):
    x, _, _ = inputs(model, 2)
    layers = {layer.name: layer for layer in measure_network(model, x, 10, "").evaluations[0].layers}
    assert layers["skip"].mac == 2 * 3 * 8 * 8 and layers["skip"].ac == 0
    assert layers["skip.gain.1"].macs == 3 * 4 * 8
    single = copy.deepcopy(model).float()
    assert layer_macs(single)["skip"] == 3 * 8 * 8
    assert sum(layer_macs(single).values()) - sum(layer_macs(without(model).float()).values()) == 3 * 8 * 8 + 3 * 4 * 8


def test_what_cannot_have_it():
    with pytest.raises(UserError, match="as many out_channels as in_channels"):
        SpikingUNet2DModel(out_channels=1, input_skip=True)
    with pytest.raises(UserError, match="synaptic_currents = False"):
        SpikingUNet2DModel(pure=True, synaptic_currents=True, input_skip=True)
    one_level = SpikingUNet2DModel(sample_size=8, base_channels=8, channel_mult=(1,), pure=True, input_skip=True)
    assert "input_skip = false" in refusal(one_level)
