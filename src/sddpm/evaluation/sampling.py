"""Samples of a saved model, kept in shards by what they were made with, so that none is made twice."""

import hashlib
import json
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sddpm.data import unit_to_uint8
from sddpm.diffusion.noise import MAX_SEED
from sddpm.errors import UserError
from sddpm.evaluation.images import ShardImages
from sddpm.evaluation.processes import Processes
from sddpm.evaluation.shards import Shards, fill
from sddpm.hashes import sha256_of, short_hash
from sddpm.opening.files import user_path
from sddpm.opening.json_files import read_json
from sddpm.pipelines import SpikingDiffusionPipeline
from sddpm.pipelines.class_guidance import drawn_by_seed, resolve_labels
from sddpm.pipelines.hub import fetch_model, is_hub_id
from sddpm.pipelines.options import DEFAULT_BATCH_SIZE, SamplingOptions
from sddpm.pipelines.resolving import pipeline_folder
from sddpm.pipelines.threshold_guidance import StagedThresholds, to_json
from sddpm.pretrained import INDEX_NAME, find_pretrained


@dataclass(frozen=True)
class SamplingSettings(SamplingOptions):
    """How images are sampled, and which: image i has the seed first_seed + i. They are made `batch_size` at a time,
    which decides the last bits of the arithmetic. class_label: of all images; None: of each the class that its seed
    draws, if the model knows classes."""

    batch_size: int | None = 50
    first_seed: int = 0
    class_label: str | None = None


OPTIONS_KEPT = ("threshold_guidance", "x0_scale", "num_inference_steps", "samplers", "sampler")
# Options that samples were not told apart by at first, with their defaults.
_FIRST = {"num_inference_steps", "solver", "eta", "v_threshold", "batch_size", "engine"}
_FIRST |= {"exit_tolerance", "guidance_scale", "x0_scale"}
_FIRST |= {"sampler"}  # told by what it means
_LATER = {field.name: field.default for field in fields(SamplingOptions) if field.name not in _FIRST}


def label_of(settings: SamplingSettings, pipeline: SpikingDiffusionPipeline) -> str | None:
    """The `class_labels` that the pipeline is called with."""
    return drawn_by_seed(pipeline.num_classes) if settings.class_label is None else settings.class_label


def sample_labels(settings: SamplingSettings, pipeline: SpikingDiffusionPipeline, count: int) -> Tensor | None:
    """The class of each sample, LongTensor [count]; None where the model knows none, or no class is sampled."""
    if pipeline.num_classes is None:
        return None
    seeds = range(settings.first_seed, settings.first_seed + count)
    found = resolve_labels(label_of(settings, pipeline), seeds, pipeline.num_classes, pipeline.class_names)
    return None if pipeline.num_classes in found else torch.tensor(found)


def find_source(source: str) -> Path:
    """The place that `source` means if it is a path or a model: a folder of images comes before a model of the package
    with its name. Raises `UserError` for user/model that is neither here nor on the hub."""
    path = user_path(source)
    if path.exists():
        return path
    if is_hub_id(source):
        try:
            return fetch_model(source)
        except UserError as error:
            raise UserError(f"no such folder or zip: {source}; as a model, {error}") from error
    return find_pretrained(source) or path


def is_model(path: Path) -> bool:
    """Whether `path` is meant as a saved model, or the folder of a training run, rather than as images."""
    return path.is_dir() and any(
        (path / name).exists() for name in ("model_index.json", "model/model_index.json", "checkpoints")
    )


