"""How good is the repainted half of real images? Compared with model-free baselines on Fashion-MNIST's test images.

    sddpm inpaint MODEL fashion-mnist:test --mask right --count 200 --draws 1 --out painted.npz ...
    sddpm sample MODEL --count 200 --out samples.npz ...
    python benchmarks/inpainting_error.py FASHION_MNIST_FOLDER painted.npz samples.npz OUT_FOLDER

Prints the root mean squared error of the right half, in grey levels, with its standard error over images: for the
repainting; for the mean of 10,000 training images; for the mirrored left half; for the right half of an unrelated
sample. Writes each as OUT_FOLDER/NAME.npz for `sddpm evaluate`, and the images themselves as real.npz.
"""

import sys
from pathlib import Path

import numpy as np

from sddpm.data import open_dataset

HALF = 16


def main(folder: str, painted_file: str, samples_file: str, out: str) -> None:
    with np.load(painted_file) as painted, np.load(samples_file) as samples:
        ways = {"painted": painted["arr_0"][..., 0], "sampled": samples["arr_0"][..., 0]}
    count = len(ways["painted"])
    test = open_dataset("fashion-mnist", folder, split="test", image_size=2 * HALF, limit=count)
    train = open_dataset("fashion-mnist", folder, image_size=2 * HALF, limit=10_000)
    real = test.gather(range(count))[:, 0].numpy()
    ways["mean"] = np.broadcast_to(train.gather(range(len(train))).double().mean((0, 1)).round().numpy(), real.shape)
    ways["mirrored"] = real[:, :, ::-1]
    assert (ways["painted"][:, :, :HALF] == real[:, :, :HALF]).all()
    Path(out).mkdir(exist_ok=True)
    np.savez(Path(out, "real.npz"), arr_0=real)
    for name, images in ways.items():
        whole = np.concatenate([real[:, :, :HALF], images[:, :, HALF:].astype(np.uint8)], axis=2)
        np.savez(Path(out, f"{name}.npz"), arr_0=whole)
        errors = ((whole.astype(float) - real)[:, :, HALF:] ** 2).mean((1, 2))
        mean, error = errors.mean(), errors.std(ddof=1) / len(errors) ** 0.5
        print(f"{name}: {mean**0.5:.1f} +- {error / (2 * mean**0.5):.1f} grey levels")


if __name__ == "__main__":
    main(*sys.argv[1:])
