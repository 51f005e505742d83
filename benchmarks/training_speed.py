"""The training speed of the small configs on this machine, in images per second.

    python benchmarks/training_speed.py DATA [--steps 40]

DATA contains mnist/, fashion-mnist/, cifar10/ and celeba64/ (missing ones are left out). Each config trains in a folder
that is deleted afterwards; printed is the median over intervals of 10 steps, without the first interval.
"""

import argparse
import os
import statistics
import tempfile
from pathlib import Path

import torch

from sddpm.neurons.kernels import describe
from sddpm.training import load_config, read_metrics, train

CONFIGS = {"mnist": "mnist_small", "fashion-mnist": "fashion_mnist_small", "cifar10": "cifar10_small",
           "celeba64": "celeba64_small"}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--steps", type=int, default=40)
    args = parser.parse_args()
    print(f"{torch.get_num_threads()} threads on {os.cpu_count()} cores, torch {torch.__version__}, {describe()}")
    for folder, name in CONFIGS.items():
        if not (args.data / folder).exists():
            continue
        options = {
            "train.steps": args.steps,
            "train.log_every": 10,
            "train.sample_every": 0,
            "train.tensorboard": False,
        }
        settings = [f"data.path={args.data / folder}", *(f"{key}={value}" for key, value in options.items())]
        with tempfile.TemporaryDirectory() as run:
            train(load_config(name, settings), run, progress=False)
            speeds = [row["images_per_second"] for row in read_metrics(run)][1:]
        print(f"{name:22} {statistics.median(speeds):6.1f} images/s")


if __name__ == "__main__":
    main()
