"""What neurons do, on networks in which it is known."""

import pytest
import torch
from torch import nn

from sddpm.energy.activity import MEMBRANE_EDGES, LayerActivity, recording
from sddpm.models.early_exit import EarlyExit


@torch.no_grad()
def record(model, times=1):
    x = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with recording(model) as activity:
        for t in range(times):
            model(x, t)
    return activity


def test_rates_of_channels(make_model):
    model = make_model()
    spikes = {}
    for name, neuron in model.neurons().items():
        neuron.register_forward_hook(lambda _m, _i, out, name=name: spikes.setdefault(name, []).append(out))
    activity = record(model, times=2)
    assert list(activity.layers) == list(model.neurons())
    for name, layer in activity.layers.items():
        expected = torch.stack(spikes[name]).double().mean((0, 1, 2, 4, 5))
        assert torch.allclose(layer.channel_rates, expected)
        assert layer.joined_raster().shape == (min(60, spikes[name][0][0, 0].numel()), 2 * 3)
    first = spikes["encoder.neuron"][0][:, 0].flatten(1).T.bool()
    raster = activity.layers["encoder.neuron"].raster[0]
    assert torch.equal(raster[0], first[0]) and torch.equal(raster[-1], first[-1])


def test_dead_saturated_and_silent(make_model):
    """Norms that shift one channel far down, one far up, and in another layer all of them far down."""
    model = make_model()
    with torch.no_grad():
        model.encoder.norm1.bias[0], model.encoder.norm1.bias[1] = -1e3, 1e3
        model.down[1].blocks[0].norm1.bias.fill_(-1e3)
    activity = record(model)
    encoder = activity.layers["encoder.neuron"]
    assert encoder.channel_spikes[0] == 0 and encoder.channel_rates[1] == 1
    assert (encoder.dead, encoder.saturated) == (1, 1)
    assert activity.silent == ["down.1.blocks.0.neuron2"]
    assert activity.layers["down.1.blocks.0.neuron2"].dead == 16


def test_a_channel_is_saturated_from_99_percent():
    layer = LayerActivity(torch.tensor([0.0, 1, 197, 198, 200], dtype=torch.float64), opportunities=200)
    assert (layer.dead, layer.saturated) == (1, 2)


def test_a_spike_of_minus_one_is_a_spike(make_model):
    """Currents 1.2, -1, 0 into every neuron of a layer: it fires 1, takes it back with -1, and is not dead."""
    model = make_model(v_reset=None, signed_spikes=True)
    currents = torch.tensor([1.2, -1.0, 0.0]).view(3, 1, 1, 1, 1)
    model.encoder.neuron.register_forward_pre_hook(lambda _m, inputs: (currents.expand(inputs[0].shape),))
    encoder = record(model).layers["encoder.neuron"]
    assert torch.equal(encoder.channel_rates, torch.full((8,), 2 / 3, dtype=torch.float64)) and encoder.dead == 0
    assert encoder.joined_raster()[0].tolist() == [True, True, False]


def test_membranes_by_hand(make_model):
    """Hard reset: h = v + x. The share above the threshold is the firing rate."""
    model = make_model(v_threshold=0.8)
    currents = {}
    neuron = model.middle[0].neuron1
    neuron.register_forward_hook(lambda _m, inputs, out: currents.update(x=inputs[0][:, 0], s=out[:, 0]))
    layer = record(model).layers["middle.0.neuron1"]
    v, h = torch.zeros_like(currents["x"][0]), []
    for x in currents["x"]:
        h.append(v + x)
        v = torch.where(h[-1] >= 0.8, 0.0, h[-1])
    values = torch.stack(h).flatten() / 0.8
    expected = torch.histc(values.clamp(-4.05, 4.05), len(MEMBRANE_EDGES) - 1, -4.1, 4.1)
    assert layer.membrane.sum() == values.numel()
    assert (layer.membrane - expected).abs().sum() <= 2  # values on an edge
    above = layer.membrane[MEMBRANE_EDGES[:-1] >= 0.999].sum() / values.numel()
    assert above.item() == pytest.approx(currents["s"].mean().item(), abs=0.02)


@torch.no_grad()
def test_early_exit_has_channels_alone(make_model):
    model = make_model()
    x = torch.randn(2, 1, 8, 8)
    with recording(model) as activity:
        EarlyExit(model, 1e6)(x, 5)
    assert all(not layer.raster and layer.opportunities for layer in activity.layers.values())


def test_a_model_without_neurons():
    model = nn.Conv2d(1, 1, 1)
    with recording(model) as activity:
        model(torch.zeros(1, 1, 2, 2))
    assert activity.layers == {} and activity.silent == []
