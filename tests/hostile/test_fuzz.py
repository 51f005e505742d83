"""Damaged files: every opener refuses them in a line or gives a right result, in little memory and time.

Where a hash or a checksum covers the content, a result that differs is no success.
"""

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sddpm.cli.sample import parse_seeds
from sddpm.data import open_dataset
from sddpm.energy import load_cost_model
from sddpm.energy.cost import FOLDER as COST_MODELS
from sddpm.errors import UserError
from sddpm.evaluation.npz_images import NpzImages
from sddpm.evaluation.statistics_files import read_statistics
from sddpm.moving import unpack_run
from sddpm.opening.images import open_image
from sddpm.opening.json_files import parse_json
from sddpm.opening.tensors import read_safetensors, read_torch
from sddpm.opening.yaml_files import parse_yaml
from sddpm.pipelines import load_pipeline
from sddpm.training import load_config, read_metrics
from sddpm.training.checkpoint import newest_checkpoint
from sddpm.training.history import stages_of
from tests.helpers.bounded import bounded
from tests.helpers.mutations import BYTES, JSON, LINES, SAFETENSORS, YAML, ZIP, Mutation


def digest(tensors: dict[str, Any]) -> str:
    parts = [name.encode() + torch.as_tensor(value).numpy().tobytes() for name, value in sorted(tensors.items())]
    return hashlib.sha256(b"".join(parts)).hexdigest()


def weights_of(folder: Path) -> str:
    return digest(load_pipeline(folder).unet.state_dict())


def statistics(folder: Path) -> str:
    gaussian = read_statistics(folder / "statistics.npz").gaussians["pool"]
    return digest({"mean": gaussian.mean, "covariance": gaussian.covariance})


def pixels(folder: Path) -> str:
    images = NpzImages(folder / "images.npz")
    return digest({"images": images.gather(range(len(images)))})


def decoded(name: str) -> Callable[[Path], Any]:
    def opening(folder: Path) -> Any:
        with open_image(folder / name) as image:
            return image.convert("RGB").tobytes()

    return opening


def of_folder(folder: Path) -> int:
    return len(open_dataset(folder / "images", image_size=8))


def unpacked(folder: Path) -> int:
    step = unpack_run(folder / "pack", folder / "unpacked").step
    weights_of(folder / "unpacked")
    return step


def refused_unpack_leaves_nothing(folder: Path) -> None:
    assert not (folder / "unpacked").exists()


@dataclass(frozen=True)
class Kind:
    """file: what is damaged, within the folder of real files; how; what opens it; whether a hash or checksum covers its
    content, so that a result can only be the same; whether what is damaged is left out instead of refused."""

    file: str
    mutations: tuple[Mutation, ...]
    opening: Callable[[Path], Any]
    covered: bool = False
    skips: bool = False


STATE = "run/checkpoints/step-0000002"
WEIGHTS = "diffusion_pytorch_model.safetensors"
KINDS = {
    "model_index": Kind("model/model_index.json", JSON, lambda folder: weights_of(folder / "model")),
    "network config": Kind("model/unet/config.json", JSON, lambda folder: weights_of(folder / "model")),
    "scheduler": Kind("model/scheduler/scheduler_config.json", JSON, lambda folder: weights_of(folder / "model")),
    "weights": Kind(f"model/unet/{WEIGHTS}", SAFETENSORS, lambda folder: weights_of(folder / "model"), covered=True),
    "hashes": Kind("model/unet/SHA256SUMS", BYTES, lambda folder: weights_of(folder / "model"), covered=True),
    "safetensors": Kind(
        f"model/unet/{WEIGHTS}", SAFETENSORS, lambda folder: digest(read_safetensors(folder / f"model/unet/{WEIGHTS}"))
    ),
    "torch": Kind(
        "reference.pt", ZIP, lambda folder: digest(read_torch(folder / "reference.pt", "checkpoint")["net_model"])
    ),
    "torch, bytes alone": Kind(
        "reference.pt",
        BYTES[:2],
        lambda folder: digest(read_torch(folder / "reference.pt", "checkpoint")["net_model"]),
        covered=True,
    ),
    "state": Kind(f"{STATE}/state.json", JSON, lambda folder: newest_checkpoint(folder / "run")[1]["step"]),
    "checkpoint": Kind(
        f"{STATE}/ema.safetensors",
        SAFETENSORS,
        lambda folder: digest(read_safetensors(newest_checkpoint(folder / "run")[0] / "ema.safetensors")),
        covered=True,
    ),
    "config": Kind("run/config.yaml", YAML, lambda folder: load_config(folder / "run/config.yaml").to_dict()),
    "cost model": Kind("cost.yaml", YAML, lambda folder: load_cost_model(folder / "cost.yaml").mac_pj),
    "metrics": Kind("run/metrics.jsonl", LINES, lambda folder: len(read_metrics(folder / "run"))),
    "history": Kind("run/metrics.jsonl", LINES, lambda folder: len(stages_of(folder / "run"))),
    "statistics": Kind("statistics.npz", ZIP, statistics),
    "statistics, bytes alone": Kind("statistics.npz", BYTES[:2], statistics, covered=True),
    "npz of images": Kind("images.npz", ZIP, pixels),
    "png": Kind("image.png", BYTES, decoded("image.png")),
    "jpeg": Kind("image.jpg", BYTES, decoded("image.jpg")),
    "folder of images": Kind("images/1.png", BYTES, of_folder, skips=True),
    "manifest": Kind("pack/manifest.json", JSON, unpacked),
    "part": Kind("pack/part-001", BYTES, unpacked, covered=True),
}


