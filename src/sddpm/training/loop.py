"""The training loop: steps, and between them metrics, samples and checkpoints."""

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from sddpm.errors import UserError
from sddpm.pipelines import SpikingDiffusionPipeline
from sddpm.training.batches import Batch
from sddpm.training.checkpoint import list_checkpoints, save_checkpoint
from sddpm.training.config import Config
from sddpm.training.metrics import MetricsLog
from sddpm.training.objective import Teacher, make_loss
from sddpm.training.progress import Progress, Stopwatch
from sddpm.training.run_folder import holds_model, save_loss_curve, save_model, save_modulation, save_samples
from sddpm.training.snapshots import save_snapshot
from sddpm.training.state import TrainState, make_pipeline
from sddpm.training.step import StepMeasures, backward, update
from sddpm.training.stopping import StopRequests


def steps_between_looks(device: torch.device) -> int:
    """Steps between checks that the loss is finite: on a GPU each check blocks the host."""
    return 1 if device.type == "cpu" else 10


class Loop:
    """Trains a state to its last step, and writes the run folder (only in the main process).

    Args:
        config: the run's config.
        run_dir: an opened run folder.
        accelerator: the accelerator of this process.
        state: the state to start from.
        epoch_size: number of images in the data set.
        teacher: the distillation teacher, or None.
        about: facts about the data that are saved with the model: class_names and signal_range, as in the pipeline.
        progress: whether to print progress to stderr.
    """

    def __init__(
        self,
        config: Config,
        run_dir: Path,
        accelerator: Accelerator,
        state: TrainState,
        *,
        epoch_size: int,
        teacher: Teacher | None,
        about: Mapping[str, Any],
        progress: bool,
    ):
        self.config, self.options, self.run_dir = config, config.train, run_dir
        self.accelerator, self.state, self.epoch_size = accelerator, state, epoch_size
        self.about, self.teacher = about, teacher
        self.main = accelerator.is_main_process
        self.look_every = steps_between_looks(accelerator.device)
        self.watch = Stopwatch(state.seconds)
        self.progress = Progress(state.step, self.options.steps, progress and self.main)
        self.metrics = MetricsLog(run_dir, state.step, self.options.tensorboard) if self.main else None
        self.loss = math.nan
        self._begin_interval()

    def run(self, batches: Iterator[Batch]) -> str:
        """Train on `batches` until they end ("steps") or a signal arrives ("SIGINT", "SIGTERM"). Returns which.

        Raises:
            UserError: the loss is not finite, or something cannot be written.
        """
        loss_of = make_loss(self.config, self.accelerator.device, self.teacher)
        prepared = self.accelerator.prepare_model(self.state.model)
        pinned = self.accelerator.device.type == "cuda"
        began: float | None = time.perf_counter()  # until the first step is done
        with ExitStack() as stack:
            stack.enter_context(closing(self.progress))
            if self.metrics is not None:
                stack.enter_context(closing(self.metrics))
            stop = stack.enter_context(StopRequests())
            for batch in batches:
                self.sums += torch.stack(
                    backward(prepared, batch.pin() if pinned else batch, loss_of, self.accelerator, self.options)
                )
                looks = any(map(self._due, (self.look_every, *self._intervals())))
                if looks:
                    self._check_finite()
                update(self.state, self.options)
                self.progress.advance()
                if began is not None:
                    self._check_finite()  # this waits for the GPU
                    self._tell_first(time.perf_counter() - began)
                    began = None
                stopped_by = self._agree(stop.received) if looks else None
                self._write(stopped_by)
                if stopped_by is not None:
                    return stopped_by
            return self._agree(stop.received) or "steps"  # the signal may have come while the last step was written

    def _tell_first(self, seconds: float) -> None:
        step, every = self.state.step, self.options.log_every
        next_line = min((step // every + 1) * every, self.options.steps)
        if step < self.options.steps:
            self.progress.first(step, seconds, next_line, self.options.compile)

    def _intervals(self) -> list[int]:
        options = self.options
        snapshots = options.ema_snapshot_every if self.state.power else 0
        return [e for e in (options.log_every, options.sample_every, options.checkpoint_every, snapshots) if e]

    def _due(self, every: int, ahead: int = 1) -> bool:
        """Whether something is due after the step that is `ahead` steps after the last completed one."""
        step = self.state.step + ahead
        return step % every == 0 or step == self.options.steps

    def _write(self, stopped_by: str | None) -> None:
        """Write metrics, samples and checkpoint, each if due after the completed step."""
        options = self.options
        last = stopped_by is not None
        if last or self._due(options.log_every, 0):
            self._measure()
        if options.sample_every and self._due(options.sample_every, 0):
            with self.watch.paused():
                self._sample()
        if self.main and self.state.power and self._due(options.ema_snapshot_every, 0):
            with self.watch.paused():
                save_snapshot(self.run_dir, self.state.step, self.state.power)
        if last or self._due(options.checkpoint_every, 0):
            with self.watch.paused():
                self._save()

    def _begin_interval(self) -> None:
        self.sums = torch.zeros(len(StepMeasures._fields), device=self.accelerator.device)
        self.interval = (self.state.step, self.watch.seconds)

    def _measure(self) -> None:
        """Write the means since the last call to metrics.jsonl and to the screen."""
        state, (since_step, since_seconds) = self.state, self.interval
        steps = state.step - since_step
        means = (self.accelerator.reduce(self.sums, "mean") / steps).tolist()  # type: ignore[operator]
        mean = dict(zip(StepMeasures._fields, means, strict=True))
        state.seconds = self.watch.seconds
        steps_per_second = steps / max(state.seconds - since_seconds, 1e-9)
        self.loss = mean["loss"]
        row = {
            "step": state.step,
            "loss": self.loss,
            "lr": self.state.optimizer.param_groups[0]["lr"],
            "grad_norm": mean["grad_norm"],
            "images_per_second": steps_per_second * self.options.batch_size,
            "seconds": state.seconds,
            "epoch": state.step * self.options.batch_size / self.epoch_size,
        }
        if self.options.rate_penalty:
            row["firing_rate"] = mean["firing_rate"]
        if self.metrics is not None:
            self.metrics.write(row)
        self.progress.report(state.step, self.loss, row["images_per_second"], steps_per_second)
        self._begin_interval()

    def _pipeline(self) -> SpikingDiffusionPipeline:
        return make_pipeline(self.state.ema, self.config.diffusion, self.config.distill, **self.about)

    def _sample(self) -> None:
        if self.main:
            pipeline = self._pipeline()
            most = self.config.diffusion.num_train_timesteps
            steps = None if self.config.distill else min(self.options.sample_steps, most)
            save_samples(self.run_dir, pipeline, self.state.step, self.options.sample_count, steps)

    def _save(self) -> None:
        if self.main:
            self.state.seconds = self.watch.seconds
            save_checkpoint(
                self.run_dir,
                self.state,
                self.config.to_dict(),
                self.accelerator.num_processes,
                self.options.keep_checkpoints,
            )
            self._save_outputs()

    def _save_outputs(self) -> None:
        pipeline = self._pipeline()
        save_model(self.run_dir, pipeline)
        save_loss_curve(self.run_dir)
        save_modulation(self.run_dir, pipeline)

    def complete_outputs(self) -> None:
        """Write the model and curves again unless the model has the weights of this state. They are written after a
        checkpoint; if a process is killed between the two or the disk is full, they are those of an earlier
        checkpoint."""
        if not holds_model(self.run_dir, self.state.ema):
            self._save_outputs()

    def _check_finite(self) -> None:
        """Check the loss before the step that would damage the weights (on a GPU: before they could be saved)."""
        if self.sums.isfinite().all():
            return
        kept = list_checkpoints(self.run_dir)
        goes_on = (
            f"{kept[-1]} is intact: resume from it"
            if kept
            else "there is no checkpoint yet: start again in another folder"
        )
        raise UserError(
            f"the loss is not finite at step {self.state.step + 1}; these weights were not saved; {goes_on} with a "
            f"smaller train.lr (now {self.options.lr:g}) or train.max_grad_norm (now {self.options.max_grad_norm:g})"
        )

    def _agree(self, received: str | None) -> str | None:
        """The signal that any of the processes received."""
        if self.accelerator.num_processes == 1:
            return received
        names = [None, "SIGINT", "SIGTERM"]
        own = torch.tensor([names.index(received)], device=self.accelerator.device)
        return names[int(self.accelerator.gather(own).max())]  # type: ignore[union-attr]
