"""Distillation to few evaluations: where a student is evaluated, how its teacher walks from there, what it learns.

A noise level is known by its angle phi = arccos sqrt(a), a = alphas_cumprod, from 0 (the image) to pi / 2 (noise):
z_phi = cos(phi) x_0 + sin(phi) epsilon, of which v = d z_phi / d phi (Salimans & Ho, 2022, arXiv
2202.00512, appendix D). One step of DDIM from phi to phi - d is a rotation, cos(d) z - sin(d) v, so
a student whose one step is to end at z'', where its teacher came in several, has to predict
v* = (cos(d) z - z'') / sin(d).
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
    """The time steps of so many evaluations, falling from N - 1, the nearest ones to levels that are evenly apart.

    Level i of n lies i / n of the way from that of t = N - 1 to that of the clean image. The grid of k n evaluations
    has that of n as every k-th.

    Args:
        grid: in what they are evenly apart: "uniform" in t + 1, the number of noising steps, which is
            `respaced_timesteps`; "angle"; "log-snr", log(a / (1 - a)), which is infinite of the clean image, so that of
            t = 0 stands in for it.
        evaluations: n, at least 1.
        alphas_cumprod: table [N].

    Raises:
        UserError: an unknown grid, or fewer than 1 evaluation; or evaluations that would coincide.
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
    """Follow a teacher over several steps of DDIM (order 1) or DPM-Solver++(2M) (order 2; Lu et al., 2022).

    Args:
        velocity: the teacher.
        z: where to start [B, ...], at timesteps[0].
        timesteps: at which it is evaluated, a LongTensor [B] for each step, on the CPU.
        end: the angle after the last step [B]; 0 is the clean image, to which a step is of first order.
        phi: `angles` [N], on the CPU.
        order: 1, or 2, where each step but the first extrapolates x_0 from the last two evaluations.
        x0_scale: times which the predicted clean image is taken.
        clip: clamp the clean image to [-1, 1], extrapolated too. The step that a student takes instead heads for a mean
            of these images, so in sampling its own clamp does not touch it.

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
    """v* [B, ...] with which one step of DDIM leads from z at the angles phi [B] to z_end at the angles `end` [B]."""
    d = phi - end
    return (_shaped(d.cos(), z) * z - z_end) / _shaped(d.sin(), z)


def _log_snr(of: Tensor, to: Tensor) -> Tensor:
    """How far log(cos / sin) rises from one angle to the other, [B]; infinite to 0."""
    return torch.log(of.tan()) - torch.log(to.tan())


def _clamped(x0: Tensor, clip: bool) -> Tensor:
    return x0.clamp(-1.0, 1.0) if clip else x0


def _shaped(values: Tensor, like: Tensor) -> Tensor:
    """[B] on the CPU as a factor of `like` [B, ...]."""
    shaped = values.reshape(-1, *[1] * (like.ndim - 1)).to(like.dtype)
    return shaped.to(like.device, non_blocking=like.device.type != "mps")
