"""The call arguments of diffusers' pipelines, translated to this package, where each image has its own seed."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from sddpm.diffusion.noise import MAX_SEED
from sddpm.errors import UserError
from sddpm.pipelines.class_guidance import ClassLabels, listed_labels

Generators = torch.Generator | Sequence[torch.Generator]
StepEndCallback = Callable[[Any, int, Tensor, dict[str, Any]], dict[str, Any] | None]
TENSOR_INPUTS = ("latents",)
# Arguments of diffusers' pipelines that do not exist here, and what to use instead.
FOREIGN = {
    "callback_steps": "use `callback`, which is called after every step",
    "class_label": "use `class_labels`",
    "height": "a model has one size, that of its training data",
    "negative_prompt": "use `class_labels` and `guidance_scale`",
    "num_images": "use `seeds`, one for each image, or `num_images_per_prompt`",
    "prompt": "use `class_labels`",
    "seed": "use `seeds`, one for each image",
    "sigmas": "use `timesteps`",
    "steps": "use `num_inference_steps`",
    "width": "a model has one size, that of its training data",
}


def refuse_foreign(keywords: Mapping[str, Any]) -> None:
    """Raise `UserError` for a keyword of other pipelines that does not exist here."""
    for name in keywords:
        if name in FOREIGN:
            raise UserError(f"this pipeline has no argument `{name}`: {FOREIGN[name]}")


def plan_images(
    batch_size: int | None,
    seeds: Sequence[int] | None,
    generator: Generators | None,
    latents: Tensor | None,
    class_labels: ClassLabels,
    num_images_per_prompt: int | None,
) -> tuple[Sequence[int], ClassLabels]:
    """The seed of each image, and class labels: one for all images, or one for each.

    Raises:
        UserError: both seeds and a generator; contradictory numbers of images; an invalid generator.
    """
    if seeds is not None and generator is not None:
        raise UserError("give `seeds` or `generator`, not both: a generator only draws the seeds")
    labels, each = listed_labels(class_labels), num_images_per_prompt
    counts = {}
    if seeds is not None:
        counts["seeds"] = len(seeds)
    if generator is not None and not isinstance(generator, torch.Generator):
        if not isinstance(generator, Sequence) or not all(isinstance(one, torch.Generator) for one in generator):
            raise UserError(f"generator must be a torch.Generator or a list of them, not {generator!r}; or use `seeds`")
        counts["generators"] = len(generator)
    if latents is not None:
        counts["latents"] = len(latents)
    if each is not None:
        if type(each) is not int or each < 1:
            raise UserError(f"num_images_per_prompt must be a whole number of at least 1, not {each!r}")
        counts["images by `num_images_per_prompt`"] = each * (1 if labels is None else len(labels))
        labels = None if labels is None else [label for label in labels for _ in range(each)]
    if len(set(counts.values())) > 1:
        listed = ", but ".join(f"{count} {name}" for name, count in counts.items())
        raise UserError(f"{listed}: one for each image is needed")
    otherwise = batch_size if batch_size is not None else 1 if labels is None else len(labels)
    count = next(iter(counts.values()), otherwise)
    if generator is not None:
        seeds = draw_seeds(generator, count)
    return range(count) if seeds is None else seeds, class_labels if labels is None else labels


def draw_seeds(generator: Generators, count: int) -> list[int]:
    """`count` seeds, all drawn from one generator or one from each of a list; this advances the generators."""
    each = [generator] * count if isinstance(generator, torch.Generator) else generator
    return [int(torch.randint(MAX_SEED + 1, (), generator=one, device=one.device)) for one in each]


def check_latents(latents: Any, shape_of_one: Sequence[int]) -> None:
    """Raise `UserError` unless `latents` are finite numbers [B, *shape_of_one], B >= 1."""
    wanted = f"latents must be a float tensor [B, {', '.join(map(str, shape_of_one))}], the noise to start from"
    if not isinstance(latents, Tensor):
        raise UserError(f"{wanted}, not {type(latents).__name__}")
    if not latents.is_floating_point() or tuple(latents.shape[1:]) != tuple(shape_of_one) or not len(latents):
        raise UserError(f"{wanted}, not {latents.dtype} {list(latents.shape)}")
    if not latents.isfinite().all():
        raise UserError("latents hold NaN or infinity")


def step_end(
    pipe: Any, callback: StepEndCallback | None, tensor_inputs: Sequence[str]
) -> Callable[[int, int, Tensor], Tensor] | None:
    """The `on_step_end` of `denoise` for diffusers' `callback_on_step_end`; None if there is none.

    Raises:
        UserError: at the call, unknown tensor names; during sampling, a callback that returns invalid latents.
    """
    unknown = [name for name in tensor_inputs if name not in TENSOR_INPUTS]
    if unknown:
        raise UserError(
            f"callback_on_step_end_tensor_inputs may name {', '.join(TENSOR_INPUTS)}, not {', '.join(unknown)}: "
            "use `callback`, which receives everything about a step"
        )
    if callback is None:
        return None

    def on_step_end(index: int, t: int, latents: Tensor) -> Tensor:
        returned = callback(pipe, index, torch.tensor(t), {name: latents for name in tensor_inputs})
        if returned is not None and not isinstance(returned, dict):
            raise UserError(f"callback_on_step_end must return a dict, not {type(returned).__name__}")
        changed = (returned or {}).get("latents", latents)
        if not isinstance(changed, Tensor) or changed.shape != latents.shape:
            got = list(changed.shape) if isinstance(changed, Tensor) else type(changed).__name__
            raise UserError(f"callback_on_step_end must return latents {list(latents.shape)}, not {got}")
        return changed.to(latents)

    return on_step_end
