"""Peak memory of `sddpm stats` and of every metric, for few and for many images.

    python benchmarks/evaluation_memory.py

Each measurement runs in its own process, whose peak resident memory is read from the system. The images are random
32x32 colour pictures, as a folder of PNG and as an .npz. Their features are FSVAE's latents, because Inception would
need hours (`sddpm stats`), or random vectors of Inception's lengths (metrics, which only use features).
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

LENGTHS = {"pool": 2048, "logits": 1008}


def write_images(folder: Path, count: int) -> None:
    import numpy as np
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), np.uint8)
    np.savez(folder / f"{count}.npz", pixels)
    (folder / f"{count}").mkdir()
    for i, image in enumerate(pixels):
        Image.fromarray(image).save(folder / f"{count}" / f"{i:06d}.png")


def write_weights(path: Path) -> None:
    import torch

    from sddpm.evaluation.features.fad import FadEncoder

    torch.save(FadEncoder(3).state_dict(), path)


def shards(folder: Path, side: str, length: int, count: int):
    from sddpm.evaluation.shards import Shards

    return Shards(folder / f"{side}-{length}-{count}", count, 256)


def write_features(folder: Path, side: str, length: int, count: int) -> None:
    import numpy as np

    rng = np.random.default_rng(len(side))
    rows = shards(folder, side, length, count)
    for i in rows.missing():
        start, stop = rows.bounds[i]
        rows.write(i, rng.normal(size=(stop - start, length)).astype(np.float32))


def metric(folder: Path, name: str, interval: bool, count: int) -> None:
    """One metric of `count` samples against as many reference images."""
    from sddpm.evaluation.metrics import METRICS, Features

    chosen = METRICS[name]
    length = LENGTHS[chosen.features]
    sides = ["samples"] if chosen.against == "nothing" else ["samples", "reference"]
    chosen.compute(*(Features(side, shards(folder, side, length, count)) for side in sides), interval=interval)


def statistics(folder: Path, images: str) -> None:
    """`sddpm stats` of a folder or an .npz."""
    from sddpm.evaluation import StatisticsSettings, build_statistics

    weights = folder / "fad.pth"
    out = folder / f"{images}-statistics.npz"
    build_statistics(StatisticsSettings(str(folder / images), out, fad_weights=weights, work=folder / "work"))


def peak(folder: Path, *what: str) -> float:
    """Peak MB of a process for the measurement `what` only."""
    command = [sys.executable, __file__, "--in", str(folder), "--one", *what]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        sys.exit(done.stderr)
    return float(done.stdout.splitlines()[-1])


def one(folder: Path, kind: str, *what: str) -> None:
    if kind == "statistics":
        statistics(folder, what[0])
    elif kind == "metric":
        metric(folder, what[0], what[1] == "interval", int(what[2]))
    else:
        import sddpm.evaluation.run  # noqa: F401  what is there before the first image
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def table(folder: Path, few: int, few_features: int, many: int) -> None:
    write_weights(folder / "fad.pth")
    for count in (few, many):
        write_images(folder, count)
    print(f"nothing but the program: {peak(folder, 'nothing'):.0f} MB")
    for suffix, words in (("", "folder of PNG"), (".npz", ".npz")):
        found = [peak(folder, "statistics", f"{count}{suffix}") for count in (few, many)]
        print(f"sddpm stats of a {words}: {few:,} images {found[0]:.0f} MB, {many:,} images {found[1]:.0f} MB")
    for count in (few_features, many):
        for side in ("samples", "reference"):
            for length in LENGTHS.values():
                write_features(folder, side, length, count)
    for name in ("fid", "kid", "precision", "recall", "is"):
        for interval in ("", "interval"):
            found = [peak(folder, "metric", name, interval, str(count)) for count in (few_features, many)]
            words = f"{name} with interval" if interval else name
            print(
                f"{words}: {few_features:,} vectors {found[0]:.0f} MB, {many:,} vectors {found[1]:.0f} MB", flush=True
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--few", type=int, default=500, help="images")
    parser.add_argument("--few-features", type=int, default=2500, help="vectors; FID needs more than 2,048")
    parser.add_argument("--many", type=int, default=50_000)
    parser.add_argument("--in", dest="folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--one", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        one(arguments.folder, *arguments.one)
        return
    with tempfile.TemporaryDirectory() as folder:  # 2 GB of disk for the default numbers
        table(Path(folder), arguments.few, arguments.few_features, arguments.many)


if __name__ == "__main__":
    main()
