"""Networks of all kinds to export, and inputs for them."""

import torch

from sddpm.models import SpikingUNet2DModel

SMALL = {"sample_size": 8, "in_channels": 1, "out_channels": 1, "base_channels": 8, "channel_mult": (1, 2)}


def calibrated(kind=SpikingUNet2DModel, **config):
    """A random network in float64, in evaluation mode, whose batch norms know what they see."""
    torch.manual_seed(0)
    model = kind(**{**SMALL, "num_res_blocks": 1, **config}).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = None
        model.train()(*inputs(model, 8))
    return model.eval()


def inputs(model, batch):
    config = model.config
    size = (config["sample_size"],) * config.get("dims", 2)
    x = torch.randn(batch, config["in_channels"], *size, generator=torch.Generator().manual_seed(batch))
    x = x.expand(config["T"], *x.shape) if config.get("synaptic_currents") else x
    classes = config["num_classes"]
    given = (x.to(model.dtype), torch.arange(batch) * 100 % config["num_train_timesteps"])
    return given if classes is None else (*given, torch.arange(batch) % (classes + 1))
