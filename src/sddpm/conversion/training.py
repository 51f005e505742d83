"""Continues the training of a converted network: like any spiking network, with its original model as teacher."""

from collections.abc import Mapping
from typing import Any

from sddpm.training.config import Config, SpikingConfig


def continued_config(config: Config, spiking: Mapping[str, Any]) -> Config:
    """The config of the run that trained the network with quantised activations, for the spiking network converted from
    it.

    Args:
        config: config of that run.
        spiking: configuration of the `SpikingUNet2DModel` that `convert_ann` returned.
    """
    model = SpikingConfig(**{key: spiking[key] for key in SpikingConfig.model_fields if key != "kind"})
    return config.model_copy(update={"model": model})
