"""Statistics files: mu and sigma in an .npz, in the format of pytorch-fid, EDM, ADM and SDDPM."""

import json
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sddpm.errors import UserError
from sddpm.evaluation.statistics import Gaussian
from sddpm.files import atomic_path
from sddpm.opening.arrays import read_npz
from sddpm.opening.json_files import parse_json

KEYS = {"pool": ("mu", "sigma"), "spatial": ("mu_s", "sigma_s")}  # ADM's names for those of sFID
LARGEST = 1e100  # squares of larger numbers overflow


@dataclass(frozen=True)
class StatisticsFile:
    """Gaussians by kind ("pool": FID's or FAD's, "spatial": sFID's), and facts about how they were made."""

    gaussians: dict[str, Gaussian]
    about: dict[str, Any] = field(default_factory=dict)


def is_statistics_file(path: Path) -> bool:
    """Whether `path` is an .npz with a mu or a sigma (also true for a damaged .npz, which is refused later)."""
    if path.suffix.lower() != ".npz" or not path.is_file():
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name in ("mu.npy", "sigma.npy") for name in archive.namelist())
    except (OSError, zipfile.BadZipFile):
        return True


def holds_images(path: Path) -> bool:
    """Whether a statistics file also contains the images, in arr_0, like ADM's reference batches."""
    try:
        with zipfile.ZipFile(path) as archive:
            return "arr_0.npy" in archive.namelist()
    except (OSError, zipfile.BadZipFile):
        return False


def read_statistics(path: Path) -> StatisticsFile:
    """Read an .npz with mu [D] and sigma [D, D] (and mu_s, sigma_s). No pickle is executed.

    Raises:
        UserError: no such file, a truncated or damaged one, or contents that are not a mean and a covariance.
    """
    if not Path(path).is_file():
        raise UserError(f"no statistics file at {path}")
    arrays = read_npz(path, ".npz of statistics", ("about", "count", *KEYS["pool"], *KEYS["spatial"]))
    gaussians, count = {}, _count(arrays)
    for kind, (mu, sigma) in KEYS.items():
        if kind == "pool" or mu in arrays or sigma in arrays:
            gaussians[kind] = _gaussian(path, arrays, mu, sigma, count)
    return StatisticsFile(gaussians, _about(arrays))


def write_statistics(path: Path, statistics: StatisticsFile) -> None:
    """Write the format that `read_statistics` and the tools above read: mu and sigma as float64, and also the count and
    facts about their making as JSON text, which those tools ignore. Raises `UserError` if it cannot be written."""
    arrays: dict[str, Any] = {"about": np.array(json.dumps(statistics.about))}
    for kind, gaussian in statistics.gaussians.items():
        mu, sigma = KEYS[kind]
        arrays |= {mu: gaussian.mean.numpy(), sigma: gaussian.covariance.numpy()}
        if gaussian.count is not None:
            arrays["count"] = np.array(gaussian.count)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)


def _count(arrays: dict[str, Any]) -> int | None:
    count = arrays.get("count")
    return int(count) if count is not None and count.shape == () and count.dtype.kind in "iu" else None


def _about(arrays: dict[str, Any]) -> dict[str, Any]:
    try:
        about = parse_json(str(arrays["about"]), "about")
    except (KeyError, ValueError):  # UserError is a ValueError
        return {}
    return about if isinstance(about, dict) else {}


def _gaussian(path: Path, arrays: dict[str, Any], mu: str, sigma: str, count: int | None) -> Gaussian:
    for key in (mu, sigma):
        if key not in arrays:
            raise UserError(
                f"{path} has no {key}: statistics need {mu} and {sigma}, found {', '.join(arrays) or 'none'}"
            )
        if arrays[key].dtype.kind not in "fiu":
            raise UserError(f"{path}: {key} must be numbers, not {arrays[key].dtype}")
    mean, covariance = (torch.from_numpy(arrays[key].astype(np.float64)) for key in (mu, sigma))
    if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)):
        raise UserError(
            f"{path}: {mu} {list(mean.shape)} and {sigma} {list(covariance.shape)} must have the shapes [D] and [D, D]"
        )
    if len(mean) == 0:
        raise UserError(f"{path}: {mu} and {sigma} are empty: they need at least one feature")
    if not (mean.abs().max() < LARGEST and covariance.abs().max() < LARGEST):  # also refuses NaN
        raise UserError(f"{path}: {mu} or {sigma} is not finite, or not below {LARGEST:g}")
    scale = covariance.abs().max()
    if (covariance - covariance.T).abs().max() > 1e-4 * scale or covariance.diagonal().min() < -1e-4 * scale:
        raise UserError(f"{path}: {sigma} is not a covariance: it is not symmetric, or has negative variances")
    return Gaussian(mean, (covariance + covariance.T) / 2, count)
