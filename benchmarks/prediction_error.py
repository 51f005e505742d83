"""How well models predict what they were trained to predict, on images that none of them has seen.

    python benchmarks/prediction_error.py DATASET DATA MODEL [MODEL ...] [--images 1024] [--batch-size 64]

DATASET is what they were trained on, by name, and DATA its folder. Mean squared error of epsilon or v, whichever
they predict (compare models of one kind), on test images at diffusion steps spread evenly over all of them; images,
steps and noise are the same for all models, and so a few thousand evaluations rank what samples would take hours to.
In bf16, as they are trained.
"""

import argparse
from pathlib import Path

import torch

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
    print("| model | predicts | error |\n|---|---|---|", flush=True)
    images = None
    for path in args.models:
        pipeline = load_pipeline(path)
        unet, scheduler = pipeline.unet.eval(), pipeline.scheduler
        if images is None:
            config = unet.config
            of_model = {"image_size": config.sample_size, "channels": config.in_channels}
            images = open_dataset(args.dataset, args.data, "test", **of_model).gather(range(args.images))
        steps = scheduler.config.num_train_timesteps
        order = torch.randperm(args.images, generator=torch.Generator().manual_seed(0))
        t = (torch.arange(args.images) * steps // args.images)[order]
        errors = []
        for batch in range(0, args.images, args.batch_size):
            rows = slice(batch, batch + args.batch_size)
            x0, steps_of = to_model(images[rows]), t[rows]
            noise = seeded_noise(range(batch, batch + len(x0)), x0.shape[1:])
            x_t = add_noise(scheduler.alphas_cumprod, x0, noise, steps_of)
            with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
                found = unet(x_t, steps_of).sample.float()
            wanted = target(scheduler.config.prediction_type, scheduler.alphas_cumprod, x0, noise, steps_of)
            errors.append((found - wanted).square().flatten(1).mean(1))
        print(f"| {path.name} | {scheduler.config.prediction_type} | {torch.cat(errors).mean():.5f} |", flush=True)


if __name__ == "__main__":
    main()
