"""Compares samples of a model of signals with the truth: their spectrum with that of the Gaussian process.

sddpm train gaussian_process
sddpm sample runs/gaussian_process --count 500 --batch-size 250 --out samples.npz
python examples/gaussian_process.py samples.npz spectrum.png
"""

import sys

import numpy as np
import torch
from matplotlib.figure import Figure

from sddpm.data.signals import gaussian_process, gaussian_process_spectrum
from sddpm.files import atomic_path


def spectrum(signals: torch.Tensor) -> torch.Tensor:
    """Mean of |rfft|^2 / L over signals [N, 1, L]."""
    return torch.fft.rfft(signals.double()).abs().square().mean((0, 1)) / signals.shape[-1]


def main(samples: str, out: str) -> None:
    with np.load(samples) as stored:
        signals = torch.from_numpy(stored["arr_0"])
    truth, drawn = gaussian_process_spectrum(), gaussian_process(len(signals), seed=1)
    found, floor = spectrum(signals), spectrum(drawn)
    print(f"standard deviation {signals.std():.4f}, that of the process is 0.25")
    strong = truth > 1e-3 * truth.max()
    for name, each in (("samples", found), ("as many exact draws", floor)):
        error = (each / truth - 1)[strong].abs()
        print(f"{name}: error of the spectrum at its {strong.sum()} strongest frequencies, mean {error.mean():.3f}, "
              f"largest {error.max():.3f}")  # fmt: skip
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[1.3, 1])
    for i, (rows, name, colour) in enumerate(((drawn, "process", "tab:grey"), (signals, "samples", "tab:blue"))):
        for j, signal in enumerate(rows[:6]):
            left.plot(signal[0].numpy() - 1.6 * i, color=colour, alpha=0.8, linewidth=1, label=name if j == 0 else None)
    left.set_yticks([])
    left.set_xlabel("sample of the signal")
    left.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, fontsize=8, frameon=False)
    for values, name, style in ((truth, "process", "k-"), (floor, f"{len(signals)} exact draws", "k:"),
                                (found, f"{len(signals)} samples", "C0.-")):  # fmt: skip
        right.semilogy(values[:17].numpy(), style, label=name, linewidth=1)
    right.set_ylim(1e-8, 10)
    right.set_xticks(range(0, 17, 4))
    right.set_xlabel("frequency")
    right.set_ylabel("power")
    right.legend(fontsize=8)
    with atomic_path(out) as path:
        figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main(*sys.argv[1:])
