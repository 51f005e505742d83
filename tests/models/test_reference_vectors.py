"""The model reproduces the reference implementation in float64 to 1e-10 relative."""

import pytest
import torch

from sddpm.conversion.names import reference_names

TOLERANCE = 1e-10


def assert_close(actual, expected):
    """Relative root mean square, and no element further than that of the tensor's scale."""
    expected = expected.double()
    scale = expected.square().mean().sqrt().clamp(min=1e-300)
    assert actual.shape == expected.shape
    assert ((actual - expected).abs().max() / scale).item() < TOLERANCE


def theirs_to_ours(model):
    return {theirs: ours for ours, theirs in reference_names(model.config).items()}


@torch.no_grad()
def test_output(case_and_model):
    case, model = case_and_model
    assert_close(model(case["x"].double(), case["t"]).sample, case["eval_f64"])


@torch.no_grad()
@pytest.mark.parametrize("threshold", ["0.997", "1.003"])
def test_output_at_other_thresholds(case_and_model, threshold):
    case, model = case_and_model
    x, t = case["x"].double(), case["t"]
    before = model(x, t).sample
    with model.at_threshold(float(threshold)):
        assert_close(model(x, t).sample, case[f"eval_th{threshold}_f64"])
    assert torch.equal(model(x, t).sample, before)
    model.set_v_threshold(float(threshold))
    assert_close(model(x, t).sample, case[f"eval_th{threshold}_f64"])


@torch.no_grad()
def test_firing_rates(case_and_model):
    case, model = case_and_model
    rates = {}
    for name, neuron in model.neurons().items():
        neuron.register_forward_hook(lambda _m, _i, out, name=name: rates.__setitem__(name, out.mean().item()))
    model(case["x"].double(), case["t"])
    # Both list the layers in the order of the network, encoder first; the names differ.
    expected = case["rates_f64"]
    assert len(rates) == len(expected)
    for (ours, rate), (theirs, reference) in zip(rates.items(), expected.items(), strict=True):
        assert ours.rsplit(".", 1)[-1] == theirs.rsplit(".", 1)[-1]
        assert rate == pytest.approx(reference, rel=TOLERANCE)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_training_step(case_and_model, layout):
    """Loss, all gradients and batch-norm buffers of one forward and backward in training mode; with channels last the
    layers are fused."""
    case, model = case_and_model
    model.train().to(memory_format=layout)
    loss = (model(case["x"].double(), case["t"]).sample - case["eps"].double()).square().mean()
    loss.backward()
    assert loss.item() == pytest.approx(case["train_loss_f64"].item(), rel=TOLERANCE)

    names = theirs_to_ours(model)
    parameters = dict(model.named_parameters())
    norms = case["grad_norms_f64"]
    assert set(norms) == {theirs for theirs, ours in names.items() if ours in parameters}
    scale = max(norms.values())
    for theirs, norm in norms.items():
        # A bias before a batch norm has gradient zero but for rounding, hence the absolute part.
        grad = parameters[names[theirs]].grad
        assert grad is not None
        assert grad.norm().item() == pytest.approx(norm, rel=TOLERANCE, abs=1e-12 * scale), theirs
    for theirs, expected in case["grads_f64"].items():
        grad = parameters[names[theirs]].grad
        assert grad is not None
        assert_close(grad.reshape(expected.shape), expected)
    buffers = dict(model.named_buffers())
    for theirs, expected in case["running_after_train_f64"].items():
        assert_close(buffers[names[theirs]], expected)
