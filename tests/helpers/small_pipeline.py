"""A small pipeline of any kind, whose network answers something."""

import torch

from sddpm.diffusion.solvers import make_scheduler
from sddpm.models import SpikingUNet2DModel
from sddpm.pipelines import SpikingDiffusionPipeline

SMALL = {"sample_size": 8, "in_channels": 1, "out_channels": 1, "base_channels": 8, "channel_mult": (1, 2)}


def pipeline_of(solver="ddim", scale=None, names=None, spread=None, timesteps=None, **config):
    """A model of few weights that are not all zero. timesteps: of a model distilled to these."""
    torch.manual_seed(0)
    model = SpikingUNet2DModel(**{**SMALL, "num_res_blocks": 1, "T": 2, **config})
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    kept = {} if timesteps is None else {"timesteps": timesteps, "distilled": True}
    kept |= {"num_train_timesteps": model.config["num_train_timesteps"]}
    scheduler = make_scheduler(solver, beta_schedule="cosine", prediction_type="v_prediction", **kept)
    return SpikingDiffusionPipeline(model, scheduler, None, names, spread, scale).to("cpu")
