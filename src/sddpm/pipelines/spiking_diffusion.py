"""A picture from a seed: the diffusers pipeline of a spiking (or any other) noise-predicting U-Net.

`model_index.json` of a saved pipeline names this module's class: do not move it.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from os import PathLike
from pathlib import Path
from typing import Any, Unpack

import torch
from diffusers.models.modeling_utils import ModelMixin
from diffusers.pipelines.pipeline_utils import DiffusionPipeline, ImagePipelineOutput
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from PIL import Image
from torch import Tensor

import sddpm.diffusion.schedulers
import sddpm.models.ann  # noqa: F401  diffusers loads only classes whose module is imported already
from sddpm.choices import check_choice
from sddpm.diffusion.interpolation import slerp
from sddpm.diffusion.noise import check_seeds, generators_for
from sddpm.diffusion.solver_registry import deterministic_solvers
from sddpm.diffusion.solvers import adds_noise
from sddpm.errors import UserError
from sddpm.opening.checksums import write_checksums
from sddpm.pipelines.class_guidance import ClassLabels
from sddpm.pipelines.denoise import DenoisingStep, denoise
from sddpm.pipelines.diffusers_call import (
    TENSOR_INPUTS,
    Generators,
    StepEndCallback,
    check_latents,
    plan_images,
    refuse_foreign,
    step_end,
)
from sddpm.pipelines.hub import make_loadable, send_model
from sddpm.pipelines.inpainting import Images, as_images, as_mask, inpaint
from sddpm.pipelines.options import SamplingKeywords, SamplingOptions, with_keywords
from sddpm.pipelines.resolving import pipeline_folder
from sddpm.pipelines.streaming import StreamingPipeline, split_batches

OUTPUT_TYPES = ("pil", "np", "pt")


def _or_ddim(options: SamplingOptions | None, keywords: SamplingKeywords) -> SamplingOptions:
    """The options, by default with DDIM unless a sampler is named."""
    if options is not None:
        return options
    return SamplingOptions(solver=None if keywords.get("sampler") else "ddim")


class SpikingDiffusionPipeline(StreamingPipeline, DiffusionPipeline):
    """Samples images with a model that predicts epsilon or v, and a scheduler.

    Each image has its own seed, which determines its x_T and the noise of all its steps, whatever the batch size, the
    place in the batch and the device. Pictures are then bit-identical on the same device with the same number of
    threads and the same batch size. With another batch size the convolutions can round differently, and a spike that
    flips because of this can change details of the picture.

    Args:
        unet: `SpikingUNet2DModel`, or any diffusers model with config.sample_size and config.in_channels whose
            model(x_t, t).sample has the shape of x_t.
        scheduler: a diffusers scheduler; its config has the noise schedule of the model's training.
        threshold_guidance: default firing thresholds for sampling, under "v_threshold", and how they were found: what
            `sddpm guide` saves with a model.
        class_names: one for each class of the model, if it has classes and they have names; the last may have none.
        signal_range: for a model of signals, the values of -1 and 1 in the units of its data.
        x0_scale, num_inference_steps: defaults for sampling; see `SamplingOptions`.
        samplers, sampler: named samplers, {name: as in `Sampler.to_dict`}, and the name of the default one.

    Raises:
        UserError: a default that is invalid for the model; another number of time steps in the network than in the
            scheduler; more names than classes.
    """

    model_cpu_offload_seq = "unet"

    def __init__(
        self,
        unet: ModelMixin,
        scheduler: SchedulerMixin,
        threshold_guidance: Mapping[str, Any] | None = None,
        class_names: Sequence[str] | None = None,
        signal_range: Sequence[float] | None = None,
        x0_scale: float | None = None,
        num_inference_steps: int | None = None,
        samplers: Mapping[str, Any] | None = None,
        sampler: str | None = None,
    ):
        super().__init__()
        self.register_modules(unet=unet, scheduler=scheduler)
        about = {
            "threshold_guidance": threshold_guidance,
            "class_names": class_names,
            "signal_range": None if signal_range is None else [float(value) for value in signal_range],
            "x0_scale": x0_scale,
            "num_inference_steps": num_inference_steps,
            "samplers": samplers,
            "sampler": sampler,
        }
        self._begin(about)
        for name, kind in (("threshold_guidance", dict), ("class_names", list), ("samplers", dict)):
            about[name] = None if about[name] is None else kind(about[name])
        # Without absent values, so that a model without guidance, for example, is saved as by older versions.
        self.register_to_config(**{name: value for name, value in about.items() if value is not None})

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | PathLike[str], **kwargs: Any):
        """As in diffusers, from everything that `load_pipeline` accepts: the name of a model that comes with the
        package, a saved model, a run, or user/model on the hub. Code in a model's folder is not executed. Raises
        `UserError` if there is no such model."""
        folder = pipeline_folder(pretrained_model_name_or_path)
        return super().from_pretrained(folder, **kwargs)

    @classmethod
    def load_config(cls, *arguments: Any, **keywords: Any) -> Any:
        """As in diffusers, but always for this class, not for one defined by a file in the model's folder."""
        config: Any = super().load_config(*arguments, **keywords)
        if isinstance(config, dict) and isinstance(config.get("_class_name"), list):
            config["_class_name"] = config["_class_name"][-1]
        return config

    def save_pretrained(
        self, save_directory: str | PathLike[str], *arguments: Any, push_to_hub: bool = False, **keywords: Any
    ) -> None:
        """As in diffusers, and also saves hashes of the weights, which `load_pipeline` compares, and a file with which
        `DiffusionPipeline.from_pretrained(FOLDER, trust_remote_code=True)` loads the model."""
        folder, name = Path(save_directory), keywords.pop("repo_id", None)
        super().save_pretrained(folder, *arguments, **keywords)
        write_checksums(folder / "unet")
        make_loadable(folder)
        if push_to_hub:
            send_model(folder, name or folder.name)

    def __call__(
        self,
        batch_size: int | None = None,
        *,
        seeds: Sequence[int] | None = None,
        class_labels: ClassLabels = None,
        options: SamplingOptions | None = None,
        output_type: str = "pil",
        callback: Callable[[DenoisingStep], None] | None = None,
        progress: bool = True,
        generator: Generators | None = None,
        latents: Tensor | None = None,
        num_images_per_prompt: int | None = None,
        callback_on_step_end: StepEndCallback | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = TENSOR_INPUTS,
        return_dict: bool = True,
        **keywords: Unpack[SamplingKeywords],
    ) -> ImagePipelineOutput:
        """Sample images. `pipe(2)` called twice gives the same two images: those of the seeds 0 and 1.

        Args:
            batch_size: number of images (by default one, or one for each of a list of class labels). If `seeds`, a list
                of generators, `latents` or `num_images_per_prompt` set the number of images, it is the number of images
                made at a time (64 by default).
            seeds: one for each image, 0 to 2^32 - 1; 0, 1, 2, ... by default.
            class_labels: the classes of the images, if the model has classes: one for all, or one for each image; by
                number or name, "none" for no class, or "random" for one drawn from the seed. None is "none".
            options: how images are drawn.
            output_type: "pil" for images, if they are grey or RGB, "np" for a float array [N, H, W, C] or "pt" for a
                float tensor [N, C, H, W] on the CPU, both in [0, 1]. Signals are an array, or a tensor, [N, C, L] in
                the units of their data.
            callback: called with a `DenoisingStep` after every evaluation; index starts again at 0 for each further
                batch of seeds.
            progress: whether to show a progress bar; `set_progress_bar_config(disable=True)` turns off all bars.
            generator: draws the seeds, one for each image, instead of `seeds`; or a list of generators, which draw one
                each. A generator advances, so that the next call gives other images.
            latents: noise [B, C, H, W] ([B, C, L] for signals) to start from instead of the noise of the seeds. The
                seeds are then only used in the steps of stochastic solvers.
            num_images_per_prompt: number of images of each class label; images are ordered by label.
            callback_on_step_end: called as (pipeline, step, timestep, {"latents": x_prev}) after every step; sampling
                continues from the "latents" of the dict that it returns. If it sets `pipeline._interrupt` to True, the
                call ends with the current images and skips further batches. `step` starts again at 0 in each batch.
                Latents are nominally in [-1, 1]; for a model of synaptic currents they are its currents
                [T, B, C, H, W].
            callback_on_step_end_tensor_inputs: the keys of that dict: "latents", or nothing.
            return_dict: False for the tuple (images,).
            keywords: fields of `SamplingOptions` (num_inference_steps, solver, eta, guidance_scale, v_threshold,
                x0_scale, timesteps, sampler, engine, exit_tolerance), which override those of `options`.

        Returns:
            An object whose `images` are in the order of the seeds.

        Raises:
            UserError: an invalid value; a model that predicts NaN.
        """
        self._check_output_type(output_type)
        refuse_foreign(keywords)
        options = with_keywords(options, keywords, batch_size)
        if latents is not None:
            check_latents(latents, self._shape_of_one)
        seeds, class_labels = plan_images(batch_size, seeds, generator, latents, class_labels, num_images_per_prompt)
        on_step_end = step_end(self, callback_on_step_end, callback_on_step_end_tensor_inputs)
        batches = self._stream(seeds, class_labels, options, callback, progress, latents, on_step_end)
        output = self._output(batches, output_type)
        return output if return_dict else (output.images,)  # pyright: ignore[reportReturnType]  that of the default

    def interpolate(
        self,
        seeds: Sequence[int],
        frames: int = 9,
        *,
        batch_size: int | None = None,
        class_labels: ClassLabels = None,
        options: SamplingOptions | None = None,
        output_type: str = "pil",
        progress: bool = True,
        **keywords: Unpack[SamplingKeywords],
    ) -> ImagePipelineOutput:
        """Interpolate from the picture of each seed to the next, by spherical interpolation of their initial noise.

        Args:
            seeds: two or more.
            frames: number of images from one seed to the next, including both; the first and last are the seeds' own
                pictures.
            class_labels: one for all, or one for each pair of seeds; "random" is drawn from the first seed of a pair.
            options: how images are drawn, by default with DDIM, or with the `sampler` if one is named; the
                solver must not add noise.
            batch_size, output_type, progress, keywords: as when calling the pipeline.

        Returns:
            An object whose `images` are `frames` for the first pair of seeds, then for the next.

        Raises:
            UserError: as for a call, and for a solver whose steps add noise.
        """
        self._check_output_type(output_type)
        self.require_images()
        if len(seeds) < 2 or type(frames) is not int or frames < 2:
            raise UserError(f"interpolation needs at least 2 seeds and 2 frames, not {len(seeds)} and {frames!r}")
        check_seeds(seeds)
        options = with_keywords(_or_ddim(options, keywords), keywords, batch_size)
        pairs = list(pairwise(seeds))
        firsts = [first for first, _ in pairs]
        labels = self._resolve_labels(class_labels, options.guidance_scale, firsts, "pairs of seeds")
        prepared = self._prepare(options)
        if adds_noise(prepared.scheduler, options.eta):
            raise UserError(f"interpolation needs a solver that adds no noise: {deterministic_solvers()}")
        points = [(row, i / (frames - 1)) for row in range(len(pairs)) for i in range(frames)]

        def begin(points: list[tuple[int, float]]) -> Iterator[DenoisingStep]:
            ends = [self._noise(generators_for(pairs[row])) for row, _ in points]
            x = torch.stack([slerp(a, b, weight) for (a, b), (_, weight) in zip(ends, points, strict=True)])
            generators = generators_for([0] * len(points))  # no step draws from them
            guidance = self._guidance([labels[row] for row, _ in points], options.guidance_scale)
            return denoise(prepared.model(), prepared.scheduler, x, generators, prepared.options, guidance=guidance)

        chunks = split_batches(points, options.batch_size)
        total = prepared.evaluations * len(chunks)
        return self._output(self._batches(chunks, begin, None, total if progress else None), output_type)

    def inpaint(
        self,
        images: Images,
        mask: Tensor | Image.Image,
        *,
        seeds: Sequence[int] | None = None,
        batch_size: int | None = None,
        jump_length: int = 2,
        resamplings: int = 10,
        class_labels: ClassLabels = None,
        options: SamplingOptions | None = None,
        output_type: str = "pil",
        callback: Callable[[DenoisingStep], None] | None = None,
        progress: bool = True,
        **keywords: Unpack[SamplingKeywords],
    ) -> ImagePipelineOutput:
        """Repaint a part of images (RePaint; Lugmayr et al., 2022). The rest is unchanged, bit for bit.

        Args:
            images: of the model's size: PIL images, or a tensor [N, C, H, W], uint8 or in [0, 1].
            mask: where to repaint: an image (white: repaint), or a tensor [H, W] or [N, 1, H, W] (true or 1: repaint).
            seeds: one for each image (0, 1, ... by default); several for the same image if there is only one.
            jump_length, resamplings: segments of `jump_length` steps are repeated `resamplings` times, so that the
                repainted part fits the rest; num_inference_steps x resamplings evaluations in total.
            options: how images are drawn, by default with DDIM, or with the `sampler` if one is named; the solver must
                be "ddim", "ddpm" (which leaves noise in the picture unless there are many steps) or an analytic one.
            batch_size, class_labels, output_type, callback, progress, keywords: as when calling the pipeline.

        Raises:
            UserError: as for a call, and for images or a mask that do not fit the model or each other.
        """
        self._check_output_type(output_type)
        self.require_images()
        kept, unknown = as_images(images, self._shape_of_one), as_mask(mask, self._shape_of_one)
        seeds = range(len(kept)) if seeds is None else seeds
        count = len(seeds)
        if len(kept) not in (1, count) or len(unknown) not in (1, count):
            raise UserError(
                f"{count} seeds, but {len(kept)} images and {len(unknown)} masks: give {count} or 1 of each"
            )
        check_seeds(seeds)
        options = with_keywords(_or_ddim(options, keywords), keywords, batch_size)
        labels = self._resolve_labels(class_labels, options.guidance_scale, seeds)
        prepared = self._prepare(options)
        kept, unknown = kept.expand(count, -1, -1, -1), unknown.expand(count, -1, -1, -1)

        def begin(rows: list[int]) -> Iterator[DenoisingStep]:
            generators = generators_for([seeds[row] for row in rows])
            x = self._noise(generators)
            return inpaint(
                prepared.model(),
                prepared.scheduler,
                x,
                (kept[rows] * 2 - 1).to(x),
                unknown[rows].to(x.device),
                generators,
                prepared.options,
                jump_length=jump_length,
                resamplings=resamplings,
                guidance=self._guidance([labels[row] for row in rows], options.guidance_scale),
            )

        chunks = split_batches(range(count), options.batch_size)
        total = prepared.evaluations * resamplings * len(chunks)
        batches = self._batches(chunks, begin, callback, total if progress else None)
        batches = ((rows, torch.where(unknown[rows], x, kept[rows].to(x))) for rows, x in batches)
        return self._output(batches, output_type)

    def _check_output_type(self, output_type: str) -> None:
        """Raise `UserError` unless `output_type` is one of `OUTPUT_TYPES` that this model's samples can have."""
        check_choice("output_type", output_type, OUTPUT_TYPES)
        channels = self._shape_of_one[0]
        if output_type == "pil" and self.signal_range is None and channels not in (1, 3):
            raise UserError(f"images of {channels} channels cannot be 'pil': choose the output_type 'np' or 'pt'")

    def _output(self, batches: Iterable[tuple[list[Any], Tensor]], output_type: str) -> ImagePipelineOutput:
        images = torch.cat([images for _, images in batches])
        if self.signal_range is not None and output_type != "pt":
            return ImagePipelineOutput(images=images.numpy())
        if output_type == "pt":
            return ImagePipelineOutput(images=images)  # pyright: ignore[reportArgumentType]
        arrays = images.permute(0, 2, 3, 1).float().numpy()
        return ImagePipelineOutput(images=arrays if output_type == "np" else self.numpy_to_pil(arrays))
