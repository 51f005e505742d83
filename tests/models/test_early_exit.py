"""Early exit over T: the same answer where nothing settles, the defined estimate where it does, nothing left behind."""

import pytest
import torch
from torch import nn

from sddpm import SpikingUNet2DModel, UserError
from sddpm.models import readout
from sddpm.models.early_exit import EarlyExit


def build(**overrides):
    torch.manual_seed(0)
    config = {"sample_size": 8, "base_channels": 8, "channel_mult": (1, 2), "num_res_blocks": 1, "T": 5}
    model = SpikingUNet2DModel(**(config | overrides))
    nn.init.normal_(model.readout.conv.weight)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))  # scales of TSM that differ from step to step
        for _ in range(3):
            model.train()(torch.randn(8, 3, 8, 8), torch.arange(8))
    return model.eval().double()


def outputs_per_step(model, x, t, monkeypatch):
    """out[n] of the network, [T, B, C, H, W], as its readout is given them."""
    seen = []
    original = readout.membrane_readout
    with monkeypatch.context() as patch:
        patch.setattr(readout, "membrane_readout", lambda out, decay: seen.append(out) or original(out, decay))
        model(x, t)
    return seen[0]


def estimates(out, decay):
    """y_1 ... y_T of the definition, [T, B, C, H, W]."""
    T = len(out)
    weights = torch.pow(decay, torch.arange(T - 1, -1, -1)).to(out.dtype)  # float32 powers, as the readout has them
    return torch.stack(
        [sum(weights[m] * out[m] for m in range(n)) + sum(weights[n:].tolist()) * out[n - 1] for n in range(1, T + 1)]
    )


@torch.no_grad()
def test_without_exits_it_is_the_reference_network(case_and_model):
    case, model = case_and_model
    early = EarlyExit(model, 0.0).eval()
    sample = early(case["x"].double(), case["t"]).sample
    expected = case["eval_f64"]
    assert ((sample - expected).abs().max() / expected.square().mean().sqrt()).item() < 1e-10
    assert early.snn_steps.tolist() == [model.config.T] * len(expected)


@torch.no_grad()
@pytest.mark.parametrize(
    "overrides",
    [{"neuron": "lif", "tau": 3.0}, {"neuron": "plif", "decay_input": False}, {"v_reset": None}, {"v_reset": -0.2},
     {"pure": True}, {"temporal_modulation": True}, {"patch_size": 2}, {"T": 1}, {"input_skip": True}],
    ids=str,
)  # fmt: skip
def test_without_exits_it_is_the_network(overrides):
    model = build(**overrides)
    x, t = torch.randn(3, 3, 8, 8).double(), torch.tensor([1, 400, 900])
    assert torch.allclose(EarlyExit(model, 0)(x, t).sample, model(x, t).sample, rtol=1e-10, atol=1e-10)


@torch.no_grad()
@pytest.mark.parametrize("overrides", [{}, {"pure": True}, {"temporal_modulation": True}], ids=str)
def test_each_sample_leaves_with_its_own_estimate(overrides, monkeypatch):
    model = build(**overrides)
    x, t = torch.randn(6, 3, 8, 8).double(), torch.tensor([1, 50, 200, 400, 700, 900])
    y = estimates(outputs_per_step(model, x, t, monkeypatch), model.config.readout_decay)
    assert torch.allclose(y[-1], model(x, t).sample, rtol=1e-10, atol=1e-10)
    change = (y[1:] - y[:-1]).flatten(2).norm(dim=2) / y[1:].flatten(2).norm(dim=2)  # [T - 1, B]
    tolerance = change[change > 0].quantile(0.4).item()
    settled = [next((n for n, c in enumerate(column, 2) if 0 < c < tolerance), 5) for column in change.T.tolist()]
    assert len(set(settled)) > 1  # the case means something

    early = EarlyExit(model, tolerance)
    sample = early(x, t).sample
    assert early.snn_steps.tolist() == settled
    for b, n in enumerate(settled):
        assert torch.allclose(sample[b], y[n - 1, b], rtol=1e-9, atol=1e-10)

    for b, n in enumerate(settled):
        assert torch.allclose(early(x[b : b + 1], t[b]).sample[0], sample[b], rtol=1e-9, atol=1e-10)
        assert early.snn_steps.tolist() == [n]


@torch.no_grad()
def test_a_readout_that_no_spike_has_reached_has_not_settled():
    """With high thresholds the end of the network is silent for some steps: out[0] = out[1], the biases."""
    model = build(pure=True, T=8, v_threshold=1.5)
    x = torch.randn(3, 3, 8, 8).double()
    spikes = []
    model.readout.neuron.register_forward_hook(lambda _m, _i, out: spikes.append(out.flatten(2).sum(2)))
    model(x, 10)
    first = [next(n for n, count in enumerate(column, 1) if count) for column in spikes[0].T.tolist()]
    assert min(first) > 2
    early = EarlyExit(model, 1e6)
    early(x, 10)
    assert early.snn_steps.tolist() == first  # with the first spikes it changes, and this tolerance takes any change


@torch.no_grad()
def test_a_large_tolerance_means_two_steps():
    model = build()
    calls = []
    model.readout.register_forward_hook(lambda *_: calls.append(1))
    early = EarlyExit(model, 1e6)
    early(torch.randn(2, 3, 8, 8).double(), 10)
    assert early.snn_steps.tolist() == [2, 2] and len(calls) == 2  # the other steps were not computed


@torch.no_grad()
def test_the_first_convolution_is_computed_once():
    model = build()
    calls = []
    model.encoder.conv1.register_forward_hook(lambda *_: calls.append(1))
    EarlyExit(model, 0)(torch.randn(2, 3, 8, 8).double(), 10)
    assert len(calls) == 1


@torch.no_grad()
def test_the_network_is_left_as_it_was():
    model = build(temporal_modulation=True)
    x = torch.randn(2, 3, 8, 8).double()
    before = model(x, 10).sample
    EarlyExit(model, 1.0)(x, 10)
    with pytest.raises(RuntimeError):
        EarlyExit(model, 1.0)(x, torch.tensor([1, 2, 3]))  # three time steps for two samples
    assert torch.equal(model(x, 10).sample, before)
    assert not any("forward" in module.__dict__ for module in model.modules())


@torch.no_grad()
def test_thresholds_reach_the_network():
    model = build()
    x, exit_at_end = torch.randn(2, 3, 8, 8).double(), EarlyExit(model, 0)
    with model.at_threshold(0.7):
        expected = model(x, 10).sample
    with exit_at_end.at_threshold(0.7):
        assert torch.allclose(exit_at_end(x, 10).sample, expected, rtol=1e-10, atol=1e-10)


def test_refusals():
    model = build()
    for tolerance in (-0.1, float("nan"), float("inf")):
        with pytest.raises(UserError, match="tolerance must be a number of at least 0"):
            EarlyExit(model, tolerance)
    with pytest.raises(UserError, match="needs a spiking U-Net, not a Linear"):
        EarlyExit(nn.Linear(1, 1), 0.1)
    with pytest.raises(UserError, match="needs evaluation mode"):
        EarlyExit(model.train(), 0.1)(torch.randn(2, 3, 8, 8).double(), 10)
