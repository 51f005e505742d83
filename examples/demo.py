"""The demo of `make demo`: train on the bundled digits, sample, and draw the results, in a few minutes on 2 CPU cores.

    python examples/demo.py [OUT]

writes to OUT (out/demo): run/ (the training run), samples.png (samples next to real digits), denoising.png (four of
them during denoising) and nearest.png (each sample next to the training image nearest to it in pixels).
"""

import shutil
import sys
from pathlib import Path

import torch

from sddpm import open_dataset
from sddpm.data import nearest_images, unit_to_uint8
from sddpm.figures.grid import denoising_strip, side_by_side
from sddpm.pipelines import DenoisingRecorder, load_pipeline
from sddpm.training import load_config, train

SAMPLES = 36
SPACIOUS = {"scale": 5, "padding": 8}  # 8 x 8 digits fill their images and need space between them


def main(out: Path) -> None:
    run = out / "run"
    shutil.rmtree(run, ignore_errors=True)
    train(load_config("digits"), run)

    # 1. sample, with the averaged weights that the run saved
    pipeline = load_pipeline(run)
    recorder = DenoisingRecorder()
    images = pipeline(seeds=range(SAMPLES), num_inference_steps=50, solver="ddim", output_type="pt", callback=recorder)
    samples = unit_to_uint8(torch.as_tensor(images.images))

    # 2. draw
    real = open_dataset("digits")
    shuffled = torch.randperm(len(real), generator=torch.Generator().manual_seed(0))[:SAMPLES]
    indices, _ = nearest_images(samples[:16], real)
    pictures = {
        "samples.png": side_by_side([("samples", samples), ("real digits", real.gather(shuffled))], **SPACIOUS),
        "denoising.png": denoising_strip(*recorder.frames(), padding=4),
        "nearest.png": side_by_side(
            [("sample", samples[:16]), ("nearest real", real.gather(indices[:, 0]))], **SPACIOUS
        ),
    }
    for name, picture in pictures.items():
        picture.save(out / name)
    print(f"the pictures are {', '.join(str(out / name) for name in pictures)}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "out/demo"))
