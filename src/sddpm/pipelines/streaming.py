"""Images from seeds, batch by batch: noise by seed, classes, evaluations, pixels."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar, Unpack

import torch
from torch import Tensor
from tqdm import tqdm

from sddpm.diffusion.noise import check_seeds, draw_noise, generators_for
from sddpm.errors import UserError
from sddpm.models.config import sample_shape
from sddpm.pipelines.base import SamplingPipeline
from sddpm.pipelines.class_guidance import ClassGuidance, ClassLabels, check_guidance, resolve_labels
from sddpm.pipelines.denoise import DenoisingStep, denoise
from sddpm.pipelines.options import DEFAULT_BATCH_SIZE, SamplingKeywords, SamplingOptions, with_keywords

T = TypeVar("T")


class StreamingPipeline(SamplingPipeline):
    """Samples batch by batch. A pipeline with it has a `device`, an `_execution_device` and a `progress_bar`, as those
    of diffusers."""

    device: Any
    _execution_device: Any
    progress_bar: Any

    @property
    def _shape_of_one(self) -> tuple[int, ...]:
        return sample_shape(self.unet.config)

    def _noise(self, generators: Sequence[torch.Generator]) -> Tensor:
        dtype = torch.float64 if self.unet.dtype == torch.float64 else torch.float32
        return draw_noise(generators, self._shape_of_one, dtype, self._execution_device)

    def _batches(
        self,
        chunks: Iterable[list[Any]],
        begin: Callable[[list[Any]], Iterator[DenoisingStep]],
        callback: Callable[[DenoisingStep], None] | None,
        total: int | None,
    ) -> Iterator[tuple[list[Any], Tensor]]:
        """Each chunk and its images, [B, C, H, W] in [0, 1] on the CPU: the results of the steps that `begin` returns.
        Signals [B, C, L] are in the units of their data."""
        low, high = self.signal_range or (0.0, 1.0)
        # Uses diffusers' own bar, so that pipe.set_progress_bar_config works; without a total there is no bar.
        with self.progress_bar(total=total) if total else tqdm(disable=True) as bar:  # type: ignore[misc]
            done = 0
            for chunk in chunks:
                x = torch.tensor(torch.nan)
                for step in begin(chunk):
                    x = step.x_prev
                    if callback is not None:
                        callback(step)
                    bar.update()
                if not x.isfinite().all():
                    raise UserError(f"the model predicted NaN or infinity in images {done} to {done + len(x) - 1}")
                done += len(x)
                unit = (x / 2 + 0.5).clamp(0.0, 1.0).cpu()
                yield chunk, unit if self.signal_range is None else low + (high - low) * unit

    def stream(
        self,
        seeds: Sequence[int],
        *,
        batch_size: int | None = None,
        class_labels: ClassLabels = None,
        options: SamplingOptions | None = None,
        callback: Callable[[DenoisingStep], None] | None = None,
        progress: bool = True,
        **keywords: Unpack[SamplingKeywords],
    ) -> Iterator[tuple[list[int], Tensor]]:
        """Sample batch by batch: yields the seeds of a batch and its images, float [B, C, H, W] in [0, 1] on the CPU.

        Arguments and errors as when calling the pipeline; invalid arguments raise at once, not with the first batch.
        """
        return self._stream(seeds, class_labels, with_keywords(options, keywords, batch_size), callback, progress)

    def _stream(
        self,
        seeds: Sequence[int],
        class_labels: ClassLabels,
        options: SamplingOptions,
        callback: Callable[[DenoisingStep], None] | None,
        progress: bool,
        latents: Tensor | None = None,
        on_step_end: Callable[[int, int, Tensor], Tensor] | None = None,
    ) -> Iterator[tuple[list[int], Tensor]]:
        check_seeds(seeds)
        labels = self._resolve_labels(class_labels, options.guidance_scale, seeds)
        prepared = self._prepare(options)

        def begin(rows: list[int]) -> Iterator[DenoisingStep]:
            generators = generators_for([seeds[row] for row in rows])
            x = self._noise(generators)  # always drawn: the noise of the steps follows it in the generator
            if latents is not None:
                x = latents[rows].to(x)
            guidance = self._guidance([labels[row] for row in rows], options.guidance_scale)
            model, scheduler = prepared.model(), prepared.scheduler
            return denoise(
                model, scheduler, x, generators, prepared.options, guidance=guidance, on_step_end=on_step_end
            )

        chunks = split_batches(range(len(seeds)), options.batch_size)
        total = prepared.evaluations * len(chunks) if progress else None
        if on_step_end is None:
            batches = self._batches(chunks, begin, callback, total)
        else:
            self._interrupt = False
            batches = self._batches(
                self._until_interrupt(chunks), lambda rows: self._until_interrupt(begin(rows)), callback, total
            )
        return (([seeds[row] for row in rows], x) for rows, x in batches)

    def _until_interrupt(self, parts: Iterable[T]) -> Iterator[T]:
        """The parts of the work, until a callback sets `_interrupt`."""
        for part in parts:
            yield part
            if self._interrupt:
                return

    def _resolve_labels(
        self, class_labels: ClassLabels, guidance_scale: float, seeds: Sequence[int], of: str = "seeds"
    ) -> list[int]:
        """The class of each seed (or of each item named by `of`); an arbitrary number for an unconditional model."""
        check_guidance(self.num_classes, class_labels, guidance_scale)
        if self.num_classes is None:
            return [0] * len(seeds)
        return resolve_labels(class_labels, seeds, self.num_classes, self.class_names, of)

    def _guidance(self, labels: list[int], scale: float) -> ClassGuidance | None:
        """The guidance of a batch of samples of these classes; None for an unconditional model."""
        if self.num_classes is None:
            return None
        return ClassGuidance(torch.tensor(labels).to(self._execution_device), self.num_classes, scale)


def split_batches(items: Sequence[Any], batch_size: int | None) -> list[list[Any]]:
    """Lists of `batch_size` items (64 by default). Raises `UserError` if there are none."""
    batch_size = DEFAULT_BATCH_SIZE if batch_size is None else batch_size
    if batch_size < 1 or len(items) < 1:
        raise UserError(f"nothing to sample: {len(items)} seeds, {batch_size} at a time")
    return [list(items[i : i + batch_size]) for i in range(0, len(items), batch_size)]
