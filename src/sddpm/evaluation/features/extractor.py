"""One object for both feature networks: uint8 images in, named feature vectors out, with the facts needed to reproduce
them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sddpm.choices import check_choice
from sddpm.errors import UserError
from sddpm.evaluation.features.fad import FAD_DIM, FadEncoder, preprocess_fad
from sddpm.evaluation.features.inception import FEATURES, InceptionV3
from sddpm.evaluation.features.preprocess import PREPROCESSINGS, preprocess
from sddpm.evaluation.features.weights import inception_weights, load_weights
from sddpm.hashes import sha256_of
from sddpm.inference.torch_ops import without_tf32

NETWORKS = {"inception": "inception-2015-12-05", "fad": "fsvae-autoencoder"}
"""The identity of each feature network, as statistics files name it."""
LENGTHS = {"fad": FAD_DIM} | {name: length for name, (_, length) in FEATURES.items()}
"""{feature: its length}, known without the weights."""


@dataclass(frozen=True)
class Extractor:
    """A feature network with its weights and preprocessing.

    lengths: {feature: its length}.
    about: identifies the features: network, preprocessing, sha256 of the weights.
    path: file of the weights.
    """

    lengths: dict[str, int]
    about: dict[str, Any]
    path: Path
    compute: Callable[[Tensor], dict[str, Tensor]]
    batch_size: int

    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        """uint8 [N, C, H, W] -> {feature: float32 [N, length]} on the CPU, computed in batches.

        Raises:
            UserError: images that are not uint8 [N, 1 or 3, H, W].
        """
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3):
            raise UserError(f"images must be uint8 [N, 1 or 3, H, W], not {images.dtype} {list(images.shape)}")
        with torch.inference_mode(), without_tf32():
            parts = [self.compute(batch) for batch in images.split(self.batch_size)]
            return {name: torch.cat([part[name].float().cpu() for part in parts]) for name in self.lengths}


def inception_extractor(
    features: Sequence[str],
    *,
    preprocessing: str = "pytorch-fid",
    weights: Path | None = None,
    device: torch.device | str = "cpu",
    batch_size: int | None = None,
) -> Extractor:
    """Inception features (names of `FEATURES`) with weights from a file, the cache or a download (`inception_weights`).

    Args:
        features, preprocessing, weights, device: the features to compute, the preprocessing, weights file and device.
        batch_size: images at a time (default: 8 on a CPU, so that feature maps fit into its cache; 64 on a GPU).

    Raises:
        UserError: unknown names; weights that are missing, damaged, or lack a layer that the features need.
    """
    check_choice("preprocessing", preprocessing, PREPROCESSINGS)
    network = InceptionV3(features)
    path = inception_weights(weights)
    load_weights(network, path, f"the features {', '.join(features)}")
    network.fold().to(device)
    # Folded batch norms make it 1.6 times as fast on a CPU (benchmarks/inception_features.py).
    network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def compute(images: Tensor) -> dict[str, Tensor]:
        x = preprocess(images.to(device), preprocessing)
        return network(x.contiguous(memory_format=torch.channels_last))

    return Extractor(
        {name: LENGTHS[name] for name in features},
        {"network": NETWORKS["inception"], "preprocessing": preprocessing, "sha256": sha256_of(path)},
        path,
        compute,
        batch_size or (8 if torch.device(device).type == "cpu" else 64),
    )


def fad_extractor(
    weights: Path, channels: int, *, device: torch.device | str = "cpu", batch_size: int = 256
) -> Extractor:
    """The 64 latents "fad" of FSVAE's autoencoder for images of `channels` channels.

    Raises:
        UserError: weights that are missing, damaged, or for another number of channels.
    """
    network = FadEncoder(channels)
    about = {"network": NETWORKS["fad"], "preprocessing": "bilinear-32", "sha256": sha256_of(weights)}
    load_weights(network, weights, f"FAD of images with {channels} channel{'s' if channels > 1 else ''}")
    network.to(device)
    return Extractor(
        {"fad": FAD_DIM}, about, weights, lambda images: {"fad": network(preprocess_fad(images.to(device)))}, batch_size
    )
