"""A picture from a seed: the diffusers pipeline of a spiking (or any other) noise-predicting U-Net.

`model_index.json` of a saved pipeline names this module's class: do not move it.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from diffusers.models.modeling_utils import ModelMixin
from diffusers.pipelines.pipeline_utils import DiffusionPipeline, ImagePipelineOutput
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from torch import Tensor, nn
from tqdm import tqdm

import sddpm.models  # noqa: F401  diffusers loads only classes whose module is imported already
from sddpm.diffusion.noise import check_seeds, draw_noise, generators_for
from sddpm.diffusion.solvers import switch_solver
from sddpm.errors import UserError
from sddpm.inference.engine import Engines
from sddpm.models.early_exit import EarlyExit
from sddpm.pipelines.denoise import DenoisingStep, ThresholdSchedule, denoise, prepare_scheduler
from sddpm.pipelines.threshold_guidance import PlainThresholds, kept_thresholds

OUTPUT_TYPES = ("pil", "np", "pt")
DEFAULT_BATCH_SIZE = 64


class SpikingDiffusionPipeline(DiffusionPipeline):
    """Samples images with a model that predicts epsilon or v, and a scheduler.

    Each image has a seed of its own, which decides its x_T and the noise of all its steps, whatever the batch size,
    the place in the batch and the device. The picture is then the same too as far as the model's arithmetic is: bit by
    bit for the same device, number of threads and batch size; with another batch size the convolutions may round
    differently, and a spike that flips by it can change details of the picture.

    Args:
        unet: `SpikingUNet2DModel`, or any diffusers model with config.sample_size and config.in_channels whose
            model(x_t, t).sample has the shape of x_t.
        scheduler: a diffusers scheduler; its config says on which noise schedule the model was trained.
        threshold_guidance: firing thresholds to sample with unless others are given, under "v_threshold", and how they
            were found: what `sddpm guide` keeps with a model.
    """

    model_cpu_offload_seq = "unet"

    def __init__(
        self, unet: ModelMixin, scheduler: SchedulerMixin, threshold_guidance: Mapping[str, Any] | None = None
    ):
        super().__init__()
        self.unet: Any
        self.scheduler: Any
        self.register_modules(unet=unet, scheduler=scheduler)
        self._engines = Engines()
        kept_thresholds(threshold_guidance)  # for its checks
        if threshold_guidance is not None:  # a model without guidance is saved as it always was
            self.register_to_config(threshold_guidance=dict(threshold_guidance))

    @property
    def guided_thresholds(self) -> PlainThresholds | None:
        """The firing thresholds to sample with unless others are given, as kept with the model; None: as trained."""
        return kept_thresholds(self.config.get("threshold_guidance"))

    def resolve_engine(self, engine: str, num_inference_steps: int, exit_tolerance: float | None = None) -> str:
        """What `engine` means for this model: "eager", "exact" or "fast". Raises `UserError`, as a call would."""
        if exit_tolerance is not None:
            EarlyExit(self.unet, exit_tolerance)  # for its checks
            if engine not in ("auto", "eager"):
                raise UserError(f"early exit goes through the eager network, which engine {engine!r} is not")
            return "eager"
        return self._engines.resolve(self.unet, engine, num_inference_steps)

    def model_for(self, engine: str, num_inference_steps: int) -> nn.Module:
        """The form of the model that `engine` means, compiled if need be. Raises `UserError`, as a call would."""
        return self._engines.choose(self.unet, engine, num_inference_steps)

    def __call__(
        self,
        batch_size: int | None = None,
        *,
        seeds: Sequence[int] | None = None,
        num_inference_steps: int = 50,
        solver: str | None = None,
        eta: float = 0.0,
        v_threshold: ThresholdSchedule = None,
        engine: str = "auto",
        exit_tolerance: float | None = None,
        output_type: str = "pil",
        callback: Callable[[DenoisingStep], None] | None = None,
        progress: bool = True,
    ) -> ImagePipelineOutput:
        """Sample images.

        Args:
            batch_size: how many images are made at a time, at most 64 unless said otherwise. Without `seeds` it is how
                many there are (1 unless said otherwise), with the seeds 0, 1, 2, ...
            seeds: one for each image, 0 to 2^32 - 1.
            num_inference_steps: steps of the solver, 1 to the number of training steps.
            solver: a name of `sddpm.diffusion.solvers.SOLVERS`; None for the scheduler that the pipeline holds.
            eta: DDIM's share of fresh noise, 0 (deterministic) to 1 (ancestral).
            v_threshold: firing threshold to sample with (threshold guidance, SDDPM section 4.3): a number, a dict
                {layer pattern: threshold}, or a function of (index, t) that gives either; None for those that threshold
                guidance keeps with the model, or else the trained ones; {} for the trained ones in any case.
            engine: "eager" for the model as it is; "exact" or "fast" for a compiled form (`sddpm.inference.MODES`);
                "auto" for the exact one where the model has one and it pays, else eager.
            exit_tolerance: leave the network for each sample once its readout changes by less than this from one SNN
                time step to the next, relatively (`sddpm.models.early_exit`); None for all T steps. Eager only.
            output_type: "pil" for images, "np" for a float array [N, H, W, C] or "pt" for a float tensor [N, C, H, W]
                on the CPU, both in [0, 1].
            callback: called with a `DenoisingStep` after every evaluation; each further batch of seeds begins again
                with index 0.
            progress: whether to show a progress bar.

        Returns:
            An object whose `images` are in the order of the seeds.

        Raises:
            UserError: a value that cannot be, in one line that says what can; a model that answers with NaN.
        """
        if output_type not in OUTPUT_TYPES:
            raise UserError(f"unknown output_type {output_type!r}: choose one of {', '.join(OUTPUT_TYPES)}")
        if seeds is None:
            seeds = range(1 if batch_size is None else batch_size)
        batches = self.stream(
            seeds,
            batch_size=batch_size,
            num_inference_steps=num_inference_steps,
            solver=solver,
            eta=eta,
            v_threshold=v_threshold,
            engine=engine,
            exit_tolerance=exit_tolerance,
            callback=callback,
            progress=progress,
        )
        images = torch.cat([images for _, images in batches])
        if output_type == "pt":
            return ImagePipelineOutput(images=images)  # pyright: ignore[reportArgumentType]
        arrays = images.permute(0, 2, 3, 1).float().numpy()
        return ImagePipelineOutput(images=arrays if output_type == "np" else self.numpy_to_pil(arrays))

    def stream(
        self,
        seeds: Sequence[int],
        *,
        batch_size: int | None = None,
        num_inference_steps: int = 50,
        solver: str | None = None,
        eta: float = 0.0,
        v_threshold: ThresholdSchedule = None,
        engine: str = "auto",
        exit_tolerance: float | None = None,
        callback: Callable[[DenoisingStep], None] | None = None,
        progress: bool = True,
    ) -> Iterator[tuple[list[int], Tensor]]:
        """Sample batch by batch: yields the seeds of a batch and its images, float [B, C, H, W] in [0, 1] on the CPU.

        Arguments and errors as of calling the pipeline; errors in them come at once, not with the first batch.
        """
        batch_size = DEFAULT_BATCH_SIZE if batch_size is None else batch_size
        if batch_size < 1 or len(seeds) < 1:
            raise UserError(f"nothing to sample: {len(seeds)} seeds, {batch_size} at a time")
        check_seeds(seeds)
        self.resolve_engine(engine, num_inference_steps, exit_tolerance)
        scheduler = self.scheduler if solver is None else switch_solver(self.scheduler, solver)
        v_threshold = self.guided_thresholds if v_threshold is None else v_threshold
        evaluations = len(prepare_scheduler(scheduler, num_inference_steps, eta)[0].timesteps)
        total = evaluations * math.ceil(len(seeds) / batch_size)
        options = {"num_inference_steps": num_inference_steps, "eta": eta, "v_threshold": v_threshold}
        model = partial(self._engines.choose, engine=engine, steps=num_inference_steps)
        if exit_tolerance is not None:
            model = partial(EarlyExit, tolerance=exit_tolerance)
        chunks = [list(seeds[i : i + batch_size]) for i in range(0, len(seeds), batch_size)]
        return self._stream(chunks, model, scheduler, options, callback, total if progress else None)

    def _stream(self, chunks, model, scheduler, options, callback, total) -> Iterator[tuple[list[int], Tensor]]:
        config = self.unet.config
        size = config.sample_size
        height, width = (size, size) if isinstance(size, int) else size
        dtype = torch.float64 if self.unet.dtype == torch.float64 else torch.float32
        # The bar is diffusers' own, so that pipe.set_progress_bar_config works; no total means no bar.
        with self.progress_bar(total=total) if total else tqdm(disable=True) as bar:  # pyright: ignore[reportCallIssue]
            for seeds in chunks:
                generators = generators_for(seeds)
                x = draw_noise(generators, (config.in_channels, height, width), dtype, self._execution_device)
                for step in denoise(model(self.unet), scheduler, x, generators, **options):
                    x = step.x_prev
                    if callback is not None:
                        callback(step)
                    bar.update()
                if not x.isfinite().all():
                    raise UserError(f"the model answered with NaN or infinity (seeds {seeds[0]} to {seeds[-1]})")
                yield seeds, (x / 2 + 0.5).clamp(0.0, 1.0).cpu()
