"""Scores of the samples of each choice, stored in the work folder so that nothing is computed twice."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from sddpm.evaluation.extraction import extract
from sddpm.evaluation.features.extractor import Extractor
from sddpm.evaluation.images import ImageSet
from sddpm.evaluation.metrics.distances import Distance, mean_of
from sddpm.evaluation.processes import Processes
from sddpm.evaluation.sampling import SamplingSettings, sample_images
from sddpm.evaluation.shards import Shards
from sddpm.guidance.bootstrap import draw_weights
from sddpm.guidance.proxy import NoisyImages, noise_losses
from sddpm.guidance.space import Point
from sddpm.hashes import short_hash
from sddpm.pipelines import SpikingDiffusionPipeline
from sddpm.pipelines.threshold_guidance import to_json


class Points(Protocol):
    """A search space of points. origin: the baseline of all comparisons."""

    @property
    def origin(self) -> Point: ...

    def options(self, point: Point) -> dict[str, Any]:
        """Fields of `SamplingOptions` at that point."""
        ...

    def describe(self, point: Point) -> str:
        """The point in words."""
        ...


@dataclass(frozen=True)
class Trials:
    """Samples, distances and losses at the points of a space.

    digest: of the model. sampling: all settings except seeds and those of the space. count: samples in a seed set; a
    seed set is named by its first seed. feature: the extractor's feature in which `distance` measures. noisy: the
    images for the loss. stores: the opened features, by choice and seed set.
    """

    pipeline: SpikingDiffusionPipeline
    digest: str
    space: Points
    sampling: SamplingSettings
    count: int
    extractor: Extractor
    feature: str
    distance: Distance
    resamples: int
    noisy: NoisyImages | None
    work: Path
    processes: Processes
    stores: dict[str, Shards] = field(default_factory=dict)

    def value(self, point: Point, seed_sets: Sequence[int]) -> float:
        """The distance of all samples of these seed sets together."""
        return self.distance(self._rows(point, seed_sets))

    def resampled(self, point: Point, seed_sets: Sequence[int]) -> Tensor:
        """The distances [resamples] of samples drawn again within each seed set; the same draws at every point."""

        def make() -> Tensor:
            draws = [draw_weights(self.count, self.resamples, first) for first in seed_sets]
            return self.distance.weighted(self._rows(point, seed_sets), torch.cat(draws, 1))

        stores = [self._store(point, first).folder.name for first in seed_sets]
        key = ["resampled", self.distance.identity, self.resamples, self.count, *stores, *seed_sets]
        return self._kept("resampled", key, self.resamples, make)

    def losses(self, point: Point) -> Tensor:
        """Mean squared error of the predicted noise, float64 [images, tenths of the diffusion steps]."""
        noisy = self.noisy
        assert noisy is not None
        thresholds = self.space.options(point)["v_threshold"]
        assert thresholds is not None
        identity = hashlib.sha256(noisy.images.numpy().tobytes()).hexdigest()
        key = ["losses", self.digest, to_json(thresholds), identity, noisy.first_seed, self.pipeline.device.type]
        return self._kept("losses", key, len(noisy.images), lambda: noise_losses(self.pipeline, noisy, thresholds))

    def resampled_losses(self, point: Point) -> Tensor:
        """The mean losses [resamples] of images drawn again; the same draws at every point."""
        losses = self.losses(point).mean(1, keepdim=True)
        return mean_of(losses, draw_weights(len(losses), self.resamples, 0))

    def _rows(self, point: Point, seed_sets: Sequence[int]) -> Tensor:
        return torch.cat([torch.from_numpy(self._store(point, first)[:]).double() for first in seed_sets])

    def _store(self, point: Point, first_seed: int) -> Shards:
        """The features of a seed set; missing samples are computed."""
        name = json.dumps([point, first_seed])
        if name not in self.stores:
            sampling = replace(self.sampling, **self.space.options(point), first_seed=first_seed)
            images = sample_images(self.pipeline, self.digest, sampling, self.count, self.work, self.processes)
            found = extract(self.extractor, ImageSet(images, self.count), self.work, self.processes)
            self.stores[name] = found[self.feature]
        return self.stores[name]

    def _kept(self, kind: str, key: list, count: int, make: Callable[[], Tensor]) -> Tensor:
        name = short_hash(json.dumps(key))
        shards = Shards(self.work / kind / name, count, count)
        if shards.missing():
            shards.write(0, make().numpy())
        return torch.from_numpy(shards[:])
