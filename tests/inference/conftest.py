"""Networks of every variant, with weights and statistics that let all layers fire."""

import pytest
import torch

from sddpm.models import SpikingUNet2DModel

SMALL = {"sample_size": 8, "in_channels": 1, "out_channels": 1, "base_channels": 8, "channel_mult": (1, 2)}
VARIANTS = {
    "if": {},
    "soft reset": {"v_reset": None},
    "reset elsewhere": {"v_reset": -0.2},
    "charged": {"v_reset": None, "initial_charge": 0.5},
    "lif": {"neuron": "lif", "tau": 1.5},
    "lif undecayed": {"neuron": "lif", "decay_input": False, "v_reset": None},
    "plif": {"neuron": "plif"},
    "tsm": {"temporal_modulation": True},
    "tsm lif": {"temporal_modulation": True, "neuron": "lif", "v_reset": None, "T": 2},
    "patches": {"patch_size": 2, "sample_size": 16},
    "T=1": {"T": 1},
    "T=8": {"T": 8},
    "colour": {"in_channels": 3, "out_channels": 3},
    "thresholds by layer": {"v_threshold": {"*": 1.0, "up.*": 0.9, "middle.1.neuron2": 1.2, "encoder.neuron": 0.7}},
    "deep": {"channel_mult": (1, 2, 3), "num_res_blocks": 2},
    "one level": {"channel_mult": (2,), "base_channels": 6},
    "pure": {"pure": True},
    "input skip": {"input_skip": True, "in_channels": 3, "out_channels": 3},
    "pure tsm": {"pure": True, "temporal_modulation": True},
}


def calibrated(**config) -> SpikingUNet2DModel:
    """A random network in float64, in evaluation mode, whose batch norms know what they see."""
    torch.manual_seed(0)
    model = SpikingUNet2DModel(**{**SMALL, "num_res_blocks": 1, "T": 4, **config}).double()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name or name.endswith((".p", ".w", ".bias")):
                parameter.add_(0.2 * torch.randn_like(parameter))
        torch.nn.init.xavier_uniform_(model.readout.conv.weight)  # it starts near zero, which would hide errors
        model.train()
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = None
        size = model.config["sample_size"]
        model(torch.randn(8, model.config["in_channels"], size, size, dtype=torch.float64), torch.arange(8) * 100)
    return model.eval()


@pytest.fixture(scope="session")
def make_model():
    return calibrated


@pytest.fixture(params=VARIANTS)
def variant(request) -> SpikingUNet2DModel:
    return calibrated(**VARIANTS[request.param])
