"""`train`: trains a model from a config and writes it to a run folder."""

from contextlib import closing, nullcontext
from dataclasses import astuple, dataclass
from pathlib import Path

from accelerate import Accelerator
from torch import nn

from sddpm.data import ImageDataset
from sddpm.data.classes import use_class_order
from sddpm.data.open import open_configured
from sddpm.data.signals import SignalDataset
from sddpm.errors import UserError, out_of_memory
from sddpm.files.lock import locked
from sddpm.models.batch_norm import synchronize_batch_norm
from sddpm.pipelines.resolving import kept_class_names
from sddpm.training.allocator import keep_large_buffers
from sddpm.training.assignment import assignment_solver
from sddpm.training.batches import check_labels, share_of_batch, training_batches
from sddpm.training.checkpoint import newest_checkpoint, restore
from sddpm.training.config import Config
from sddpm.training.config_files import changed_keys
from sddpm.training.firing_rates import rate_targets
from sddpm.training.history import stages_of, write_history
from sddpm.training.loop import Loop
from sddpm.training.noise import noise_schedule, walk_timesteps
from sddpm.training.processes import is_first_process, make_accelerator
from sddpm.training.run_folder import check_run_folder, open_run_folder
from sddpm.training.snapshots import drop_later_snapshots
from sddpm.training.start import load_weights
from sddpm.training.state import build_model, make_state
from sddpm.training.teacher import load_teacher


@dataclass(frozen=True)
class TrainResult:
    """run_dir: the run folder; step: completed optimiser steps; loss: mean between the last two lines of metrics.jsonl;
    stopped_by: "steps" (all are done), "SIGINT" or "SIGTERM"; began: steps completed before this call."""

    run_dir: Path
    step: int
    loss: float
    stopped_by: str
    began: int = 0


def check_dims(dataset: ImageDataset, config: Config) -> None:
    """Raise `UserError` if the model is for images and the data are signals, or vice versa."""
    signals, dims = isinstance(dataset, SignalDataset), config.model.dims
    if signals != (dims == 1):
        kind = "signals: they need model.dims=1" if signals else "images: they need model.dims=2"
        raise UserError(f"the data of {dataset.name} are {kind}")
    if signals and dataset.image_size != config.data.image_size:
        raise UserError(f"the signals of {dataset.name} have {dataset.image_size} samples: set data.image_size to that")


def described(dataset: ImageDataset) -> tuple[str, str]:
    """What the examples of a data set are, "images" or "signals", and their shape in words."""
    sides = 1 if isinstance(dataset, SignalDataset) else 2
    shape = " x ".join(map(str, (dataset.channels, *[dataset.image_size] * sides)))
    return "signals" if sides == 1 else "images", shape


def train(
    config: Config,
    run_dir: str | Path,
    *,
    resume: bool = False,
    init_from: str | Path | None = None,
    device: str = "auto",
    progress: bool = True,
) -> TrainResult:
    """Train a spiking diffusion model, in this process or in several that torchrun started.

    No random state is carried from step to step: a run that is stopped and resumed gives bit-identical results to an
    uninterrupted one, on the same machine with the same number of threads.

    Args:
        config: as in `load_config`.
        run_dir: new or empty folder for config, metrics, samples, checkpoints and the model; or what a run of the same
            config left that ended before its first checkpoint.
        resume: continue the run in `run_dir` from its newest checkpoint.
        init_from: saved model or run whose weights are the start.
        device: "auto", "cpu", "cuda" or "mps".
        progress: whether to print progress to stderr.

    Raises:
        UserError: bad input, a loss that is not finite, or a full disk. Existing checkpoints are not changed.
    """
    run_dir = Path(run_dir)
    if resume and init_from is not None:
        raise UserError("`resume` continues with the run's weights, `init_from` starts from other weights: choose one")
    check_run_folder(run_dir, config, resume)
    with locked(run_dir) if is_first_process() else nullcontext():
        return _train(config, run_dir, resume=resume, init_from=init_from, device=device, progress=progress)


