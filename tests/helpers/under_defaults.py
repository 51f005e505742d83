"""A program: what networks compute while torch's default dtype or device is another one.

    python -m tests.helpers.under_defaults float16 out.pt

The networks and what they take are made before, as by a program that changes the defaults for reasons of its own.
"""

import copy
import os
import sys

import torch

from sddpm.diffusion.solvers import make_scheduler
from sddpm.inference import compile_model
from sddpm.inference.kernels.spike_conv import VARIABLE as SPIKE_CONV
from sddpm.inference.kernels.spike_conv import choices, unsupported
from sddpm.models import SpikingUNet2DModel
from sddpm.models.training_conv import VARIABLE as TRAINING_CONV
from sddpm.pipelines import SpikingDiffusionPipeline

NETWORKS = {"if": {}, "plif": {"neuron": "plif", "v_reset": None}, "tsm": {"temporal_modulation": True}}


def network(**config) -> SpikingUNet2DModel:
    torch.manual_seed(0)
    sizes = {"sample_size": 16, "in_channels": 1, "out_channels": 1, "base_channels": 16, "channel_mult": (1, 2)}
    model = SpikingUNet2DModel(**{**sizes, "num_res_blocks": 1, "T": 4, **config})
    torch.nn.init.xavier_uniform_(model.readout.conv.weight)
    return model


def sampled(model: SpikingUNet2DModel, x: torch.Tensor, found: dict[str, torch.Tensor], name: str) -> None:
    model.eval()
    with torch.no_grad():
        found[f"{name}, eager"] = model(x, 400).sample
        for kernel in choices():
            if unsupported(kernel) is None:
                os.environ[SPIKE_CONV] = kernel
                for mode in ("exact", "fast"):
                    found[f"{name}, {kernel}, {mode}"] = compile_model(model, mode)(x, 400).sample
    os.environ.pop(SPIKE_CONV, None)


def trained(model: SpikingUNet2DModel, x: torch.Tensor, found: dict[str, torch.Tensor], name: str) -> None:
    for kernel in ("amx", "winograd", "torch"):
        for half in (False, True):
            os.environ[TRAINING_CONV] = kernel
            learner = copy.deepcopy(model).train()
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
                out = learner(x, 400).sample
            out.float().square().mean().backward()
            gradients = [p.grad.flatten() for p in learner.parameters() if p.grad is not None]
            precision = "bf16" if half else "float32"
            found[f"{name}, {kernel}, {precision}"] = torch.cat([out.detach().flatten(), *gradients])
    os.environ.pop(TRAINING_CONV, None)


def computed(default: str) -> dict[str, torch.Tensor]:
    """Samples, training steps and images, by name, under a default dtype, or under the default device "meta"."""
    models = {name: network(**config) for name, config in NETWORKS.items()}
    x = torch.randn(8, 1, 16, 16, generator=torch.Generator().manual_seed(1))
    pipeline = SpikingDiffusionPipeline(network().eval(), make_scheduler("ddim"))
    if default == "meta":
        torch.set_default_device("meta")
    else:
        torch.set_default_dtype(getattr(torch, default))
    found: dict[str, torch.Tensor] = {}
    for name, model in models.items():
        trained(model, x, found, name)
        sampled(model, x, found, name)
    for engine in ("eager", "exact"):
        images = pipeline(2, num_inference_steps=2, engine=engine, output_type="pt", progress=False).images
        found[f"pipeline, {engine}"] = images
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.save(computed(sys.argv[1]), sys.argv[2])