def check(kind: Kind, place: Path, seed: int) -> str:
    """Try one damaged file; how it ended."""
    rng = random.Random(seed)
    file = place / kind.file
    whole = file.read_bytes()
    damaged = rng.choice(kind.mutations)(whole, rng)
    file.write_bytes(damaged)
    try:
        found = bounded(lambda: kind.opening(place))
        assert found.how != "fault", f"seed {seed}: {found.what}"
        if found.how == "refused":
            assert "\n" not in found.what, f"seed {seed}: {found.what}"
            assert not (place / "unpacked").exists(), f"seed {seed}: something was left"
        elif kind.covered:
            whole_result = bounded(lambda: _opened_whole(kind, place, whole))
            assert found == whole_result, f"seed {seed}: another result, and no refusal"
        return found.how
    finally:
        file.write_bytes(whole)
        _remove(place / "unpacked")


def _opened_whole(kind: Kind, place: Path, whole: bytes) -> Any:
    _remove(place / "unpacked")
    (place / kind.file).write_bytes(whole)
    return kind.opening(place)


def _remove(folder: Path) -> None:
    import shutil

    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def damaged_place(place) -> Path:
    (place / "cost.yaml").write_bytes((COST_MODELS / "45nm.yaml").read_bytes())
    return place


@pytest.mark.parametrize("name", KINDS)
def test_whole_files_open(damaged_place, name):
    assert bounded(lambda: KINDS[name].opening(damaged_place)).how == "right"


def fuzz(kind: Kind, place: Path, seeds: range) -> None:
    ends = [check(kind, place, seed) for seed in seeds]
    print(f"{kind.file}: {ends.count('refused')} of {len(ends)} refused")
    assert kind.skips or "refused" in ends


@pytest.mark.parametrize("name", KINDS)
def test_damaged_files(damaged_place, name):
    fuzz(KINDS[name], damaged_place, range(20))


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_damaged_files_by_the_hundred(damaged_place, name):
    fuzz(KINDS[name], damaged_place, range(1000, 1300))


def refused_or(read: Callable[[], Any]) -> Any:
    try:
        return read()
    except UserError as error:
        assert "\n" not in str(error)
        return None


TEXTS = st.one_of(st.text(max_size=200), st.text("[]{}:,-&*!?|>'\"# \n0123456789eE.~<", max_size=200))


@settings(max_examples=300, deadline=None)
@given(TEXTS)
def test_any_text_as_json_and_yaml(text):
    refused_or(lambda: parse_json(text, "x.json"))
    refused_or(lambda: parse_yaml(text, "x.yaml"))


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.text(max_size=60), st.text("0123456789-, ", max_size=60)))
def test_any_text_as_seeds(text):
    seeds = refused_or(lambda: parse_seeds(text, None))
    assert seeds is None or (0 < len(set(seeds)) == len(seeds) <= 1_000_000 and min(seeds) >= 0)
