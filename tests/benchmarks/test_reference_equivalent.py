"""The baseline of the benchmarks computes what our model computes: else ratios to it would mean nothing."""

import pytest
import torch

pytest.importorskip("spikingjelly")

from benchmarks.reference_equivalent import reference_equivalent
from sddpm import SpikingUNet2DModel, UserError

TINY = {"sample_size": 16, "base_channels": 8, "channel_mult": (1, 2, 2), "num_res_blocks": 1, "T": 4}


def both(**overrides):
    torch.manual_seed(0)
    model = SpikingUNet2DModel(**TINY | overrides).double()
    torch.nn.init.normal_(model.readout.conv.weight)
    return model, reference_equivalent(model), torch.randn(2, 3, 16, 16).double(), torch.tensor([3, 900])


@pytest.mark.parametrize("overrides", [{}, {"T": 2, "num_res_blocks": 2}, {"v_threshold": 0.9}])
def test_training_step_is_the_same(overrides):
    model, baseline, x, t = both(**overrides)
    ours, theirs = model(x, t).sample, baseline(x, t)
    assert torch.allclose(ours, theirs, rtol=1e-10, atol=1e-10)
    for out in (ours, theirs):
        out.square().mean().backward()
    gradients = dict(baseline.named_parameters())
    scale = max(p.grad.abs().max() for p in model.parameters())
    for name, parameter in model.named_parameters():
        assert torch.allclose(parameter.grad, gradients[name].grad, rtol=1e-9, atol=1e-11 * scale), name
    state = baseline.state_dict()
    for name, value in model.state_dict().items():
        assert torch.allclose(value.double(), state[name].double(), rtol=1e-10, atol=1e-12), name


@torch.no_grad()
def test_evaluation_is_the_same_again_and_again():
    model, baseline, x, t = both()
    model(x, t), baseline(x, t)
    model.eval(), baseline.eval()
    for _ in range(2):
        assert torch.allclose(model(x, t).sample, baseline(x, t), rtol=1e-10, atol=1e-10)


def test_reproduces_the_reference_outputs(vectors_dir):
    from sddpm.conversion import from_reference

    case = torch.load(vectors_dir / "sddpm_rgb16_T4.case.pt", weights_only=True)
    model = from_reference(vectors_dir / "sddpm_rgb16_T4.ckpt.pt", T=4, sample_size=16).model.double().eval()
    with torch.no_grad():
        out = reference_equivalent(model)(case["x"].double(), case["t"])
    assert torch.allclose(out, case["eval_f64"], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("overrides", [{"neuron": "lif"}, {"v_reset": None}, {"temporal_modulation": True}])
def test_variants_without_a_reference_are_refused(overrides):
    with pytest.raises(UserError, match="reference code only supports"):
        both(**overrides)
