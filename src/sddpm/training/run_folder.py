"""The folder of a run: config.yaml, metrics.jsonl, samples/, checkpoints/ and model/."""

from pathlib import Path

import numpy as np
from PIL import Image

from sddpm.errors import UserError
from sddpm.files import atomic_path
from sddpm.pipelines import SpikingDiffusionPipeline
from sddpm.training.checkpoint import remove_unfinished
from sddpm.training.config import Config
from sddpm.training.config_files import to_yaml


def check_run_folder(run_dir: Path, resume: bool) -> None:
    """Raise `UserError` if a new run would mix with what is there."""
    if run_dir.exists() and not run_dir.is_dir():
        raise UserError(f"{run_dir} is a file; a run needs a folder")
    if not resume and run_dir.is_dir() and any(run_dir.iterdir()):
        raise UserError(f"{run_dir} is not empty: add --resume to continue the run in it, or choose another --out")


def open_run_folder(run_dir: Path, config: Config) -> None:
    """Make the folder, remove what a killed process left half-written, and save the resolved config."""
    remove_unfinished(run_dir)
    with atomic_path(run_dir / "config.yaml") as temporary:
        temporary.write_text(to_yaml(config), encoding="utf-8")


def save_model(run_dir: Path, pipeline: SpikingDiffusionPipeline) -> None:
    """Write the pipeline to model/, in place of the one before."""
    with atomic_path(run_dir / "model") as temporary:
        pipeline.save_pretrained(temporary, safe_serialization=True)


def save_samples(run_dir: Path, pipeline: SpikingDiffusionPipeline, step: int, count: int, solver_steps: int) -> None:
    """Sample `count` images with DDIM, the same seeds at every call, into samples/step-*.png."""
    images = pipeline(seeds=range(count), num_inference_steps=solver_steps, output_type="np", progress=False).images
    with atomic_path(run_dir / "samples" / f"step-{step:07d}.png") as temporary:
        Image.fromarray(_tile(np.asarray(images))).save(temporary)


def _tile(images: np.ndarray) -> np.ndarray:
    """[N, H, W, C] in [0, 1] -> one uint8 picture, as square as can be, with gaps of 2 pixels."""
    count, height, width, channels = images.shape
    columns = int(np.ceil(np.sqrt(count)))
    rows = -(-count // columns)
    grid = np.full((rows * (height + 2) + 2, columns * (width + 2) + 2, channels), 255, np.uint8)
    for i, image in enumerate(images):
        y, x = 2 + i // columns * (height + 2), 2 + i % columns * (width + 2)
        grid[y : y + height, x : x + width] = np.rint(image * 255)
    return grid[..., 0] if channels == 1 else grid
