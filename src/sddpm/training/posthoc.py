"""A model of averaged weights. The averaging length is chosen after training (`power_ema`)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import torch
from torch import Tensor

from sddpm.errors import UserError
from sddpm.files import Output, check_outputs
from sddpm.opening.tensors import read_safetensors
from sddpm.pipelines import load_pipeline
from sddpm.training.averaging import save_averaged
from sddpm.training.checkpoint import list_checkpoints
from sddpm.training.config_files import load_config
from sddpm.training.power_ema import WIDEST, combination, gamma_of, quadrature
from sddpm.training.snapshots import list_snapshots, prefix_of

Coefficients = Mapping[Path, Mapping[str, float]]  # by file, and by the prefix of its tensors' names


@dataclass(frozen=True)
class PostHoc:
    """How an average was made. step: the step after which it holds; snapshots: number of combined files; error:
    relative distance of its profile from the wanted one; None if plain weights were combined, which is an
    approximation."""

    step: int
    snapshots: int
    error: float | None


def posthoc_average(
    run_dir: str | PathLike[str], out: str | PathLike[str], length: float, step: int | None = None
) -> PostHoc:
    """Average a run's weights over any length and write them to `out`, a model with the run's config and history.

    A run with `train.ema_power` has stored averages; the combination nearest to the wanted profile is used (EDM2, arXiv
    2312.02696, section 3.2). For any other run the plain weights of the kept checkpoints are combined. This is an
    approximation: the weights between them are unknown, and the noise of single steps averages out less.

    Batch-norm statistics are averaged like the weights; thresholds and x0_scale saved with the run's model are left
    out.

    Args:
        run_dir: folder of a run.
        out: a new folder for the model.
        length: sigma_rel, the standard deviation of the profile as a share of the steps, above 0 and at most 0.2886.
        step: the step of the average; by default the last one stored.

    Raises:
        UserError: no such run, a length out of range, a step for which nothing was stored, damaged files.
    """
    run_dir, out = Path(run_dir), Path(out)
    check_outputs([Output(out, folder=("model",))], inputs=[run_dir], force=True)
    if not 0 < length <= WIDEST:
        raise UserError(f"length (sigma_rel) must be above 0 and at most {WIDEST:.4f}, not {length}")
    stored = list_snapshots(run_dir)
    plain = {int(path.name[5:]): path / "model.safetensors" for path in list_checkpoints(run_dir)}
    known = stored or plain
    if not known:
        raise UserError(f"{run_dir} has neither snapshots nor checkpoints: give the folder of a training run")
    step = max(known) if step is None else step
    if step not in known:
        raise UserError(f"{run_dir} has stored nothing at step {step}: choose one of {', '.join(map(str, known))}")
    files = {of_step: path for of_step, path in known.items() if of_step <= step}
    coefficients, error = (
        _of_snapshots(files, _widths(run_dir), step, length) if stored else (_of_weights(files, step, length), None)
    )
    pipeline = load_pipeline(run_dir)
    pipeline.unet.load_state_dict(_combined(coefficients, pipeline.unet.state_dict()))
    what = f"length {length:g} at step {step}, of {len(files)} {'snapshots' if stored else 'checkpoints'}"
    save_averaged(pipeline, run_dir, out, what)
    return PostHoc(step, len(files), error)


def _widths(run_dir: Path) -> tuple[float, ...]:
    widths = load_config(run_dir / "config.yaml").train.ema_power
    if widths is None:
        raise UserError(f"{run_dir} has snapshots, but its config.yaml has no train.ema_power")
    return widths


def _of_snapshots(
    files: Mapping[int, Path], widths: Sequence[float], step: int, length: float
) -> tuple[Coefficients, float]:
    terms = [(of_step, width) for of_step in files for width in widths]
    steps, gammas = [of_step for of_step, _ in terms], [gamma_of(width) for _, width in terms]
    x, error = combination(steps, gammas, step, gamma_of(length))
    coefficients: dict[Path, dict[str, float]] = {path: {} for path in files.values()}
    for (of_step, width), coefficient in zip(terms, x.tolist(), strict=True):
        coefficients[files[of_step]][prefix_of(width)] = coefficient
    return coefficients, error


def _of_weights(files: Mapping[int, Path], step: int, length: float) -> Coefficients:
    if len(files) < 2:
        raise UserError(
            f"only one checkpoint is kept up to step {step}: an average needs several (train.keep_checkpoints) or"
            " snapshots (train.ema_power)"
        )
    x = quadrature(list(files), step, gamma_of(length)).tolist()
    return {path: {"": coefficient} for path, coefficient in zip(files.values(), x, strict=True)}


def _combined(coefficients: Coefficients, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weighted sum, computed in float64 and returned in the dtypes of `like`; integers are from the last file.

    Raises:
        UserError: damaged files, files of another network, or a negative variance in the sum.
    """
    sums = {name: torch.zeros_like(value, dtype=torch.float64) for name, value in like.items()}
    shapes = {name: value.shape for name, value in like.items()}
    for file, shares in coefficients.items():
        tensors = read_safetensors(file)
        for prefix, share in shares.items():
            values = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
            if {name: value.shape for name, value in values.items()} != shapes:
                raise UserError(f"{file} does not fit the model of this run")
            for name, value in values.items():
                if value.is_floating_point():
                    sums[name].add_(value.double(), alpha=share)
                else:
                    sums[name] = value
    if any(name.endswith("running_var") and (value < 0).any() for name, value in sums.items()):
        raise UserError("the stored steps are too far apart for an average of this length: choose a larger length")
    return {name: value.to(like[name].dtype) for name, value in sums.items()}
