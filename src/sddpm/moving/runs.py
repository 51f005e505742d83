"""Moves a run to another machine: `pack_run` writes it to a few files, `unpack_run` makes a run folder from them.

The pack is a tar archive, cut into parts: config.yaml, metrics.jsonl and the newest checkpoint. In half precision it is
about a quarter of the size: weights and their average are float16 (each tensor whose error is at most 2^-10 of its
norm; batch norm and its statistics stay float32), and Adam's moments are left out. The run then continues with empty
moments and a warm-up (`optim.optimizer_warmup`).
"""

import errno
import shutil
import tarfile
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from sddpm.errors import UserError, reason
from sddpm.files import Output, atomic_path, check_outputs
from sddpm.files.lock import LOCK, locked
from sddpm.moving.parts import MANIFEST, PartReader, PartWriter, check_part_size, read_manifest
from sddpm.opening.json_files import read_json
from sddpm.opening.tensors import read_safetensors, safetensors_shapes
from sddpm.pipelines import SpikingDiffusionPipeline
from sddpm.pretrained import INDEX_NAME
from sddpm.training.checkpoint import (
    POWER_FILE,
    STATE_FILE,
    TENSOR_FILES,
    check_description,
    checkpoint_path,
    list_checkpoints,
    newest_checkpoint,
    read_description,
    write_checkpoint,
)
from sddpm.training.config import Config
from sddpm.training.config_files import changed_keys, load_config
from sddpm.training.history import HISTORY, read_history
from sddpm.training.metrics import FILE_NAME as METRICS
from sddpm.training.metrics import read_metrics
from sddpm.training.run_folder import save_model
from sddpm.training.state import build_model, make_pipeline

FORMAT = 1
WEIGHTS, MOMENTS = TENSOR_FILES[:2], TENSOR_FILES[2]
ALL_TENSORS = (*TENSOR_FILES, POWER_FILE)
ABOUT = ("class_names", "signal_range")  # facts about the data that a pipeline saves
RUN_FILES = ("config.yaml", METRICS, HISTORY)
DELAY = 1.0  # seconds after which a progress bar is shown
ROUNDING = 2.0**-10  # maximum error of a tensor in float16, relative to its norm


@dataclass(frozen=True)
class Packed:
    """step: step of the run; half: whether in half precision; sizes: of the parts, in bytes."""

    step: int
    half: bool
    sizes: list[int]


def pack_run(
    run_dir: str | Path,
    out: str | Path,
    *,
    max_part: int | None = None,
    half: bool = False,
    force: bool = False,
    progress: bool = True,
) -> Packed:
    """Write the newest checkpoint of a run, and everything else needed to continue, to a new folder `out`.

    Args:
        run_dir: the folder of a run.
        out: the folder to write.
        max_part: maximum bytes of a part, enough for at most 999 parts; None for one part.
        half: whether to round weights to float16 and leave out Adam's moments.
        force: whether to replace `out` if it exists.
        progress: whether to show a progress bar after one second.

    Raises:
        UserError: nothing to pack, a damaged checkpoint, parts that are too small, or a full disk.
    """
    run_dir, out = Path(run_dir), Path(out)
    check_outputs([Output(out, folder=("pack",))], inputs=[run_dir], force=force)
    if not run_dir.is_dir():
        raise UserError(f"{run_dir} is not a run: give the folder that `sddpm train` wrote")
    if not list_checkpoints(run_dir):
        raise UserError(f"nothing to pack: {run_dir} has no checkpoint yet")
    checkpoint, description = newest_checkpoint(run_dir)
    channels = int(_read_model(run_dir, "unet/config.json")["in_channels"])
    with atomic_path(out) as folder, tempfile.TemporaryDirectory() as scratch:
        folder.mkdir()
        files = {name: run_dir / name for name in RUN_FILES if (run_dir / name).is_file()}
        tensor_files = [name for name in ALL_TENSORS if (checkpoint / name).is_file()]
        files |= {name: checkpoint / name for name in (*tensor_files, STATE_FILE)}
        if half:
            del files[MOMENTS]
            for name in (name for name in tensor_files if name != MOMENTS):
                files[name] = Path(scratch, name)
                save_file(_halved(read_safetensors(checkpoint / name), checkpoint / MOMENTS), files[name])
        size = _archive_size(files.values())
        if max_part is not None:
            check_part_size(max_part, size)
        writer = PartWriter(folder, max_part)
        with (
            _shown(writer, "write", size, "packing", progress) as stream,
            tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT) as archive,
        ):
            for name, path in files.items():
                archive.add(path, name, filter=_anonymous)
        step = description["step"]
        index = _read_model(run_dir, INDEX_NAME)
        about = {key: index[key] for key in ABOUT if key in index}
        writer.finish({"format": FORMAT, "step": step, "half": half, "image_channels": channels, "about": about})
    return Packed(step, half, [part["bytes"] for part in writer.parts])


