"""Checks whether a model copies: draws samples next to the training images nearest to them in pixels.

python examples/nearest.py MODEL DATASET OUT.png [--data FOLDER] [--count 16] [--steps 50]
"""

import argparse
from pathlib import Path

import torch

from sddpm import open_dataset
from sddpm.data import nearest_images, unit_to_uint8
from sddpm.figures.grid import side_by_side
from sddpm.pipelines import load_pipeline


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="saved model or training run")
    parser.add_argument("dataset", help="name of the data set it was trained on")
    parser.add_argument("out", type=Path, help="picture to write")
    parser.add_argument("--data", help="location of the data")
    parser.add_argument("--count", type=int, default=16)
    parser.add_argument("--steps", type=int, default=50)
    args = parser.parse_args()

    pipeline = load_pipeline(args.model)
    config = pipeline.unet.config
    dataset = open_dataset(args.dataset, args.data, image_size=config.sample_size, channels=config.in_channels)
    images = pipeline(seeds=range(args.count), num_inference_steps=args.steps, solver="ddim", output_type="pt").images
    samples = unit_to_uint8(torch.as_tensor(images))
    indices, distances = nearest_images(samples, dataset)
    side_by_side([("sample", samples), ("nearest training image", dataset.gather(indices[:, 0]))], scale=2).save(
        args.out
    )
    # The distance between a training image and the nearest other one is the scale for this data set.
    own = dataset.gather(torch.linspace(0, len(dataset) - 1, args.count).long())
    others = nearest_images(own, dataset, k=2)[1][:, 1]
    print(f"median distance to the nearest training image: {distances[:, 0].median():.0f} for samples, "
          f"{others.median():.0f} for training images among themselves")  # fmt: skip


if __name__ == "__main__":
    main()
