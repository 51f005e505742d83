"""The dry run: describes a run and writes nothing."""

import time
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor

from sddpm.data.open import open_configured
from sddpm.training.batches import Batch, check_labels, share_of_batch, training_batches
from sddpm.training.config import Config
from sddpm.training.config_files import to_yaml
from sddpm.training.objective import make_loss
from sddpm.training.processes import make_accelerator
from sddpm.training.progress import duration
from sddpm.training.run import check_dims, described
from sddpm.training.start import load_weights
from sddpm.training.state import TrainState, build_model, make_state
from sddpm.training.step import backward
from sddpm.training.teacher import load_teacher

TRIAL_IMAGES = 8  # at most so many images are tried; the cost of a step is extrapolated from them


def describe_run(config: Config, device: str = "auto", init_from: str | Path | None = None) -> str:
    """The resolved config, the size of data and network, the initial weights, the epochs, and the approximate cost of a
    step, as text. Arguments as in `train`.

    Raises:
        UserError: for everything that would stop the run at its start.
    """
    accelerator = make_accelerator(device, config.train.precision, config.train.compile)
    options, processes = config.train, accelerator.num_processes
    rows = share_of_batch(options.batch_size, options.accumulation, accelerator.process_index, processes)
    dataset = open_configured(config.data)
    check_labels(dataset, config.model.num_classes)
    check_dims(dataset, config)
    model = build_model(config, dataset.channels)
    changes = load_weights(model, init_from) if init_from is not None else []
    state = make_state(model, config, accelerator.device)

    at_once = len(rows) // options.accumulation
    batch = next(training_batches(dataset, config, 0, rows[: min(TRIAL_IMAGES, at_once)]))
    kind = accelerator.device.type
    seconds, saved = _cost(state, batch, config, accelerator)
    step_seconds = seconds * len(rows) / len(batch.t)
    weights = list(state.model.parameters())
    averages = [p for average in state.power.values() for p in average.parameters()]
    held = sum(t.nbytes for t in [*weights, *weights, *weights, *weights, *state.ema.parameters(), *averages])
    gigabytes = (held + saved * at_once / len(batch.t)) / 2**30
    what, shape = described(dataset)
    lines = [
        f"data      {len(dataset):,} {what} of {shape} from {dataset.name}",
        f"network   {sum(p.numel() for p in weights):,} parameters{_start(init_from, changes)}",
        f"training  {options.steps:,} steps of {options.batch_size} {what} = "
        f"{options.steps * options.batch_size / len(dataset):,.1f} epochs, processes: {processes} ({kind})",
        f"memory    about {gigabytes:.2g} GiB per process: weights, gradients, moments, average and activations",
        f"time      about {step_seconds:.3g} s per step ({options.batch_size / step_seconds:.3g} {what}/s), "
        f"{duration(options.steps * step_seconds)} in total, estimated from {len(batch.t)} {what}",
    ]
    return to_yaml(config) + "\n" + "\n".join(lines)


def _start(init_from: str | Path | None, changes: list[str]) -> str:
    if init_from is None:
        return ""
    return f", starting from {init_from}" + (f", which differs: here {', '.join(changes)}" if changes else "")


def _cost(state: TrainState, batch: Batch, config: Config, accelerator: Accelerator) -> tuple[float, float]:
    """Seconds of a forward and backward pass of `batch` after a warm-up, and bytes kept between the two."""
    loss_of = make_loss(config, accelerator.device, load_teacher(config, accelerator, state.model.config))
    prepared = accelerator.prepare_model(state.model)
    options = config.train.model_copy(update={"accumulation": 1})
    storages: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        backward(prepared, batch, loss_of, accelerator, options).loss.item()
    began = time.perf_counter()
    backward(prepared, batch, loss_of, accelerator, options).loss.item()  # .item() waits for the device
    return time.perf_counter() - began, sum(storages.values())