def model_digest(path: Path) -> str:
    """SHA-256 over the configs and weights of a saved model, by name. The sampling options that are kept with it do not
    count, since samples are told apart by those they were made with, nor does whether plain diffusers can load it."""
    folder = pipeline_folder(path)
    digest = hashlib.sha256()
    for file in sorted(file for file in folder.rglob("*") if file.suffix in (".json", ".safetensors")):
        digest.update(file.relative_to(folder).as_posix().encode())
        if file == folder / INDEX_NAME:
            index = read_json(file)
            plain = {key: value for key, value in index.items() if key not in OPTIONS_KEPT}
            if isinstance(plain.get("_class_name"), list):  # ["pipeline", NAME]: NAME, with pipeline.py to load it
                plain["_class_name"] = plain["_class_name"][-1]
            digest.update(hashlib.sha256((json.dumps(plain, indent=2, sort_keys=True) + "\n").encode()).digest())
            continue
        digest.update(bytes.fromhex(sha256_of(file)))
    return digest.hexdigest()


def sample_images(
    pipeline: SpikingDiffusionPipeline,
    digest: str,
    settings: SamplingSettings,
    count: int,
    work: Path,
    processes: Processes,
) -> ShardImages:
    """`count` samples, rounded to 8 bits as if saved as PNG; those that are in `work` already are not made again.

    Shards are batches, so that a sample does not depend on how many processes share the work.

    Raises:
        UserError: settings that the pipeline refuses, seeds beyond the last, a model that predicts NaN.
    """
    if settings.first_seed < 0 or settings.first_seed + count - 1 > MAX_SEED:
        raise UserError(f"seeds {settings.first_seed} and the {count} from there on do not lie in 0 to {MAX_SEED}")
    batch_size = DEFAULT_BATCH_SIZE if settings.batch_size is None else settings.batch_size
    settings = replace(settings, batch_size=batch_size)
    shards = Shards(work / "samples" / sampling_key(digest, settings, pipeline), count, batch_size)

    def make(i: int) -> None:
        start, stop = shards.bounds[i]
        batches = pipeline.stream(
            range(settings.first_seed + start, settings.first_seed + stop),
            class_labels=label_of(settings, pipeline),
            options=settings,
            progress=False,
        )
        images = torch.cat([images for _, images in batches])
        shards.write(i, unit_to_uint8(images).numpy())

    fill(shards.missing(), make, processes, "sampling", len(shards.bounds))
    return ShardImages("samples", shards, sample_labels(settings, pipeline, count))


def sampling_key(digest: str, settings: SamplingSettings, pipeline: SpikingDiffusionPipeline) -> str:
    """The name under which samples are kept: the same only where the same model, settings and kind of device are.

    Options that came after samples were first kept are left out while they change nothing. Raises `UserError` as
    `described`.
    """
    plain = described(settings, pipeline)
    unused = {"exit_tolerance": None, "x0_scale": 1, **_LATER}
    if pipeline.num_classes is None:
        unused |= {name: plain[name] for name in ("class_label", "guidance_scale")}
    plain = {name: value for name, value in plain.items() if name not in unused or value != unused[name]}
    return short_hash(json.dumps(plain | {"model": digest, "device": pipeline.device.type}))


def described(settings: SamplingSettings, pipeline: SpikingDiffusionPipeline) -> dict[str, Any]:
    """The settings as plain values, with the model's own where they are None.

    Raises:
        UserError: as of the pipeline, and thresholds that are a function, which has no name.
    """
    resolved = pipeline.resolve_options(settings)
    thresholds = resolved.v_threshold
    if callable(thresholds) and not isinstance(thresholds, StagedThresholds):
        raise UserError("v_threshold cannot be a function here: give numbers, or StagedThresholds")
    first = {  # in this order, by which kept samples are found
        "steps": resolved.num_inference_steps,
        "solver": resolved.solver or pipeline.solver,
        "eta": resolved.eta,
        "v_threshold": None if thresholds is None else to_json(thresholds),
        "first_seed": resolved.first_seed,
        "batch_size": resolved.batch_size,
        "engine": resolved.engine,
        "exit_tolerance": resolved.exit_tolerance,
        "class_label": label_of(settings, pipeline),
        "guidance_scale": resolved.guidance_scale,
        "x0_scale": resolved.x0_scale,
    }
    return first | {name: getattr(resolved, name) for name in _LATER}
