"""Features of images, stored in shards named by pixels and network, so that no feature is computed twice."""

import json
from pathlib import Path

import torch

from sddpm.evaluation.features.extractor import Extractor
from sddpm.evaluation.images import ImageSet
from sddpm.evaluation.processes import Processes
from sddpm.evaluation.shards import Shards, fill
from sddpm.hashes import short_hash

SHARD = 256
_EDITION = 2  # increase it when the same settings give other features, so that old ones are not reused


def extract(
    extractor: Extractor, images: ImageSet, work: Path, processes: Processes, title: str = "features"
) -> dict[str, Shards]:
    """{feature: rows [N, length], float32}, where each process computes its share of those missing in `work`.

    Raises:
        UserError: the folder is not writable.
    """
    stores = {
        name: Shards(work / "features" / feature_key(extractor, name, images), images.count, SHARD)
        for name in extractor.lengths
    }
    missing = sorted({i for store in stores.values() for i in store.missing()})

    def make(i: int) -> None:
        start, stop = next(iter(stores.values())).bounds[i]
        found = extractor(images.gather(torch.arange(start, stop)))
        for name, rows in found.items():
            stores[name].write(i, rows.numpy())

    fill(missing, make, processes, title, -(-images.count // SHARD))
    return stores


def feature_key(extractor: Extractor, feature: str, images: ImageSet) -> str:
    """The name under which features are stored."""
    plain = json.dumps([_EDITION, extractor.about, feature, images.identity], sort_keys=True)
    return f"{feature}-{short_hash(plain)}"
