"""One-dimensional signals: from a file of arrays, or drawn from a Gaussian process with a known spectrum."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sddpm.data.dataset import ImageDataset, Indices
from sddpm.errors import UserError
from sddpm.opening.arrays import is_npy, npz_names, read_npy, read_npz
from sddpm.opening.files import check_file, user_path

GP_LENGTH, GP_STD, GP_SMOOTHNESS, GP_COUNT = 64, 0.25, 0.5, 10_000


@dataclass(frozen=True)
class SignalRange:
    """The values of the model's -1 and 1 in the units of the data."""

    low: float
    high: float

    def to_model(self, signals: Tensor) -> Tensor:
        return (signals - self.low) * (2 / (self.high - self.low)) - 1

    def from_unit(self, signals: Tensor) -> Tensor:
        """From [0, 1], the range of the pipeline's samples, to the units of the data."""
        return self.low + (self.high - self.low) * signals


class SignalDataset(ImageDataset):
    """N signals, float32 [C, L], in [-1, 1], the scale of the model; `image_size` is L.

    signal_range: the values of -1 and 1. labels, class_names, names: as in `ImageDataset`.
    """

    def __init__(self, name: str, signals: Tensor, signal_range: SignalRange, labels: np.ndarray | None = None):
        super().__init__(name, [f"{name}/{i:05d}" for i in range(len(signals))], labels, [])
        self.channels, self.image_size = signals.shape[1:]
        self.signal_range = signal_range
        self.signals = signal_range.to_model(signals.double()).float()

    def gather(self, indices: Indices) -> Tensor:
        return self.signals[torch.as_tensor(indices, dtype=torch.long)]


def open_signals(name: str, path: str | Path | None = None, limit: int | None = None) -> SignalDataset:
    """Open the signals of a file ("signals"), or draw those of "gaussian-process", which takes no path.

    A file is an .npy of signals [N, C, L] or [N, L] in any units, or an .npz with them in `signals` (or its only, or
    first, array) and optionally integer `labels` [N]. The smallest and the largest value become -1 and 1.

    Raises:
        UserError: no such file, or invalid signals: another shape, NaN, or a constant.
    """
    if name == "gaussian-process":
        if path is not None:
            raise UserError("gaussian-process is generated: leave out the path")
        return SignalDataset(name, gaussian_process(GP_COUNT, seed=0)[:limit], SignalRange(-1.0, 1.0))
    if path is None:
        raise UserError("signals needs `path`: an .npy or .npz of signals [N, C, L] or [N, L]")
    file = user_path(path)
    signals, labels = _read(file)
    if signals.ndim == 2:
        signals = signals[:, None]
    if signals.ndim != 3 or signals.size == 0 or signals.dtype.kind not in "fiu":
        raise UserError(f"{file} must hold numbers [N, C, L] or [N, L], not {signals.dtype} {list(signals.shape)}")
    if not np.isfinite(signals).all() or signals.min() == signals.max():
        raise UserError(f"{file} holds NaN, infinity or a single constant value: signals must be finite and vary")
    if labels is not None and (labels.shape != (len(signals),) or labels.dtype.kind not in "iu"):
        raise UserError(
            f"{file}: labels must be whole numbers [{len(signals)}], not {labels.dtype} {list(labels.shape)}"
        )
    spread = SignalRange(float(signals.min()), float(signals.max()))
    tensor = torch.from_numpy(np.asarray(signals[:limit], np.float64))
    return SignalDataset(file.stem, tensor, spread, None if labels is None else labels[:limit])


def _read(file: Path) -> tuple[np.ndarray, np.ndarray | None]:
    if is_npy(check_file(file)):
        return read_npy(file, ".npy of numbers"), None
    names = npz_names(file, ".npy or .npz of numbers")
    keys = [name for name in names if name != "labels"]
    if not keys:
        raise UserError(f"{file} is not an .npy or .npz of numbers: it holds no array")
    chosen = "signals" if "signals" in keys else keys[0]
    arrays = read_npz(file, ".npy or .npz of numbers", (chosen, "labels"))
    return arrays[chosen], arrays.get("labels")


def gaussian_process(count: int, seed: int) -> Tensor:
    """Periodic signals [count, 1, 64] of a Gaussian process, float64.

    Covariance at a distance of d samples: 0.25^2 exp(-2 sin^2(pi d / 64) / 0.5^2). Its Fourier coefficients are
    independent, with the variances `gaussian_process_spectrum`.
    """
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(count, 1, GP_LENGTH, generator=generator, dtype=torch.float64)
    return torch.fft.irfft(torch.fft.rfft(noise) * gaussian_process_spectrum().sqrt(), GP_LENGTH)


def gaussian_process_spectrum() -> Tensor:
    """Mean of |rfft(signal)|^2 / 64 of the process, [33] float64: the Fourier transform of its covariance."""
    distance = torch.arange(GP_LENGTH, dtype=torch.float64)
    covariance = GP_STD**2 * torch.exp(-2 * torch.sin(torch.pi * distance / GP_LENGTH) ** 2 / GP_SMOOTHNESS**2)
    return torch.fft.rfft(covariance).real.clamp(min=0)
