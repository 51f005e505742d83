"""Counts of whole networks: against PyTorch's FLOP counter, spikingjelly's counter, the reference's firing rates."""

import pytest
import torch
from spikingjelly.activation_based.op_counter import DispatchCounterMode, SynOpCounter
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from sddpm.conversion import from_reference
from sddpm.energy.counts import merge
from sddpm.energy.coverage import macs_outside_layers
from sddpm.energy.fanout import synaptic_operations
from sddpm.energy.operations import counting, look
from sddpm.energy.twin import ann_twin
from sddpm.errors import UserError
from sddpm.models import ANNUNet2DModel
from sddpm.models.early_exit import EarlyExit
from sddpm.models.folding import fold_time


@torch.no_grad()
def count(model, x, t):
    with counting(model) as counter:
        model(x, t)
        return {layer.name: layer for layer in counter.take()}


@pytest.fixture
def x():
    return torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(3))


# Dense multiply-accumulates


@pytest.mark.parametrize("overrides", [{}, {"pure": True}, {"temporal_modulation": True}, {"patch_size": 2}], ids=str)
def test_dense_macs_are_half_of_pytorchs_flops(make_model, x, overrides):
    model = make_model(**overrides)
    layers = count(model, x, 10)
    with FlopCounterMode(display=False) as flops, torch.no_grad():
        model(x, 10)
    assert 2 * sum(layer.dense_macs for layer in layers.values()) == flops.get_total_flops()


def test_macs_outside_layers_are_those_of_attention():
    """Scores and weighted sums of n = 16 places: 2 n^2 C multiply-accumulates."""
    config = {"sample_size": 8, "in_channels": 1, "out_channels": 1, "base_channels": 8, "channel_mult": (1, 2),
              "num_res_blocks": 1}  # fmt: skip
    assert macs_outside_layers(ANNUNet2DModel(**config, middle_attention=True)) == 2 * 16**2 * 16
    assert macs_outside_layers(ANNUNet2DModel(**config, middle_attention=False)) == 0


@pytest.mark.parametrize("overrides", [{}, {"temporal_modulation": True}], ids=str)
def test_a_spiking_network_multiplies_nowhere_else(make_model, overrides):
    assert macs_outside_layers(make_model(**overrides)) == 0


# Accumulates


@pytest.mark.parametrize("pure", [False, True])
def test_spikingjelly_counts_the_same_accumulates(make_model, x, pure):
    """It too looks whether an input is binary. With the time embedding as a table there are but convolutions."""
    model = fold_time(make_model(pure=pure))
    counter = SynOpCounter()
    with torch.no_grad(), DispatchCounterMode([counter]):
        model(x, 10)
    layers = count(model, x, 10)
    assert counter.get_total() == sum(layer.ac for layer in layers.values()) > 0
    real = [layer.name for layer in layers.values() if layer.mac]
    assert (real == ["encoder.conv1"]) == pure


def test_accumulates_and_multiplies_by_hand(make_model, x):
    """Of the first convolution and of one that receives spikes, from its input alone."""
    model = make_model()
    seen = {}
    conv = model.down[0].blocks[0].conv1
    conv.register_forward_hook(lambda _m, inputs, _o: seen.__setitem__("spikes", inputs[0]))
    layers = count(model, x, 10)
    spikes = seen["spikes"]
    assert set(spikes.unique().tolist()) == {0.0, 1.0}
    reached = nn.functional.conv2d(spikes.flatten(0, 1), torch.ones(8, 8, 3, 3), padding=1).unflatten(0, (3, 4))
    layer = layers["down.0.blocks.0.conv1"]
    assert layer.sops == tuple(reached.flatten(1).sum(1).long().tolist()) and layer.mac == 0 and layer.binary
    assert layer.active == tuple(spikes.flatten(1).sum(1).long().tolist())
    assert layer.rate == pytest.approx(spikes.mean().item())
    assert layer.images == (4, 4, 4) and layer.shape == (8, 8, 8) and layer.macs == 8 * 9 * 8 * 64

    first = layers["encoder.conv1"]  # 22 of 24 taps a row and column lie on the image
    assert first.images == (4,) and not first.binary and first.ac == 0
    assert first.mac == 4 * 8 * 22 * 22 and first.dense_macs == 4 * 8 * 24 * 24


def test_neuron_updates(make_model, x):
    layers = count(make_model(), x, 10)
    neuron = layers["down.1.blocks.0.neuron1"]  # 8 channels of 4 x 4
    assert neuron.updates == 8 * 16 * 3 * 4 and neuron.macs == 0 and not neuron.leaky
    assert count(make_model(neuron="lif"), x, 10)["encoder.neuron"].leaky


@torch.no_grad()
@pytest.mark.parametrize("name", ["sddpm_rgb16_T4", "sddpm_grey32_T8", "sdm_tsm_rgb16_T4"])
def test_firing_rates_are_the_references(vectors_dir, name):
    case = torch.load(vectors_dir / f"{name}.case.pt", weights_only=True)
    config = case["config"]
    model = from_reference(vectors_dir / f"{name}.ckpt.pt", T=config["timestep"], sample_size=config["size"]).model
    layers = count(model.double(), case["x"].double(), case["t"])
    rates = [layer.rate for layer in layers.values() if layer.kind == "neuron"]
    assert rates == pytest.approx(list(case["rates_f64"].values()), rel=1e-10)
    assert all(layer.binary for layer in layers.values() if layer.kind == "neuron")


