"""Weights of the feature networks: found or downloaded, checked by their hash, read without unpickling code."""

import os
import re
from pathlib import Path

from torch import Tensor, nn

from sddpm.data.download import default_cache, fetch
from sddpm.errors import UserError
from sddpm.hashes import sha256_of
from sddpm.opening.tensors import read_torch

INCEPTION_FILE = "pt_inception-2015-12-05-6726825d.pth"
INCEPTION_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
INCEPTION_PLACE = "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights"


def inception_weights(path: Path | None = None, base_url: str | None = None, cache_dir: Path | None = None) -> Path:
    """The file with Inception's weights: `path`, else the published one from the cache, else downloaded into it.

    Args:
        path: a local file. If its name ends in a hash (NAME-6726825d.pth), the content is checked against it.
        base_url: download BASE_URL/pt_inception-2015-12-05-6726825d.pth (default: SDDPM_WEIGHTS_URL, else the address
            of pytorch-fid's release).
        cache_dir: folder for downloads (default: SDDPM_CACHE, else the user's cache folder).

    Raises:
        UserError: no such file, another hash than in the name, or a failed download.
    """
    if path is not None:
        if not Path(path).is_file():
            raise UserError(f"no Inception weights at {path}")
        _check_name(Path(path))
        return Path(path)
    target = (cache_dir or default_cache()) / "weights" / INCEPTION_FILE
    if not target.is_file():
        place = (base_url or os.environ.get("SDDPM_WEIGHTS_URL") or INCEPTION_PLACE).rstrip("/")
        try:
            fetch([f"{place}/{INCEPTION_FILE}"], target, INCEPTION_SHA256)
        except UserError as error:
            raise UserError(f"{error}, or give `inception=PATH`") from error
    return target


def _check_name(path: Path) -> None:
    named = re.search(r"-([0-9a-f]{8,64})\.pth$", path.name)
    if named and not (found := sha256_of(path)).startswith(named[1]):
        raise UserError(
            f"{path} is damaged or another file: its sha256 is {found[:8]}..., not {named[1]} as in its name"
        )


def load_weights(network: nn.Module, path: Path, purpose: str) -> None:
    """Fill `network` from a state dict; entries that it does not have are ignored.

    Args:
        network: its state dict has the required entries, except the counters of batch norm.
        path: a file of tensors made by torch.save.
        purpose: the use of the weights, for error messages.

    Raises:
        UserError: a file without named tensors, or an entry, which is named, that is missing or has the wrong shape.
    """
    stored = read_torch(path, "file of weights")
    if not isinstance(stored, dict):
        raise UserError(f"{path} must contain named tensors, not a {type(stored).__name__}")
    needed = {key: value for key, value in network.state_dict().items() if not key.endswith("num_batches_tracked")}
    missing = [key for key in needed if not isinstance(stored.get(key), Tensor)]
    if missing:
        layers = list(dict.fromkeys(key.split(".")[0] for key in missing))
        raise UserError(
            f"{path} lacks {missing[0]} ({len(missing)} entries of {', '.join(layers)}), needed for {purpose}"
        )
    for key, value in needed.items():
        if stored[key].shape != value.shape:
            shapes = f"{list(stored[key].shape)}, not {list(value.shape)}"
            raise UserError(f"{path}: {key} has the shape {shapes}, as needed for {purpose}")
    network.load_state_dict({key: stored[key] for key in needed}, strict=False)
