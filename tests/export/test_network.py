"""The ONNX graph of every variant against the eager network: layer by layer where there are spikes."""

import copy

import numpy as np
import onnx
import pytest
import torch

import sddpm
from sddpm.errors import UserError
from sddpm.export.network import network_graph
from sddpm.models.ann import ANNUNet2DModel
from sddpm.neurons import SpikingNeuron
from tests.helpers.exported_networks import SMALL, calibrated, inputs
from tests.helpers.fed_onnx import run, worst_layer

TOLERANCE = 2e-5  # of the currents' deviation, as of float32 in the eager network
VARIANTS = {
    "if": {},
    "soft reset": {"v_reset": None},
    "reset elsewhere, charged": {"v_reset": -0.2, "initial_charge": 0.5},
    "lif": {"neuron": "lif", "tau": 1.5},
    "lif undecayed": {"neuron": "lif", "decay_input": False, "v_reset": None},
    "plif": {"neuron": "plif"},
    "signed": {"pure": True, "v_reset": None, "signed_spikes": True},
    "tsm, patches": {"temporal_modulation": True, "patch_size": 2, "sample_size": 16},
    "T=1, colour": {"T": 1, "in_channels": 3, "out_channels": 3},
    "thresholds by layer": {"v_threshold": {"*": 1.0, "up.*": 0.9, "encoder.neuron": 0.7}},
    "pure, classes": {"pure": True, "num_classes": 3},
    "input skip, classes": {"input_skip": True, "num_classes": 3, "patch_size": 2, "sample_size": 16},
    "attention": {"attention_resolutions": (4,)},
    "signals": {"dims": 1, "patch_size": 2, "sample_size": 16},
    "currents": {"pure": True, "synaptic_currents": True},
}


def feed(model, batch):
    given = inputs(model.float(), batch)
    return {name: value.numpy() for name, value in zip(("x_t", "t", "class"), given, strict=False)}


@pytest.mark.parametrize("name", VARIANTS)
def test_layer_by_layer(name):
    exact = calibrated(**{"T": 2, **VARIANTS[name]})
    model = network_graph(exact)
    onnx.checker.check_model(model, full_check=True)
    for batch in (1, 3):
        x, *rest = inputs(exact, batch)
        error, flips = worst_layer(model, exact, x.float(), *rest)
        assert error < TOLERANCE
        assert flips < 2e-3


CLASSES = {"num_classes": 3, "attention_resolutions": (8,), "patch_size": 2, "sample_size": 16}


@pytest.mark.parametrize("config", [{}, CLASSES])
def test_twin_without_spikes(config):
    exact = calibrated(ANNUNet2DModel, **config)
    model = network_graph(exact)
    for batch in (1, 3):
        with torch.no_grad():
            expected = exact.double()(*inputs(exact, batch)).sample
        found = run(model, feed(copy.deepcopy(exact), batch))["prediction"]
        assert np.abs(found - expected.numpy()).max() < 1e-5 * expected.std()


def test_quantized_relu():
    exact = calibrated(pure=True, T=1, neuron="quantized_relu", activation_bits=3)
    with torch.no_grad():
        expected = exact(*inputs(exact, 3)).sample
    found = run(network_graph(exact), feed(copy.deepcopy(exact), 3))["prediction"]
    assert np.abs(found - expected.numpy()).max() < 1e-5 * expected.std()


def test_neurons_alone_are_exact():
    """A layer's own spikes are those of the definition on its own currents, to the bit."""
    model = calibrated(T=4, neuron="lif").float()
    graph = network_graph(model)
    for name in model.neurons():
        for what in ("current", "spikes"):
            graph.graph.output.append(onnx.helper.make_tensor_value_info(f"{name}.{what}", 1, [None] * 5))
    found = run(graph, feed(model, 3))
    for name, neuron in model.neurons().items():
        expected = neuron(torch.from_numpy(found[f"{name}.current"]))
        assert torch.equal(torch.from_numpy(found[f"{name}.spikes"]), expected)
        assert 0 < expected.mean() < 1


def test_firing_rates():
    model = calibrated(T=2).float()
    graph = network_graph(model, rates=True)
    for name in model.neurons():
        graph.graph.output.append(onnx.helper.make_tensor_value_info(f"{name}.spikes", 1, [None] * 5))
    found = run(graph, feed(model, 3))
    expected = np.stack([found[f"{name}.spikes"].mean((0, 2, 3, 4)) for name in model.neurons()], 1)
    assert np.allclose(found["firing_rates"], expected, atol=1e-6)
    with pytest.raises(UserError, match="spiking neurons"):
        network_graph(calibrated(ANNUNet2DModel), rates=True)


def test_thresholds_are_put_in_and_the_network_is_left_as_it_is():
    exact = calibrated(T=2)
    model = network_graph(exact, {"up.*": "0.5x"})
    assert {neuron.v_threshold for neuron in exact.neurons().values()} == {1.0}
    x, t = inputs(exact, 2)
    with exact.at_threshold({"up.*": 0.5}):
        assert worst_layer(model, exact, x.float(), t)[1] < 2e-3
    assert worst_layer(model, exact, x.float(), t)[1] > 0.01


def test_a_neuron_of_the_user_is_exported_as_it_is_defined():
    class Halving(SpikingNeuron):
        def forward(self, x):
            return (x >= self.v_threshold / 2).to(x)

    exact = calibrated(T=2)
    neuron = exact.middle[0].neuron1
    exact.middle[0].neuron1 = Halving(neuron.dynamics)
    x, t = inputs(exact, 2)
    error, flips = worst_layer(network_graph(exact), exact, x.float(), t)
    assert error < TOLERANCE and flips < 2e-3


def test_the_same_bytes_twice():
    exact = calibrated(T=2)
    assert network_graph(exact).SerializeToString() == network_graph(exact).SerializeToString()


def test_an_operator_without_translation_is_named():
    class Odd(torch.nn.Module):
        config = sddpm.SpikingUNet2DModel(**SMALL).config

        def forward(self, x, t):
            return type("Out", (), {"sample": torch.special.bessel_j0(x)})

    with pytest.raises(UserError, match="special_bessel_j0"):
        network_graph(Odd())


def test_a_network_that_depends_on_its_batch_is_refused():
    class Odd(torch.nn.Module):
        config = sddpm.SpikingUNet2DModel(**SMALL).config

        def forward(self, x, t):
            return type("Out", (), {"sample": x * len(x)})

    with pytest.raises(UserError, match="batch"):
        network_graph(Odd())
