"""Real one-dimensional signals: the brightness of Fashion-MNIST's pieces of clothing by row and by column.

    python examples/profiles.py FASHION_MNIST_FOLDER profiles.npz
    sddpm train clothing_profiles --data profiles.npz

Writes labels, and signals [60000, 2, 28]: mean grey values from 0 to 1, of each row (channel 0) and column (channel 1).
"""

import sys

import numpy as np

from sddpm.data import open_dataset
from sddpm.files import atomic_path


def main(folder: str, out: str) -> None:
    dataset = open_dataset("fashion-mnist", folder)
    images = dataset.gather(range(len(dataset)))[:, 0].float() / 255
    signals = np.stack([images.mean(2).numpy(), images.mean(1).numpy()], axis=1)
    with atomic_path(out) as path:
        np.savez(path, signals=signals, labels=dataset.labels.numpy())
    print(f"{out}: {len(signals):,} signals {list(signals.shape[1:])}")


if __name__ == "__main__":
    main(*sys.argv[1:])
