"""Distillation to few evaluations: the student's time steps, the teacher's path from each, the student's target.

A noise level is given by its angle phi = arccos sqrt(a), a = alphas_cumprod, from 0 (the image) to pi / 2 (noise):
z_phi = cos(phi) x_0 + sin(phi) epsilon, and v = d z_phi / d phi (Salimans & Ho, 2022, arXiv 2202.00512, appendix D).
One step of DDIM from phi to phi - d is a rotation, cos(d) z - sin(d) v. A student that should reach the end z'' of
several teacher steps in one step must therefore predict v* = (cos(d) z - z'') / sin(d).
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sddpm.choices import check_choice
from sddpm.diffusion.timesteps import respaced_timesteps
from sddpm.errors import UserError

GRIDS = ("uniform", "log-snr", "angle")

# (z [B, ...], t LongTensor [B]) -> v [B, ...]
Velocity = Callable[[Tensor, Tensor], Tensor]


def angles(alphas_cumprod: Tensor) -> Tensor:
    """arccos sqrt(alphas_cumprod) of each time step, exact at both ends: float64 [N] from [N]."""
    kept = alphas_cumprod.double()
    return torch.atan2((1.0 - kept).sqrt(), kept.sqrt())


def grid_timesteps(grid: str, evaluations: int, alphas_cumprod: Tensor) -> list[int]:
    """The time steps of a number of evaluations, decreasing from N - 1 and nearest to evenly spaced levels.

    Level i of n lies i / n of the way from the level of t = N - 1 to that of the clean image. Every k-th time step of
    the grid of k n evaluations is in the grid of n.

    Args:
        grid: the quantity that is evenly spaced: "uniform" in t + 1, the number of noising steps, which gives
            `respaced_timesteps`; "angle"; "log-snr", log(a / (1 - a)), which is infinite for the clean image, so the
            value at t = 0 is used instead.
        evaluations: n, at least 1.
        alphas_cumprod: table [N].

    Raises:
        UserError: an unknown grid, or fewer than 1 evaluation; or evaluations that coincide.
    """
    check_choice("grid", grid, GRIDS)
    n, total = evaluations, len(alphas_cumprod)
    if n < 1:
        raise UserError(f"distillation needs at least 1 evaluation, not {n}")
    if grid == "uniform":
        found = respaced_timesteps(n, total) if n <= total else []
    else:
        phi = angles(alphas_cumprod)
        level = phi if grid == "angle" else phi.tan().log()
        first, last = level[-1].item(), 0.0 if grid == "angle" else level[0].item()
        found = [int((level - (first + (last - first) * i / n)).abs().argmin()) for i in range(n)]
    if len(set(found)) < n:
        raise UserError(
            f"{n} evaluations of the {grid} grid coincide on a noise schedule of {total} time steps: choose fewer "
            "evaluations or substeps, or another grid"
        )
    return found


def walk(
    velocity: Velocity,
    z: Tensor,
    timesteps: Sequence[Tensor],
    end: Tensor,
    phi: Tensor,
    *,
    order: int = 1,
    x0_scale: float = 1.0,
    clip: bool = True,
) -> Tensor:
    """Run a teacher over several steps of DDIM (order 1) or DPM-Solver++(2M) (order 2; Lu et al., 2022).

    Args:
        velocity: the teacher.
        z: start [B, ...], at timesteps[0].
        timesteps: time steps of the evaluations, a LongTensor [B] for each step, on the CPU.
        end: the angle after the last step [B]; 0 is the clean image; a step to it is of first order.
        phi: `angles` [N], on the CPU.
        order: 1, or 2, where each step but the first extrapolates x_0 from the last two evaluations.
        x0_scale: factor of the predicted clean image.
        clip: clamp the clean image to [-1, 1], also when it is extrapolated. The student's single step predicts a mean
            of these clamped images, so its own clamp in sampling has no effect on it.

    Returns:
        z'' [B, ...] at the angle `end`.
    """
    levels = [*(phi[t] for t in timesteps), end]
    x0, before = None, None
    for i, t in enumerate(timesteps):
        now, after = levels[i], levels[i + 1]
        cos, sin = _shaped(now.cos(), z), _shaped(now.sin(), z)
        v = velocity(z, t.to(z.device, non_blocking=True)).to(z.dtype)
        x0, before = _clamped(x0_scale * (cos * z - sin * v), clip), x0
        target = x0
        if order == 2 and before is not None:
            half_ratio = _log_snr(now, after) / _log_snr(levels[i - 1], now) / 2
            half_ratio = torch.where(after > 0, half_ratio, 0.0)
            target = _clamped(x0 + _shaped(half_ratio, z) * (x0 - before), clip)
        ratio = _shaped(after.sin() / now.sin(), z)
        z = _shaped(after.cos(), z) * target + ratio * (z - cos * target)
    return z


def student_target(z: Tensor, z_end: Tensor, phi: Tensor, end: Tensor) -> Tensor:
    """v* [B, ...] with which one DDIM step leads from z at the angles phi [B] to z_end at the angles `end` [B]."""
    d = phi - end
    return (_shaped(d.cos(), z) * z - z_end) / _shaped(d.sin(), z)


def _log_snr(of: Tensor, to: Tensor) -> Tensor:
    """The increase of log(cos / sin) from one angle to the other, [B]; infinite if the second is 0."""
    return torch.log(of.tan()) - torch.log(to.tan())


def _clamped(x0: Tensor, clip: bool) -> Tensor:
    return x0.clamp(-1.0, 1.0) if clip else x0


def _shaped(values: Tensor, like: Tensor) -> Tensor:
    """[B] on the CPU as a factor of `like` [B, ...]."""
    shaped = values.reshape(-1, *[1] * (like.ndim - 1)).to(like.dtype)
    return shaped.to(like.device, non_blocking=like.device.type != "mps")