def _train(
    config: Config, run_dir: Path, *, resume: bool, init_from: str | Path | None, device: str, progress: bool
) -> TrainResult:
    """As `train`, in a run folder that no other process writes to."""
    check_run_folder(run_dir, config, resume)
    checkpoint = newest_checkpoint(run_dir) if resume else None
    if checkpoint and (changed := changed_keys(checkpoint[1]["config"], config.to_dict())):
        raise UserError(f"the run in {run_dir} has other values of {', '.join(changed)}: resume with its config.yaml")
    noise_schedule(config.diffusion)  # raises for invalid betas before anything is written
    if config.distill is not None:
        walk_timesteps(config.diffusion, config.distill)  # likewise for evaluations that coincide
    accelerator = make_accelerator(device, config.train.precision, config.train.compile)
    rows = share_of_batch(
        config.train.batch_size, config.train.accumulation, accelerator.process_index, accelerator.num_processes
    )
    if accelerator.device.type == "cpu":
        keep_large_buffers()
    dataset = open_configured(config.data)
    if (earlier := init_from or (run_dir if checkpoint else None)) is not None:
        use_class_order(dataset, kept_class_names(earlier))
    check_labels(dataset, config.model.num_classes)
    if config.train.assign_noise:
        assignment_solver()  # raises if scipy is missing before anything is written
    check_dims(dataset, config)
    model = build_model(config, dataset.channels)
    changes = load_weights(model, init_from) if init_from is not None else []
    before = stages_of(init_from) if init_from is not None else []
    if config.train.rate_penalty:
        rate_targets(model, config.train.rate_target)  # raises for names that match no layer
    teacher = load_teacher(config, accelerator, model.config)
    synchronize_batch_norm(model, config.train.sync_batch_norm)
    state = make_state(model, config, accelerator.device)
    if checkpoint:
        restore(state, *checkpoint, accelerator.device)
    accelerator.wait_for_everyone()  # until all processes have checked the folder
    if accelerator.is_main_process:
        open_run_folder(run_dir, config)
        drop_later_snapshots(run_dir, state.step)
        if not checkpoint:
            write_history(run_dir, before)
    about = {
        "class_names": None if config.model.num_classes is None else dataset.class_names,
        "signal_range": astuple(dataset.signal_range) if isinstance(dataset, SignalDataset) else None,
    }
    loop = Loop(
        config,
        run_dir,
        accelerator,
        state,
        epoch_size=len(dataset),
        teacher=teacher,
        about=about,
        progress=progress,
    )
    began = state.step
    if began < config.train.steps:
        for line in _plan(config, dataset, model, accelerator, began):
            loop.progress.say(line)
    if changes:
        loop.progress.say(f"note: this network differs from that of {init_from}: {', '.join(changes)}")
    if checkpoint and (before_now := checkpoint[1].get("processes")) != accelerator.num_processes:
        loop.progress.say(
            f"note: this run had {before_now} processes so far and now has {accelerator.num_processes}: the batches "
            "are "
            "the same, but rounding differs"
        )
    planned = checkpoint[1]["config"]["train"]["steps"] if checkpoint else config.train.steps
    if planned != config.train.steps and config.train.lr_schedule != "constant":
        loop.progress.say(
            f"note: this run was planned for {planned:,} steps and now has {config.train.steps:,}: its learning rate "
            f"follows the {config.train.lr_schedule} schedule of the new length from here on"
        )
    if checkpoint and accelerator.is_main_process:
        loop.complete_outputs()
    with closing(training_batches(dataset, config, state.step, rows)) as batches:
        try:
            stopped_by = loop.run(batches)
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            more = 2 * config.train.accumulation
            raise UserError(f"{accelerator.device} ran out of memory: try train.accumulation={more}") from error
    accelerator.wait_for_everyone()  # until the model is written: the next run may need it as its teacher
    return TrainResult(run_dir, state.step, loop.loss, stopped_by, began)


def _plan(config: Config, dataset: ImageDataset, model: nn.Module, accelerator: Accelerator, step: int) -> list[str]:
    """The lines printed before training starts."""
    options, count = config.train, accelerator.num_processes
    what, shape = described(dataset)
    lines = [
        f"training {sum(p.numel() for p in model.parameters()):,} parameters on {accelerator.device}"
        + (f" in {count} processes" if count > 1 else "")
        + f": steps {step + 1:,} to {options.steps:,} of {options.batch_size} {what}, from {len(dataset):,} of {shape} "
        f"({dataset.name})"
    ]
    if options.compile:
        lines.append("compiling the network first, which takes minutes without output")
    return lines
