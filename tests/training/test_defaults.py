"""The defaults of a model stand in its signature; configs and what is saved agree with them."""

import inspect
import json

import pytest

from sddpm import SpikingUNet2DModel
from sddpm.models import ANNUNet2DModel
from sddpm.neurons import NEURONS, SURROGATES
from sddpm.pretrained import find_pretrained, pretrained_names
from sddpm.training import Config
from sddpm.training.config import KINDS, AnnConfig, FsddimConfig, SpikingConfig
from sddpm.training.state import build_model

FROM_ELSEWHERE = {"sample_size", "in_channels", "out_channels", "num_train_timesteps"}  # of data and diffusion
OF_ONE_KIND = {"activation_bits", "activation_levels"}


def defaults(model):
    return {name: p.default for name, p in inspect.signature(model.__init__).parameters.items() if name != "self"}


@pytest.mark.parametrize(("section", "model"), [(SpikingConfig, SpikingUNet2DModel), (AnnConfig, ANNUNet2DModel)])
def test_config_and_signature_agree(section, model):
    expected = {name: value for name, value in defaults(model).items() if name not in FROM_ELSEWHERE | OF_ONE_KIND}
    assert section().arguments() == expected


@pytest.mark.parametrize("kind", KINDS)
def test_a_config_of_defaults_builds_what_it_says(kind):
    """Of the smallest size; the configuration that is saved is what the section says, and else the signature's."""
    section = KINDS[kind](base_channels=8, channel_mult=(1,), num_res_blocks=1)
    model = build_model(Config(model=section), 1)
    of_data = {"sample_size": 32, "in_channels": 1, "out_channels": 1, "num_train_timesteps": 1000}
    expected = defaults(section.network) | section.arguments() | of_data
    assert {name: model.config[name] for name in expected} == expected


def test_kinds_fix_what_they_are():
    assert FsddimConfig().arguments()["synaptic_currents"] and not SpikingConfig().arguments()["synaptic_currents"]
    for kind, section in KINDS.items():
        model = section()
        found = (model.T, model.dims, model.neuron, model.temporal_modulation)
        assert found == {"spiking": (4, 2, "if", False), "fsddim": (4, 2, "lif", False), "ann": (1, 2, None, False),
                         "quantized": (1, 2, "quantized_relu", False)}[kind]  # fmt: skip


@pytest.mark.parametrize("name", pretrained_names())
def test_saved_models_have_arguments_of_the_signature(name):
    folder = find_pretrained(name)
    assert folder is not None
    saved = json.loads((folder / "unet" / "config.json").read_text())
    known = defaults({"SpikingUNet2DModel": SpikingUNet2DModel, "ANNUNet2DModel": ANNUNet2DModel}[saved["_class_name"]])
    assert {key for key in saved if not key.startswith("_")} <= set(known)


def test_descriptions_name_what_is_registered():
    fields = SpikingConfig.model_fields
    assert all(name in (fields["neuron"].description or "") for name in NEURONS)
    assert all(name in (fields["surrogate"].description or "") for name in SURROGATES)
