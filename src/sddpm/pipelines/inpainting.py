"""Inpainting: repainting a part of images with a diffusion model (RePaint; Lugmayr et al., CVPR 2022)."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, Unpack

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from sddpm.choices import check_choice
from sddpm.diffusion.noise import clip_noise
from sddpm.diffusion.repaint import add_more_noise, resampling_walk, with_known
from sddpm.diffusion.solver_registry import single_step_solvers
from sddpm.diffusion.solvers import is_multistep
from sddpm.errors import UserError
from sddpm.pipelines.class_guidance import ClassGuidance
from sddpm.pipelines.denoise import Denoiser, DenoisingStep
from sddpm.pipelines.options import SamplingKeywords, SamplingOptions, with_keywords

Images = Tensor | Image.Image | Sequence[Image.Image]


def inpaint(
    model: nn.Module,
    scheduler: Any,
    x_T: Tensor,
    known: Tensor,
    unknown: Tensor,
    generators: Sequence[torch.Generator],
    options: SamplingOptions | None = None,
    *,
    jump_length: int,
    resamplings: int,
    guidance: ClassGuidance | None = None,
    **keywords: Unpack[SamplingKeywords],
) -> Iterator[DenoisingStep]:
    """Denoise where `unknown`. At every noise level the known part is replaced by the known image noised to that level.
    Segments of the reverse process are repeated several times, so that the two parts fit together.

    Args:
        model, scheduler, x_T, generators, options, guidance, keywords: as in `denoise`; functions of (index, t) receive
            the index of the level.
        known: images [B, C, H, W] in the scale of the model's input.
        unknown: bool, of a shape that broadcasts to that of `known`.
        jump_length, resamplings: as in `resampling_walk`.

    Raises:
        UserError: as in `denoise`, and for a multistep solver.
    """
    if is_multistep(scheduler):
        raise UserError(
            "inpainting repeats steps, which needs a solver whose steps do not depend on earlier ones: "
            f"{single_step_solvers()}"
        )
    options = with_keywords(options, keywords)
    denoiser = Denoiser.prepare(model, scheduler, generators, options, guidance)
    walk = resampling_walk(len(denoiser.scheduler.timesteps), jump_length, resamplings)
    return _walk(denoiser, clip_noise(x_T, options.noise_clip), known, unknown, walk, generators)


def _walk(
    denoiser: Denoiser,
    x: Tensor,
    known: Tensor,
    unknown: Tensor,
    walk: list[int],
    generators: Sequence[torch.Generator],
) -> Iterator[DenoisingStep]:
    timesteps, alphas_cumprod = denoiser.scheduler.timesteps.tolist(), denoiser.scheduler.alphas_cumprod
    alphas = [float(alphas_cumprod[t]) for t in timesteps] + [1.0]
    index = 0
    x = with_known(x, known, unknown, alphas[0], generators)
    for level, following in pairwise(walk):
        if following < level:
            x = add_more_noise(x, alphas[level], alphas[following], generators)
            continue
        step = denoiser.step(level, timesteps[level], x)
        x = with_known(step.x_prev, known, unknown, alphas[following], generators)
        yield replace(step, index=index, x_prev=x)
        index += 1


def as_images(images: Images, shape: tuple[int, ...]) -> Tensor:
    """Images as float [N, C, H, W] in [0, 1], from PIL images or a tensor that is uint8 or in [0, 1].

    Raises:
        UserError: another shape than the model's (C, H, W), or values outside [0, 1].
    """
    if not isinstance(images, Tensor):
        listed = [images] if isinstance(images, Image.Image) else list(images)
        mode = {1: "L", 3: "RGB"}.get(shape[0])
        if mode is None:
            raise UserError(f"a model of {shape[0]} channels needs images as a tensor [N, C, H, W]")
        arrays = [np.atleast_3d(np.asarray(image.convert(mode))) for image in listed]
        sizes = {array.shape for array in arrays}
        if len(sizes) != 1:
            raise UserError(f"images must be of one size, not of {len(sizes)}")
        images = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2)
    if images.ndim != 4 or tuple(images.shape[1:]) != shape:
        expected, found = (" x ".join(map(str, each)) for each in (shape, images.shape[1:]))
        raise UserError(f"the model needs images of {expected}, these are {found}")
    if images.dtype == torch.uint8:
        return images / 255
    if not (images >= 0).logical_and(images <= 1).all():
        raise UserError("images must be uint8 or lie in [0, 1]")
    return images


REGIONS = ("left", "right", "top", "bottom", "center", "around")


def region_mask(name: str, height: int, width: int) -> Tensor:
    """A mask bool [height, width] that is true in one half, in the centre (of half the height and width), or around the
    centre.

    Raises:
        UserError: a name that is not one of `REGIONS`.
    """
    check_choice("region", name, REGIONS)
    row, column = torch.arange(height)[:, None], torch.arange(width)[None, :]
    middle = (
        (row >= height // 4) & (row < height - height // 4) & (column >= width // 4) & (column < width - width // 4)
    )
    where = {
        "left": column < width // 2,
        "right": column >= width // 2,
        "top": row < height // 2,
        "bottom": row >= height // 2,
        "center": middle,
        "around": ~middle,
    }[name]
    return where.expand(height, width)


def as_mask(mask: Tensor | Image.Image, shape: tuple[int, ...]) -> Tensor:
    """The region to repaint, bool [1 or N, 1, H, W], from an image (white: repaint), or a tensor [H, W] or [N, 1, H, W]
    of bool or of 0 and 1.

    Raises:
        UserError: something else, another size than the model's, values between 0 and 1, or a mask that repaints
            nothing.
    """
    if isinstance(mask, Image.Image):
        mask = torch.from_numpy(np.asarray(mask.convert("L")) > 127)
    if not isinstance(mask, Tensor):
        raise UserError(f"the mask must be an image or a tensor, not {mask!r}")
    if mask.ndim == 2:
        mask = mask[None, None]
    if mask.ndim != 4 or mask.shape[1] != 1 or mask.shape[2:] != shape[1:]:
        raise UserError(
            f"the mask must be {shape[1]} x {shape[2]} or [N, 1, {shape[1]}, {shape[2]}], not {list(mask.shape)}"
        )
    if mask.dtype != torch.bool and not ((mask == 0) | (mask == 1)).all():
        raise UserError("the mask must be true, or 1, where images are repainted, and false, or 0, elsewhere")
    if not mask.any():
        raise UserError("the mask is false everywhere: it must be true where images are repainted")
    return mask.bool()
