"""The targets of a student of few evaluations: the ends of its teacher's steps (`diffusion.distillation`)."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from sddpm.diffusion.distillation import angles, student_target, walk
from sddpm.training.config import DiffusionConfig, DistillConfig
from sddpm.training.noise import noise_schedule, walk_timesteps

# x_t [B, C, H, W], t [B] on its device, {"class_labels": [B]} or {} -> a network's prediction, without gradient
Teacher = Callable[[Tensor, Tensor, Mapping[str, Tensor]], Tensor]


def student_targets(
    diffusion: DiffusionConfig, distill: DistillConfig, teacher: Teacher, num_classes: int | None
) -> Teacher:
    """A function (x_t, t, labels), t LongTensor [B] of the student's evaluations on the CPU, that returns v* [B, ...].

    Raises:
        UserError: evaluations that coincide on the noise schedule.
    """
    alphas_cumprod, nodes = noise_schedule(diffusion).alphas_cumprod, walk_timesteps(diffusion, distill)
    phi, own = angles(alphas_cumprod), nodes[:, 0]
    ends = torch.cat([phi[own[1:]], phi.new_zeros(1)])
    row_of = torch.full((len(phi),), -1)
    row_of[own] = torch.arange(len(own))

    def targets(x_t: Tensor, t: Tensor, labels: Mapping[str, Tensor]) -> Tensor:
        rows = row_of[t]
        velocity = guided(teacher, labels, distill.guidance_scale, num_classes)
        steps, end = nodes[rows].unbind(1), ends[rows]
        z_end = walk(velocity, x_t, steps, end, phi, order=distill.order, x0_scale=distill.x0_scale)
        return student_target(x_t, z_end, phi[t], end)

    return targets


def guided(
    teacher: Teacher, labels: Mapping[str, Tensor], scale: float, num_classes: int | None
) -> Callable[[Tensor, Tensor], Tensor]:
    """The teacher's v for the labels of a batch, guided towards them if `scale` is not 1: u + scale (c - u) (Ho &
    Salimans, 2021), in one evaluation of twice the batch. Images without a class have c = u."""
    if scale == 1 or num_classes is None:
        return lambda z, t: teacher(z, t, labels)
    none = torch.full_like(labels["class_labels"], num_classes)
    both = {"class_labels": torch.cat([labels["class_labels"], none])}

    def velocity(z: Tensor, t: Tensor) -> Tensor:
        of_class, of_none = teacher(torch.cat([z, z]), torch.cat([t, t]), both).chunk(2)
        return of_none + scale * (of_class - of_none)

    return velocity