def unpack_run(source: str | Path, run_dir: str | Path, *, progress: bool = True) -> Packed:
    """Make a run folder from the files of `pack_run`, or add their checkpoint to the run's existing folder here.
    `progress` as in `pack_run`.

    Raises:
        UserError: parts that are missing or damaged; a folder with other content, or with a later checkpoint; a full
            disk.
    """
    source, run_dir = Path(source), Path(run_dir)
    if run_dir.exists() and not run_dir.is_dir():
        raise UserError(f"{run_dir} is a file; a run needs a folder")
    check_outputs([Output(run_dir, folder=())], inputs=[source], force=True)
    manifest = read_manifest(source)
    if manifest.get("format") != FORMAT:
        raise UserError(f"{source} was packed by another version of sddpm (format {manifest.get('format')!r})")
    kinds = {"step": int, "half": bool, "image_channels": int, "about": dict}
    if wrong := [key for key, kind in kinds.items() if type(manifest.get(key, {})) is not kind]:
        raise UserError(f"{source / MANIFEST} is damaged: {', '.join(wrong)} missing or of a wrong type")
    with tempfile.TemporaryDirectory() as scratch, locked(run_dir):
        folder = Path(scratch)
        _extract(source, manifest, folder, progress)
        try:
            description = read_json(folder / STATE_FILE)
            check_description(description)
        except (KeyError, TypeError) as error:
            raise UserError(f"{source} was not written by `sddpm pack`: {STATE_FILE} is damaged ({error})") from error
        _check_records(source, folder)
        _check_destination(run_dir, description, folder / "config.yaml")
        tensors = {name: read_safetensors(folder / name) for name in ALL_TENSORS if (folder / name).is_file()}
        if manifest["half"]:
            tensors = {name: _widened(values, description) for name, values in tensors.items()} | {MOMENTS: {}}
            description["moments_since"] = description["step"]
        # Everything has been checked before the first file is written.
        pipeline = _pipeline(source, manifest, load_config(folder / "config.yaml"), tensors[WEIGHTS[1]])
        for name in RUN_FILES:
            if (folder / name).is_file():
                with atomic_path(run_dir / name) as temporary:
                    shutil.copyfile(folder / name, temporary)
        save_model(run_dir, pipeline)
        path = checkpoint_path(run_dir, description["step"])
        write_checkpoint(path, tensors, {key: value for key, value in description.items() if key != "sha256"})
        read_description(path)
    return Packed(description["step"], manifest["half"], [part["bytes"] for part in manifest["parts"]])


def _pipeline(
    source: Path, manifest: Mapping[str, Any], config: Config, weights: Mapping[str, Tensor]
) -> SpikingDiffusionPipeline:
    model = build_model(config, manifest["image_channels"])
    try:
        model.load_state_dict(weights)
        return make_pipeline(model.eval(), config.diffusion, config.distill, **manifest.get("about", {}))
    except (RuntimeError, TypeError, ValueError) as error:  # ValueError: includes UserError
        raise UserError(f"{source} is damaged: its weights and its config differ, {reason(error)}") from error


def _read_model(run_dir: Path, name: str) -> dict[str, Any]:
    try:
        return read_json(run_dir / "model" / name)
    except UserError as error:
        raise UserError(
            f"{run_dir / 'model'} is damaged; resume the run for one step, which writes it again"
        ) from error


def _halved(tensors: Mapping[str, Tensor], moments: Path) -> dict[str, Tensor]:
    """Weights in float16 if that is accurate enough; buffers, which are not in the optimiser, unchanged."""
    learned = {name.partition("/")[2] for name in safetensors_shapes(moments)}

    def rounded(name: str, value: Tensor) -> Tensor:
        known = name.rpartition("/")[2] in learned  # names in a snapshot begin with its width
        return _half(value) if known and value.dim() > 1 else value

    return {name: rounded(name, value) for name, value in tensors.items()}


