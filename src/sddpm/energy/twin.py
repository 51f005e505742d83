"""The ANN for comparison: the same U-Net with activations instead of spikes."""

from collections.abc import Mapping
from typing import Any

import torch

from sddpm.energy.ledger import Ledger
from sddpm.energy.measure import measure_network
from sddpm.models import ANNUNet2DModel
from sddpm.pipelines import SpikingDiffusionPipeline

SHARED = (
    *("sample_size", "in_channels", "out_channels", "base_channels", "channel_mult", "num_res_blocks", "patch_size"),
    "num_train_timesteps",
)


def ann_twin(config: Mapping[str, Any], middle_attention: bool = False) -> ANNUNet2DModel:
    """An untrained diffusers U-Net with the widths, depth, patches, attention and image size of a spiking network.

    It runs once, where the spiking network runs T time steps.

    Args:
        config: config of the `SpikingUNet2DModel`.
        middle_attention: whether the middle also has an attention block, which no spiking network has.
    """
    shared = {key: config[key] for key in SHARED}
    attention = config.get("attention_resolutions", ())
    return ANNUNet2DModel(**shared, attention_resolutions=attention, middle_attention=middle_attention).eval()


def twin_ledger(pipeline: SpikingDiffusionPipeline) -> Ledger:
    """The ledger of one evaluation of a network's ANN twin. The input does not matter, as no activation is binary."""
    twin = ann_twin(pipeline.unet.config)
    size = twin.config["sample_size"]
    return measure_network(twin, torch.randn(1, twin.config["in_channels"], size, size), 500, "ANN twin")
