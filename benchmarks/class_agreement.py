"""How often does a classifier assign the requested class? A linear one, on 8 x 8 means, trained on Fashion-MNIST.

    sddpm sample RUN --class all --count 8 --guidance-scale 2 --out samples.npz
    python benchmarks/class_agreement.py FASHION_MNIST_FOLDER samples.npz [...]

Prints how many real test images it classifies correctly, and the same for the samples in each .npz.
"""

import sys

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sddpm.data import open_dataset


def features(images: Tensor) -> Tensor:
    """uint8 [N, 1, 32, 32] -> [N, 65]: means over 4 x 4 pixels, which suppress a sample's noise, and 1."""
    means = F.avg_pool2d(images.float() / 255, 4).flatten(1)
    return torch.cat([means, torch.ones(len(means), 1)], dim=1)


def main(folder: str, *files: str) -> None:
    train, test = (
        open_dataset("fashion-mnist", folder, split=split, image_size=32, limit=limit)
        for split, limit in (("train", 20_000), ("test", 4_000))
    )
    assert train.labels is not None and test.labels is not None
    x, y = features(train.gather(range(len(train)))), F.one_hot(train.labels).float()
    weights = torch.linalg.solve(x.T @ x + 1e-2 * torch.eye(x.shape[1]), x.T @ y)

    def report(name: str, images: Tensor, labels: Tensor) -> None:
        right = ((features(images) @ weights).argmax(1) == labels).sum().item()
        print(f"{name}: {right} of {len(labels)} ({100 * right / len(labels):.1f} %)")

    report("real test images", test.gather(range(len(test))), test.labels)
    for file in files:
        with np.load(file) as stored:
            report(file, torch.from_numpy(stored["arr_0"]).permute(0, 3, 1, 2), torch.from_numpy(stored["arr_1"]))


if __name__ == "__main__":
    main(*sys.argv[1:])