def _half(value: Tensor) -> Tensor:
    half = value.half()
    error = torch.linalg.vector_norm((half.double() - value.double()).flatten())
    return half if error <= ROUNDING * torch.linalg.vector_norm(value.double().flatten()) else value


def _widened(tensors: Mapping[str, Tensor], description: Mapping[str, Any]) -> dict[str, Tensor]:
    dtype = torch.float64 if description["config"]["train"]["precision"] == "float64" else torch.float32
    return {name: value.to(dtype) if value.dtype == torch.float16 else value for name, value in tensors.items()}


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Remove user names, so that a packed run has the same bytes on every machine."""
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mtime = 0
    return member


def _shown(stream: Any, method: Any, size: int, what: str, progress: bool) -> Any:
    """The stream with a progress bar for reading or writing `size` bytes."""
    return tqdm.wrapattr(stream, method, total=size, desc=what, delay=DELAY, disable=not progress)


def _archive_size(files: Iterable[Path]) -> int:
    """Size of a tar archive: a header and whole blocks per file, two empty blocks at the end, padded to full
    records."""
    blocks = sum(1 + -(-path.stat().st_size // tarfile.BLOCKSIZE) for path in files) + 2
    return -(-blocks * tarfile.BLOCKSIZE // tarfile.RECORDSIZE) * tarfile.RECORDSIZE


def _extract(source: Path, manifest: Mapping[str, Any], folder: Path, progress: bool) -> None:
    """Extract the known files of an archive, and no others."""
    known = {*RUN_FILES, *ALL_TENSORS, STATE_FILE}
    try:
        size = sum(part["bytes"] for part in manifest["parts"])
        with (
            _shown(PartReader(source, manifest), "read", size, "unpacking", progress) as stream,
            tarfile.open(fileobj=stream, mode="r|") as archive,
        ):
            for member in archive:
                # A sparse file could be larger than the whole archive.
                content = archive.extractfile(member) if member.isreg() and not member.issparse() else None
                if member.name not in known or content is None:
                    raise UserError(f"{source} holds {member.name!r}, which is not a part of a run")
                if not 0 <= member.size <= size:
                    raise UserError(f"{source} has {size:,} bytes, but {member.name} claims {member.size:,}")
                with (folder / member.name).open("wb") as file:
                    shutil.copyfileobj(content, file)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(
                f"{error.strerror} in {folder.parent}, where {source} is unpacked first: set TMPDIR to a folder on a "
                "disk with more space"
            ) from error
        raise UserError(f"cannot unpack {source}: {error.strerror}") from error
    except (tarfile.TarError, ValueError, EOFError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{source} was not written by `sddpm pack`: {reason(error)}") from error
    needed = {"config.yaml", *WEIGHTS, STATE_FILE} | (set() if manifest["half"] else {MOMENTS})
    if absent := sorted(name for name in needed if not (folder / name).is_file()):
        raise UserError(f"{source} lacks {', '.join(absent)}: pack the run again")


def _check_records(source: Path, folder: Path) -> None:
    """Raise `UserError` unless the metrics and the history in a folder can be read."""
    try:
        if (folder / METRICS).is_file():
            read_metrics(folder)
        read_history(folder)
    except UserError as error:
        raise UserError(f"the metrics or the history in {source} cannot be read: pack the run again") from error


def _check_destination(run_dir: Path, description: Mapping[str, Any], config: Path) -> None:
    """Raise `UserError` for a folder with another run, or with a later state of this one. `config` is the packed
    config.yaml."""
    if all(path.name.startswith(LOCK) for path in run_dir.iterdir()) or _unfinished(run_dir, config):
        return
    checkpoints = list_checkpoints(run_dir)
    if not checkpoints:
        raise UserError(f"{run_dir} is not empty and is not a run: choose another folder")
    newest = read_description(checkpoints[-1])
    if changed := changed_keys(newest["config"], description["config"]):
        raise UserError(f"{run_dir} holds another run, with different {', '.join(changed)}: choose another folder")
    if newest["step"] >= description["step"]:
        raise UserError(
            f"{run_dir} is already at step {newest['step']}, and the pack is at step {description['step']}: choose "
            "another folder"
        )


def _unfinished(run_dir: Path, config: Path) -> bool:
    """Whether a folder has only what an unpacking of the same run wrote before it was killed."""
    names = {path.name for path in run_dir.iterdir() if not path.name.startswith(".")}
    own = run_dir / "config.yaml"
    return names <= {*RUN_FILES, "model"} and own.is_file() and own.read_bytes() == config.read_bytes()
