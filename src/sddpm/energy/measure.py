"""Measures the ledger of a pipeline: counts operations for real samples, or for given images with noise."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Unpack, cast

import torch
from torch import Tensor, nn

from sddpm.data import to_model
from sddpm.diffusion.noise import draw_noise, generators_for
from sddpm.diffusion.schedule import add_noise
from sddpm.energy.counts import SynapticCount
from sddpm.energy.coverage import macs_outside_layers
from sddpm.energy.ledger import Evaluation, Ledger, merge_layers
from sddpm.energy.operations import OperationCounter, counting
from sddpm.errors import UserError
from sddpm.models import SpikingUNet2DModel
from sddpm.models.early_exit import EarlyExit
from sddpm.models.folding import fold_time
from sddpm.models.thresholds import spiking_neurons
from sddpm.pipelines import SpikingDiffusionPipeline
from sddpm.pipelines.class_guidance import ClassLabels
from sddpm.pipelines.denoise import DenoisingStep, predict, prepare_scheduler
from sddpm.pipelines.options import DEFAULT_BATCH_SIZE, SamplingKeywords, SamplingOptions, with_keywords

ELSEWHERE = "(products of activations)"
COUNTED = SamplingOptions(batch_size=16)


def deployed(pipeline: SpikingDiffusionPipeline, tabulate_time: bool | None = None) -> SpikingDiffusionPipeline:
    """The pipeline of the deployed network, for the estimate; the given pipeline is not changed.

    Args:
        pipeline: a pipeline with any model.
        tabulate_time: whether the time embedding becomes a table of biases (`fold_time`); None: for pure networks.

    Raises:
        UserError: a table for a model that is not a spiking U-Net.
    """
    unet = pipeline.unet
    spiking = isinstance(unet, SpikingUNet2DModel)
    if tabulate_time is None:
        tabulate_time = spiking and bool(unet.config["pure"])
    if not tabulate_time:
        return pipeline
    if not spiking:
        raise UserError(
            f"the time embedding of a {type(unet).__name__} cannot become a table: only that of a SpikingUNet2DModel "
            "can"
        )
    return SpikingDiffusionPipeline(fold_time(unet), pipeline.scheduler, **pipeline.about)


def measure_sampling(
    pipeline: SpikingDiffusionPipeline,
    seeds: Sequence[int],
    *,
    batch_size: int | None = None,
    class_labels: ClassLabels = None,
    options: SamplingOptions = COUNTED,
    progress: bool = False,
    callback: Callable[[DenoisingStep, Evaluation], None] | None = None,
    title: str = "model",
    **keywords: Unpack[SamplingKeywords],
) -> Ledger:
    """Count the operations of every evaluation while the pipeline samples.

    Args:
        pipeline: measured unchanged; see `deployed`.
        seeds, batch_size, class_labels, options, progress, keywords: as when calling it; the engine is always eager.
        callback: called after every evaluation of a batch, with its step and its counts.
        title: the name of the model.

    Raises:
        UserError: as in the pipeline and in `counting`.
    """
    options = replace(with_keywords(options, keywords, batch_size), engine="eager")
    rows = _Rows(pipeline.unet)
    runs = 1 if options.guidance_scale == 1 else 2  # one with and one without the class
    with counting(pipeline.unet) as counter:

        def after(step: DenoisingStep) -> None:
            evaluation = rows.add(step.index, step.t, runs * len(step.x_t), counter)
            if callback is not None:
                callback(step, evaluation)

        for _ in pipeline.stream(seeds, class_labels=class_labels, options=options, callback=after, progress=progress):
            pass
    return rows.ledger(title, f"{len(seeds)} samples", pipeline.sampler(options), len(seeds))


def measure_images(
    pipeline: SpikingDiffusionPipeline,
    images: Tensor,
    *,
    batch_size: int | None = None,
    options: SamplingOptions = COUNTED,
    title: str = "model",
    **keywords: Unpack[SamplingKeywords],
) -> Ledger:
    """Count operations on given images, noised to each diffusion step of the solver; image i has the noise of seed i.

    Args:
        images: uint8 [N, C, H, W] of the model's training size.

    The other arguments are as in `measure_sampling`; of the options only num_inference_steps, timesteps, solver,
    v_threshold and exit_tolerance are used.

    Raises:
        UserError: images of another dtype or number of channels; otherwise as in `measure_sampling`.
    """
    channels = pipeline.unet.config.in_channels
    if images.dtype != torch.uint8 or images.ndim != 4 or len(images) == 0 or images.shape[1] != channels:
        raise UserError(f"expected images [N, {channels}, H, W] of uint8, got {list(images.shape)} of {images.dtype}")
    options = pipeline.resolve_options(replace(with_keywords(options, keywords, batch_size), engine="eager"))
    scheduler, _ = prepare_scheduler(pipeline.scheduler_of(options), options)
    unet = pipeline.unet
    currents = unet.config.get("synaptic_currents")
    model: nn.Module = unet if options.exit_tolerance is None else EarlyExit(unet, options.exit_tolerance)
    thresholds, batch_size = options.v_threshold, options.batch_size or DEFAULT_BATCH_SIZE
    rows = _Rows(unet)
    with counting(unet) as counter:
        for start in range(0, len(images), batch_size):
            x0 = to_model(images[start : start + batch_size]).to(pipeline.device)
            generators = generators_for(range(start, start + len(x0)))
            noise = draw_noise(generators, x0.shape[1:], x0.dtype, pipeline.device)
            for index, t in enumerate(scheduler.timesteps.tolist()):
                x_t = add_noise(scheduler.alphas_cumprod, x0, noise, t)
                if currents:  # as in sampling, the network receives the current at every SNN time step
                    x_t = x_t.expand(unet.config.T, *x_t.shape)
                predict(model, x_t, t, thresholds(index, t) if callable(thresholds) else thresholds)
                rows.add(index, t, len(x0), counter)
    steps = f"{options.solver or pipeline.solver}'s {options.num_inference_steps} steps"
    return rows.ledger(title, f"{len(images)} given images with noise", steps, len(images))


def measure_network(model: nn.Module, x: Tensor, t: int, title: str) -> Ledger:
    """Count one evaluation of any network at x [B, C, H, W] and diffusion step t."""
    rows = _Rows(model)
    with counting(model) as counter:
        predict(model, x, t)
        rows.add(0, t, len(x), counter)
    return rows.ledger(title, f"{len(x)} images", "one evaluation", len(x))


class _Rows:
    """Evaluations of a model by index, merged over batches."""

    def __init__(self, model: nn.Module) -> None:
        self._model, self._outside = model, macs_outside_layers(model)
        self._rows: dict[int, Evaluation] = {}

    def add(self, index: int, t: int, images: int, counter: OperationCounter) -> Evaluation:
        """Add the counts since the last call, and return them."""
        layers = tuple(counter.take())
        if self._outside:
            layers = (*layers, _elsewhere(self._outside, images))
        found = Evaluation(index, t, images, layers)
        before = self._rows.get(index)
        self._rows[index] = found if before is None else _merged(before, found)
        return found

    def ledger(self, title: str, inputs: str, solver: str, images: int) -> Ledger:
        model, config = self._model, cast(Any, self._model.config)
        spiking = bool(spiking_neurons(model))
        return Ledger(
            title=title,
            parameters=sum(p.numel() for p in model.parameters()),
            spiking=spiking,
            T=config["T"] if spiking else 1,
            inputs=inputs,
            solver=solver,
            images=images,
            evaluations=tuple(self._rows[index] for index in sorted(self._rows)),
        )


def _merged(before: Evaluation, further: Evaluation) -> Evaluation:
    layers = merge_layers([before.layers, further.layers])
    return replace(before, images=before.images + further.images, layers=layers)


def _elsewhere(macs: int, images: int) -> SynapticCount:
    return SynapticCount(
        name=ELSEWHERE,
        kind="other",
        shape=(),
        parameters=0,
        macs=macs,
        synapses=macs,
        inputs=1,
        images=(images,),
        active=(images,),
        sops=(0,),
        multiplications=(macs * images,),
        binary=False,
    )
