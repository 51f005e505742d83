"""KAD of several samplers of one model with the same seeds, as table rows compared with the first."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sddpm.data import open_dataset, unit_to_uint8
from sddpm.diffusion.noise import draw_noise, generators_for
from sddpm.evaluation.features.extractor import fad_extractor
from sddpm.evaluation.metrics.distances import kid_to
from sddpm.evaluation.metrics.score import Features
from sddpm.guidance.bootstrap import draw_weights, estimate

FIRST_SEED = 1_000_000
BATCH = 50


class PairedKad:
    """Scores samplers against 10,000 training images of Fashion-MNIST or MNIST, in the features of FSVAE's autoencoder.

    Each call of `row` adds a sampler; the first is the baseline.
    """

    def __init__(self, data: Path, name: str, size: int, samples: int):
        self.size, self.samples = size, samples
        self._extractor = fad_extractor(data / "fad" / f"{name.split('-')[0]}_64.pth", 1)
        images = open_dataset(name, data / name, split="train", image_size=size, channels=1)
        known: Any = self._extractor(torch.stack([images[i] for i in range(10_000)]))["fad"].numpy()
        self._distance = kid_to(Features("training images", known))
        self._draws = draw_weights(samples, 300, seed=0)
        self._first: tuple[Any, Any] | None = None
        print("| sampler | KAD | minus the first, 95 % interval |\n|---|---|---|", flush=True)

    @torch.no_grad()
    def row(self, name: str, draw: Callable[[Tensor, torch.Generator], Tensor]) -> dict[str, Any]:
        """draw: (noise [B, 1, size, size], a generator for noise in between) -> pictures [B, ...] in [-1, 1]."""
        found = []
        for start in range(0, self.samples, BATCH):
            seeds = range(FIRST_SEED + start, FIRST_SEED + min(start + BATCH, self.samples))
            noise = draw_noise(generators_for(seeds), (1, self.size, self.size), torch.float32, "cpu")
            drawn = draw(noise, torch.Generator().manual_seed(seeds[0]))
            found.append(self._extractor(unit_to_uint8(drawn / 2 + 0.5))["fad"].double())
        features = torch.cat(found)
        value, resampled = self._distance(features), self._distance.weighted(features, self._draws)
        self._first = (value, resampled) if self._first is None else self._first
        less = estimate(value - self._first[0], resampled - self._first[1])
        low, high = less.interval
        print(f"| {name} | {value:.2f} | {less.value:+.2f} [{low:+.2f}, {high:+.2f}] |", flush=True)
        return {"sampler": name, "kad": value, "less_first": [less.value, low, high]}


def data_set(model: str) -> str:
    """The data set of a model, by its name."""
    return "fashion-mnist" if "fashion" in Path(model).name else "mnist"
