"""The prediction error of models on test images.

    python benchmarks/prediction_error.py DATASET DATA MODEL [MODEL ...] [--images 1024] [--batch-size 64]

DATASET is the name of their training data, and DATA its folder. Prints the mean squared error of epsilon or v,
whichever they predict (compare models of one kind), on test images at diffusion steps spread evenly over the schedule.
Images, steps and noise are the same for all models, so a few thousand evaluations give a ranking that samples would
need hours for. In bf16, as in training.
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sddpm import load_pipeline
from sddpm.data import open_dataset, to_model
from sddpm.diffusion.noise import seeded_noise
from sddpm.diffusion.objectives import target
from sddpm.diffusion.schedule import add_noise


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("data", type=Path)
    parser.add_argument("models", type=Path, nargs="+")
    parser.add_argument("--images", type=int, default=1024)
    parser.add_argument("--batch-size", type=int, default=64)
    args = parser.parse_args()
    pipelines = {path: load_pipeline(path) for path in args.models}
    config = next(iter(pipelines.values())).unet.config
    of_model = {"image_size": config.sample_size, "channels": config.in_channels}
    images = open_dataset(args.dataset, args.data, "test", **of_model).gather(range(args.images))
    print("| model | predicts | error |\n|---|---|---|", flush=True)
    for path, pipeline in pipelines.items():
        error = prediction_error(pipeline.unet.eval(), pipeline.scheduler, images, args.batch_size)
        print(f"| {path.name} | {pipeline.scheduler.config.prediction_type} | {error:.5f} |", flush=True)


def prediction_error(unet: Any, scheduler: Any, images: Tensor, batch_size: int) -> float:
    count, steps = len(images), scheduler.config.num_train_timesteps
    t = (torch.arange(count) * steps // count)[torch.randperm(count, generator=torch.Generator().manual_seed(0))]
    noise = seeded_noise(range(count), images.shape[1:])
    x0 = to_model(images)
    x_t = add_noise(scheduler.alphas_cumprod, x0, noise, t)
    wanted = target(scheduler.config.prediction_type, scheduler.alphas_cumprod, x0, noise, t)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        batches = zip(x_t.split(batch_size), t.split(batch_size), strict=True)
        found = torch.cat([unet(x, steps_of).sample.float() for x, steps_of in batches])
    return (found - wanted).square().mean().item()


if __name__ == "__main__":
    main()
