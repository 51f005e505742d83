"""The folder of a run: config.yaml, history.yaml, metrics.jsonl, loss.png, modulation.png, samples/, checkpoints/,
snapshots/ and model/."""

from pathlib import Path

import torch
from torch import nn

from sddpm.data import unit_to_uint8
from sddpm.errors import UserError
from sddpm.figures.curves import loss_curve
from sddpm.figures.grid import image_grid
from sddpm.figures.modulation import modulation_figure
from sddpm.figures.signals import signal_grid
from sddpm.files import atomic_path
from sddpm.files.kinds import RUN_PARTS
from sddpm.files.lock import LOCK
from sddpm.files.outputs import check_utf8
from sddpm.models.modulation import modulation_scales
from sddpm.pipelines import SpikingDiffusionPipeline, load_pipeline
from sddpm.training.checkpoint import list_checkpoints, remove_unfinished
from sddpm.training.config import Config
from sddpm.training.config_files import to_yaml
from sddpm.training.metrics import read_metrics


def check_run_folder(run_dir: Path, config: Config, resume: bool) -> None:
    """Raise `UserError` if a new run of this config would mix with existing files, or its folder cannot be written."""
    check_utf8(run_dir)
    if run_dir.exists() and not run_dir.is_dir():
        raise UserError(f"{run_dir} is a file; a run needs a folder")
    if resume or not run_dir.is_dir():
        return
    names = {path.name for path in run_dir.iterdir() if not path.name.startswith(LOCK)}
    if names and not _stillborn(run_dir, names, config):
        raise UserError(
            f"{run_dir} is not empty: add `resume=True` to continue the run in it, or choose another folder"
        )


def _stillborn(run_dir: Path, names: set[str], config: Config) -> bool:
    """Whether a folder holds only the files of a run of this config that ended before its first checkpoint, which can
    start again. Another config, or metrics of later steps, are somebody's own."""
    known = (RUN_PARTS - {"model"}).union(name for name in names if name.startswith("."))
    if "config.yaml" not in names or not names <= known or list_checkpoints(run_dir):
        return False
    rows = read_metrics(run_dir) if "metrics.jsonl" in names else []
    first = min(config.train.checkpoint_every, config.train.steps)
    return (run_dir / "config.yaml").read_bytes() == _written(config) and all(row["step"] <= first for row in rows)


def _written(config: Config) -> bytes:
    """The content of a run's config.yaml."""
    return to_yaml(config).encode()


def open_run_folder(run_dir: Path, config: Config) -> None:
    """Remove incomplete files of a killed process, and save the resolved config."""
    remove_unfinished(run_dir)
    with atomic_path(run_dir / "config.yaml") as temporary:
        temporary.write_bytes(_written(config))


def save_model(run_dir: Path, pipeline: SpikingDiffusionPipeline) -> None:
    """Write the pipeline to model/, replacing the previous one."""
    with atomic_path(run_dir / "model", owned=True) as temporary:
        pipeline.save_pretrained(temporary, safe_serialization=True)


def holds_model(run_dir: Path, unet: nn.Module) -> bool:
    """Whether model/ is intact and has the weights of `unet`."""
    try:
        saved = load_pipeline(run_dir / "model").unet.state_dict()
    except UserError:
        return False
    weights = unet.state_dict()
    return saved.keys() == weights.keys() and all(torch.equal(saved[name], weights[name].cpu()) for name in saved)


def save_samples(
    run_dir: Path, pipeline: SpikingDiffusionPipeline, step: int, count: int, solver_steps: int | None
) -> None:
    """Sample `count` images with DDIM into samples/step-*.png, always with the same seeds and all classes in turn. None
    for the model's own steps."""
    classes = pipeline.num_classes
    labels = None if classes is None else [i % classes for i in range(count)]
    output = pipeline(
        seeds=range(count),
        class_labels=labels,
        num_inference_steps=solver_steps,
        output_type="pt",
        progress=False,
    )
    images = torch.as_tensor(output.images)
    with atomic_path(run_dir / "samples" / f"step-{step:07d}.png") as temporary:
        if pipeline.signal_range is None:
            image_grid(unit_to_uint8(images), scale=None).save(temporary)
        else:
            signal_grid(images).savefig(temporary)


def save_modulation(run_dir: Path, pipeline: SpikingDiffusionPipeline) -> None:
    """Draw the scales of temporal modulation into modulation.png, if the model has any."""
    scales = modulation_scales(pipeline.unet)
    if not scales:
        return
    with atomic_path(run_dir / "modulation.png") as temporary:
        modulation_figure({name: p.tolist() for name, p in scales.items()}).savefig(temporary)


def save_loss_curve(run_dir: Path) -> None:
    """Plot metrics.jsonl into loss.png, if there is anything to plot."""
    rows = [row for row in read_metrics(run_dir) if row.get("loss", 0) > 0]
    if not rows:
        return
    figure = loss_curve({run_dir.resolve().name: ([row["step"] for row in rows], [row["loss"] for row in rows])})
    with atomic_path(run_dir / "loss.png") as temporary:
        figure.savefig(temporary)
