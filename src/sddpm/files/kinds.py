"""The kind of a folder written by this package, recognised by its files, including those of earlier versions."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

MODEL_PARTS = frozenset(
    {"model_index.json", "pipeline.py", "unet", "scheduler", "config.yaml", "history.yaml", "README.md", "samples.png"}
)
RUN_PARTS = frozenset(
    {
        "config.yaml",
        "history.yaml",
        "metrics.jsonl",
        "loss.png",
        "modulation.png",
        "samples",
        "checkpoints",
        "snapshots",
        "model",
        "tensorboard",
    }
)
PAGE_PARTS = frozenset(
    {
        "index.html",
        "sampling.js",
        "page.js",
        "page.css",
        "model.onnx",
        "model.json",
        "ort.wasm.min.js",
        "ort-wasm-simd-threaded.mjs",
        "ort-wasm-simd-threaded.wasm",
        "NOTICE.txt",
    }
)
_LARGEST_JSON = 10_000_000


def folder_kind(path: Path) -> str | None:
    """ "empty", "model", "run", "pack", "checkpoint" or "page"; None for a folder that this package did not write."""
    names = {entry.name for entry in path.iterdir()}
    if not names:
        return "empty"
    for kind, recognises in _KINDS.items():
        if recognises(path, names):
            return kind
    return None


def foreign_entries(path: Path, kind: str) -> list[str]:
    """The entries in a folder of this kind that the package did not write."""
    known = _PARTS[kind]
    return sorted(entry.name for entry in path.iterdir() if not known(entry.name))


def _is_model(path: Path, names: Iterable[str]) -> bool:
    if "model_index.json" not in names:
        return False
    return _json(path / "model_index.json").get("_class_name") in (_PIPELINE, ["pipeline", _PIPELINE])


def _is_run(path: Path, names: Iterable[str]) -> bool:
    return "config.yaml" in names and ("metrics.jsonl" in names or "checkpoints" in names)


def _is_pack(path: Path, names: Iterable[str]) -> bool:
    return "manifest.json" in names and {"format", "step", "parts"} <= _json(path / "manifest.json").keys()


def _is_page(path: Path, names: Iterable[str]) -> bool:
    return set(names) >= PAGE_PARTS


def _is_checkpoint(path: Path, names: Iterable[str]) -> bool:
    return "state.json" in names and "model.safetensors" in names


_PIPELINE = "SpikingDiffusionPipeline"  # as a string: importing it would import torch
_KINDS: dict[str, Callable[[Path, Iterable[str]], bool]] = {
    "run": _is_run,
    "model": _is_model,
    "pack": _is_pack,
    "checkpoint": _is_checkpoint,
    "page": _is_page,
}
_PARTS: dict[str, Callable[[str], bool]] = {
    "run": lambda name: name in RUN_PARTS or name.startswith("."),
    "model": MODEL_PARTS.__contains__,
    "pack": lambda name: name == "manifest.json" or (name.startswith("part-") and name[5:].isdecimal()),
    "page": PAGE_PARTS.__contains__,
    "checkpoint": lambda name: name == "state.json" or name.endswith(".safetensors"),
}


def _json(path: Path) -> dict[str, Any]:
    try:
        with path.open(encoding="utf-8") as file:
            content = json.loads(file.read(_LARGEST_JSON))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