def test_binary_means_a_spike_or_none():
    """A spike is 1, or -1 of neurons that sign theirs."""
    for values, binary in (([0, 1], True), ([0, 2], False), ([0.0, -1.0], True), ([1, -1, 0], True), ([1, -2], False),
                           ([0.5, 1.5], False), ([1, float("nan")], False), ([0, 0], True)):  # fmt: skip
        active, found = look(torch.tensor([values], dtype=torch.float32))
        assert found == binary and active == (sum(value != 0 for value in values),)


def test_binary_is_looked_up_not_assumed(make_model, x):
    """A layer that is given numbers by a change in the network is found out."""
    model = make_model(pure=True)
    model.up[0].blocks[0].neuron1.register_forward_hook(lambda _m, _i, spikes: 0.5 * spikes)
    layers = count(model, x, 10)
    assert not layers["up.0.blocks.0.conv1"].binary and layers["up.0.blocks.0.conv1"].mac > 0
    assert layers["up.0.blocks.0.conv2"].binary


def test_no_more_memory_than_the_layers_mask():
    """A byte an element: masks of one time step at a time, and sums over channels."""
    made = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor) and out.untyped_storage().data_ptr() != x.untyped_storage().data_ptr():
                made.append(out.nbytes)
            return out

    x, conv = (torch.rand(4, 3, 16, 8, 8) < 0.2).float(), nn.Conv2d(16, 16, 3, padding=1)
    with Watch():
        look(x)
        synaptic_operations(x, conv)
    assert made and sum(sorted(made)[-2:]) <= x.numel()  # two of them are never alive at once with more


# Early exit


def test_early_exit_without_exits_counts_the_same(make_model, x):
    model = make_model(pure=True).double()
    whole = count(model, x.double(), 10)
    with counting(model) as counter, torch.no_grad():
        EarlyExit(model, 0.0)(x.double(), 10)
        stepwise = {layer.name: layer for layer in counter.take()}
    assert stepwise == whole


def test_who_has_left_costs_nothing(make_model):
    """The count of a batch is that of its samples, each up to the time step in which it left."""
    model = make_model(T=5).double()
    x = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(5)).double()
    t = torch.tensor([1, 20, 40, 60, 80, 99])
    early = EarlyExit(model, 0.9)
    with counting(model) as counter, torch.no_grad():
        early(x, t)
        layers = {layer.name: layer for layer in counter.take()}
    taken = early.snn_steps.tolist()
    assert len(set(taken)) > 1
    alone = [count(model, x[b : b + 1], t[b]) for b in range(6)]
    for name, layer in layers.items():
        steps = [n if len(alone[b][name].images) > 1 else 1 for b, n in enumerate(taken)]
        assert sum(layer.images) == sum(steps), name
        assert layer.ac == sum(sum(alone[b][name].sops[:n]) for b, n in enumerate(steps)), name
        seen = "fired" if layer.kind == "neuron" else "active"
        each = [getattr(alone[b][name], seen)[:n] for b, n in enumerate(steps)]
        assert sum(getattr(layer, seen)) == sum(map(sum, each)), name


def test_merging_adds_and_keeps_what_was_ever_real(make_model, x):
    model = make_model()
    a, b = count(model, x[:1], 10), count(model, x[1:], 90)
    whole = count(model, x, torch.tensor([10, 90, 90, 90]))
    for name, layer in whole.items():
        assert merge([a[name], b[name]]) == layer
    mixed = merge([a["encoder.conv1"], b["encoder.conv2"]])
    assert not mixed.binary
    assert mixed.ac == b["encoder.conv2"].ac and mixed.mac == a["encoder.conv1"].mac  # neither is charged twice


# The ANN


def test_the_twin_multiplies_everywhere(make_model, x):
    model = make_model()
    twin = ann_twin(model.config)
    layers = count(twin, x, 50)
    assert not any(layer.binary or layer.ac or layer.kind == "neuron" for layer in layers.values())
    own, theirs = (sum(p.numel() for p in network.parameters()) for network in (model, twin))
    assert theirs == pytest.approx(own, rel=0.25)  # of the same widths and depth; so small, norms weigh in


# Off, and what cannot be


def test_nothing_stays_hooked(make_model, x):
    model = make_model()
    with counting(model):
        pass
    with pytest.raises(UserError), counting(model):
        model(x * float("nan"), 10)
    for module in model.modules():
        assert not module._forward_hooks and not module._forward_pre_hooks


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x * float("nan"), "NaN or infinity"),
        (lambda x: x / 0, "NaN or infinity"),
        (lambda x: torch.randn(2, 1, 16, 16), "trained on images of 8 x 8, not 16 x 16"),
    ],
)
def test_inputs_that_cannot_be_accounted_for(make_model, x, change, message):
    for model in (make_model(), ann_twin(make_model().config)):
        with pytest.raises(UserError, match=message):
            count(model, change(x), 10)


def test_another_T_than_trained_is_refused(make_model, x):
    model = make_model()
    model.encoder.T = 6
    with pytest.raises(UserError, match="trained with T = 3, not 6"):
        count(model, x, 10)
