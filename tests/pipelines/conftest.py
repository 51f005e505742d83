"""A small spiking pipeline, shared by the tests of this folder."""

import pytest
import torch

from sddpm.diffusion.solvers import make_scheduler
from sddpm.models import SpikingUNet2DModel
from sddpm.pipelines import SpikingDiffusionPipeline


@pytest.fixture
def spiking() -> SpikingDiffusionPipeline:
    torch.manual_seed(0)
    model = SpikingUNet2DModel(
        sample_size=8, in_channels=1, out_channels=1, base_channels=8, channel_mult=(1, 2), num_res_blocks=1, T=2
    )
    with torch.no_grad():  # an untrained readout answers almost nothing, which would make all models look alike
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return SpikingDiffusionPipeline(model, make_scheduler("ddim", beta_schedule="cosine"))
