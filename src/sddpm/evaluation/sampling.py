"""Samples of a saved model, stored in shards named by their settings, so that no sample is made twice."""

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
    """How images are sampled, and which: image i has the seed first_seed + i. `batch_size` images are made at a time,
    which affects the last bits of the arithmetic. class_label: the class of all images; None: for each image the class
    drawn from its seed, if the model has classes."""

    batch_size: int | None = 50
    first_seed: int = 0
    class_label: str | None = None


OPTIONS_KEPT = ("threshold_guidance", "x0_scale", "num_inference_steps", "samplers", "sampler")
# Options that were not part of the key of samples at first, with their defaults.
_FIRST = {"num_inference_steps", "solver", "eta", "v_threshold", "batch_size", "engine"}
_FIRST |= {"exit_tolerance", "guidance_scale", "x0_scale"}
_FIRST |= {"sampler"}  # its resolved options are in the key
_LATER = {field.name: field.default for field in fields(SamplingOptions) if field.name not in _FIRST}


def label_of(settings: SamplingSettings, pipeline: SpikingDiffusionPipeline) -> str | None:
    """The `class_labels` for the call of the pipeline."""
    return drawn_by_seed(pipeline.num_classes) if settings.class_label is None else settings.class_label


def sample_labels(settings: SamplingSettings, pipeline: SpikingDiffusionPipeline, count: int) -> Tensor | None:
    """The class of each sample, LongTensor [count]; None for an unconditional model, or if no class is sampled."""
    if pipeline.num_classes is None:
        return None
    seeds = range(settings.first_seed, settings.first_seed + count)
    found = resolve_labels(label_of(settings, pipeline), seeds, pipeline.num_classes, pipeline.class_names)
    return None if pipeline.num_classes in found else torch.tensor(found)


def find_source(source: str) -> Path:
    """The place that `source` names if it is a path or a model: a folder of images has priority over a model of the
    package with the same name. Raises `UserError` for user/model that is neither here nor on the hub."""
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
    """Whether `path` is a saved model or the folder of a training run, rather than images."""
    return path.is_dir() and any(
        (path / name).exists() for name in ("model_index.json", "model/model_index.json", "checkpoints")
    )


def model_digest(path: Path) -> str:
    """SHA-256 over the configs and weights of a saved model, by name. Sampling options saved with it are not included,
    because samples are distinguished by their actual options; nor is the file that lets plain diffusers load it."""
    folder = pipeline_folder(path)
    digest = hashlib.sha256()
    for file in sorted(file for file in folder.rglob("*") if file.suffix in (".json", ".safetensors")):
        digest.update(file.relative_to(folder).as_posix().encode())
        if file == folder / INDEX_NAME:
            index = read_json(file)
            plain = {key: value for key, value in index.items() if key not in OPTIONS_KEPT}
            if isinstance(plain.get("_class_name"), list):  # ["pipeline", NAME] means NAME, loaded by pipeline.py
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
    """`count` samples, rounded to 8 bits as if saved as PNG; those already in `work` are reused.

    Shards are batches, so that a sample does not depend on the number of processes.

    Raises:
        UserError: settings that are invalid for the pipeline, seeds beyond the last, a model that predicts NaN.
    """
    if settings.first_seed < 0 or settings.first_seed + count - 1 > MAX_SEED:
        raise UserError(f"the {count} seeds from {settings.first_seed} must be in 0 to {MAX_SEED}")
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
    """The name under which samples are stored: equal only for the same model, settings and kind of device.

    Options added after samples were first stored are left out while they have no effect. Raises `UserError` as
    `described` does.
    """
    plain = described(settings, pipeline)
    unused = {"exit_tolerance": None, "x0_scale": 1, **_LATER}
    if pipeline.num_classes is None:
        unused |= {name: plain[name] for name in ("class_label", "guidance_scale")}
    plain = {name: value for name, value in plain.items() if name not in unused or value != unused[name]}
    return short_hash(json.dumps(plain | {"model": digest, "device": pipeline.device.type}))


def described(settings: SamplingSettings, pipeline: SpikingDiffusionPipeline) -> dict[str, Any]:
    """The settings as plain values, with the model's own values instead of None.

    Raises:
        UserError: as in the pipeline, and for thresholds that are a function, which has no name.
    """
    resolved = pipeline.resolve_options(settings)
    thresholds = resolved.v_threshold
    if callable(thresholds) and not isinstance(thresholds, StagedThresholds):
        raise UserError("v_threshold cannot be a function here: give numbers, or StagedThresholds")
    first = {  # in this order: the key of stored samples depends on it
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
