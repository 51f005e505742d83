"""Samples of a saved model, kept in shards by what they were made with, so that none is made twice."""

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from sddpm.data import unit_to_uint8
from sddpm.diffusion.noise import MAX_SEED
from sddpm.errors import UserError
from sddpm.evaluation.images import ShardImages
from sddpm.evaluation.processes import Processes
from sddpm.evaluation.shards import Shards, fill
from sddpm.hashes import sha256_of, short_hash
from sddpm.pipelines import SpikingDiffusionPipeline
from sddpm.pipelines.class_guidance import drawn_by_seed
from sddpm.pipelines.loading import INDEX_NAME, pipeline_folder, read_json
from sddpm.pipelines.threshold_guidance import PlainThresholds, to_json


@dataclass(frozen=True)
class SamplingSettings:
    """How images are sampled: as of calling the pipeline. Image i has the seed first_seed + i; images are made
    `batch_size` at a time, which decides the last bits of the arithmetic. class_label: of all images; None: of each the
    class that its seed draws, if the model knows classes. solver, x0_scale: None for the model's own."""

    steps: int = 50
    solver: str | None = None
    eta: float = 0.0
    v_threshold: PlainThresholds | None = None
    first_seed: int = 0
    batch_size: int = 50
    engine: str = "auto"
    exit_tolerance: float | None = None
    class_label: str | None = None
    guidance_scale: float = 1.0
    x0_scale: float | None = None


def label_of(settings: SamplingSettings, pipeline: SpikingDiffusionPipeline) -> str | None:
    """The `class_labels` that the pipeline is called with."""
    return drawn_by_seed(pipeline.num_classes) if settings.class_label is None else settings.class_label


def with_own(settings: SamplingSettings, pipeline: SpikingDiffusionPipeline) -> SamplingSettings:
    """The settings with the model's own solver and x0_scale where none is given."""
    x0_scale = pipeline.x0_scale if settings.x0_scale is None else settings.x0_scale
    return replace(settings, solver=settings.solver or pipeline.solver, x0_scale=x0_scale)


def is_model(path: Path) -> bool:
    """Whether `path` is meant as a saved model, or the folder of a training run, rather than as images."""
    return path.is_dir() and any(
        (path / name).exists() for name in ("model_index.json", "model/model_index.json", "checkpoints")
    )


def model_digest(path: Path) -> str:
    """SHA-256 over the configs and weights of a saved model, by name; the thresholds and the x0_scale that guidance
    keeps with it do not count, since samples are told apart by those they were made with."""
    folder = pipeline_folder(path)
    digest = hashlib.sha256()
    for file in sorted(file for file in folder.rglob("*") if file.suffix in (".json", ".safetensors")):
        digest.update(file.relative_to(folder).as_posix().encode())
        if file == folder / INDEX_NAME:
            index = read_json(file)
            plain = {key: value for key, value in index.items() if key not in ("threshold_guidance", "x0_scale")}
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
        UserError: settings that the pipeline refuses, seeds beyond the last, a model that answers with NaN.
    """
    if settings.first_seed < 0 or settings.first_seed + count - 1 > MAX_SEED:
        raise UserError(f"seeds {settings.first_seed} and the {count} from there on do not lie in 0 to {MAX_SEED}")
    if settings.batch_size < 1:
        raise UserError(f"--batch-size must be at least 1, not {settings.batch_size}")
    shards = Shards(work / "samples" / sampling_key(digest, settings, pipeline), count, settings.batch_size)

    def make(i: int) -> None:
        start, stop = shards.bounds[i]
        batches = pipeline.stream(
            range(settings.first_seed + start, settings.first_seed + stop),
            batch_size=settings.batch_size,
            num_inference_steps=settings.steps,
            solver=settings.solver,
            eta=settings.eta,
            class_labels=label_of(settings, pipeline),
            guidance_scale=settings.guidance_scale,
            v_threshold=settings.v_threshold,
            x0_scale=settings.x0_scale,
            engine=settings.engine,
            exit_tolerance=settings.exit_tolerance,
            progress=False,
        )
        images = torch.cat([images for _, images in batches])
        shards.write(i, unit_to_uint8(images).numpy())

    fill(shards.missing(), make, processes, "sampling", len(shards.bounds))
    return ShardImages("samples", shards)


def sampling_key(digest: str, settings: SamplingSettings, pipeline: SpikingDiffusionPipeline) -> str:
    """The name under which samples are kept: the same only where the same model, settings and kind of device are."""
    thresholds = settings.v_threshold
    plain: dict[str, Any] = asdict(with_own(settings, pipeline)) | {
        "v_threshold": None if thresholds is None else to_json(thresholds),
        "engine": pipeline.resolve_engine(settings.engine, settings.steps, settings.exit_tolerance),
        "class_label": label_of(settings, pipeline),
        "model": digest,
        "device": pipeline.device.type,
    }
    # Samples made before there were such things are still good.
    if settings.exit_tolerance is None:
        del plain["exit_tolerance"]
    if plain["x0_scale"] == 1:
        del plain["x0_scale"]
    if pipeline.num_classes is None:
        del plain["class_label"], plain["guidance_scale"]
    return short_hash(json.dumps(plain))
