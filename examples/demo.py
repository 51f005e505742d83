"""What `make demo` runs after the first pictures: the recipe in small, on the bundled digits, in minutes on 2 cores.

    python examples/demo.py [OUT]

The same commands train a larger network (docs/measurements/recipe.md): a network with quantised activations, its
conversion into spikes, and some steps in spikes. Writes to OUT (out/demo; OUT-2 if OUT has a demo): quantized/ and run/
(the trainings), spikes/ (the converted network), samples.png (a row for each digit), denoising.png (how four of them
come out of noise) and nearest.png (each sample beside the training image nearest to it in pixels).
"""

import subprocess
import sys
from itertools import count
from pathlib import Path

import torch

from sddpm import open_dataset
from sddpm.data import nearest_images, unit_to_uint8
from sddpm.figures.grid import denoising_strip, side_by_side
from sddpm.pipelines import DenoisingRecorder, load_pipeline

DIGITS = ["6", "2", "8", "3"]
WRITTEN = ("quantized", "run", "spikes", "samples.png", "denoising.png", "nearest.png")
SPACIOUS = {"scale": 4, "padding": 6}


def sddpm(*words: object) -> None:
    """Run a command of the package, and show it first."""
    arguments = [str(word) for word in words]
    print("\n$ sddpm", *arguments, flush=True)
    subprocess.run([sys.executable, "-m", "sddpm", *arguments], check=True)


def fresh_folder(out: Path) -> Path:
    """OUT, OUT-2, ...: the first without anything that the demo writes, so that nothing is replaced."""
    folders = (out if i == 1 else out.with_name(f"{out.name}-{i}") for i in count(1))
    return next(folder for folder in folders if not any((folder / name).exists() for name in WRITTEN))


def main(out: Path) -> None:
    out = fresh_folder(out)
    quantized, spikes, run = out / "quantized", out / "spikes", out / "run"
    # 1. most of the training without time steps, the rest in spikes
    sddpm("train", "digits_quantized", "--out", quantized)
    sddpm("convert-ann", quantized, spikes, "--T", 4)
    settings = ["--set", "train.steps=150", "--set", "train.lr=5e-4", "--set", "train.warmup_steps=10"]
    sddpm("train", spikes / "config.yaml", "--init-from", spikes, "--out", run, *settings)
    # 2. a row for each digit
    sampler = ["--solver", "dpm++", "--steps", 20, "--guidance-scale", 1.5]
    sddpm("sample", run, "--class", "all", "--count", 10, *sampler, "--out", out / "samples.png", "--scale", 3)
    # 3. how they come about, and whether they are copies
    pipeline, real = load_pipeline(run), open_dataset("digits", image_size=16)
    recorder = DenoisingRecorder()
    options = {"num_inference_steps": 20, "solver": "dpm++", "guidance_scale": 1.5, "output_type": "pt"}
    drawn = pipeline(seeds=range(4), class_labels=DIGITS, callback=recorder, **options)
    samples = unit_to_uint8(torch.as_tensor(drawn.images))
    indices, _ = nearest_images(samples, real)
    denoising_strip(*recorder.frames(), padding=4).save(out / "denoising.png")
    panels = [("sample", samples), ("nearest real", real.gather(indices[:, 0]))]
    side_by_side(panels, **SPACIOUS).save(out / "nearest.png")
    print(f"look at {', '.join(str(out / name) for name in ('samples.png', 'denoising.png', 'nearest.png'))}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "out/demo"))
