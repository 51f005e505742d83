"""Reads the results of `sddpm evaluate` for a model card."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sddpm.errors import UserError
from sddpm.evaluation.protocols import OWN_STATISTICS
from sddpm.evaluation.sampling import model_digest
from sddpm.opening.files import check_file
from sddpm.opening.json_files import read_json
from sddpm.pipelines.class_guidance import RANDOM


@dataclass(frozen=True)
class Evaluation:
    """One metric of one evaluation. departures: from the protocol, in words. near_copies: a share, if counted."""

    metric: str
    value: float
    interval: tuple[float, float] | None
    samples: int
    sampler: str
    reference: str
    protocol: str
    departures: tuple[str, ...]
    near_copies: float | None
    date: str


def read_evaluations(files: Iterable[Path], model: Path) -> list[Evaluation]:
    """The evaluations in JSON files, which must all be of the model in the folder `model`.

    Raises:
        UserError: a file that is not from `sddpm evaluate`, or is of another model.
    """
    digest = model_digest(model)
    found: list[Evaluation] = []
    for file in files:
        of_model, rows = read_result(file)
        if of_model != digest:
            raise UserError(f"{file} is of another model: evaluate the released model")
        found += rows
    return found


def read_result(file: Path) -> tuple[str | None, list[Evaluation]]:
    """The hash of the evaluated model, and the evaluations in a JSON file.

    Raises:
        UserError: there is no such file, or it is not from `sddpm evaluate`.
    """
    check_file(file)
    try:
        content = read_json(file)
        return content["samples"].get("sha256"), list(_rows(content, content["samples"]))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{file} was not written by sddpm evaluate of a model") from error


def _sampler(samples: dict[str, Any]) -> str:
    """How the samples were drawn, in words: solver, steps or time steps, and what differs from the defaults."""
    at = samples.get("timesteps")
    how = f" at {len(at)} time steps" if at else f"-{samples['steps']}"
    values = {
        "threshold": samples.get("v_threshold") or None,
        "x0_scale": samples.get("x0_scale", 1),
        "noise clip": samples.get("noise_clip"),
        "eta": samples.get("eta"),
        "class": samples.get("class"),
        "guidance scale": samples.get("guidance_scale", 1),
        "exit tolerance": samples.get("exit_tolerance"),
    }
    usual = {"x0_scale": (1,), "guidance scale": (1,), "eta": (None, 0), "class": (None, RANDOM)}
    said = [f"{name} {value}" for name, value in values.items() if value not in usual.get(name, (None,))]
    return ", ".join([samples["solver"].upper() + how, *said])


def _rows(content: dict[str, Any], samples: dict[str, Any]) -> Iterable[Evaluation]:
    reference = content["reference"]
    copies = content.get("near_copies")
    for metric in content["metrics"].values():
        published = (
            metric["label"] == "fad" and content.get("fad_statistics") and OWN_STATISTICS not in metric["departures"]
        )
        against = (
            Path(reference.get("path", "")).name,
            reference.get("split"),
            "(published statistics)" * bool(published),
        )
        interval = metric.get("interval_95")
        yield Evaluation(
            metric["label"],
            metric["value"],
            (interval[0], interval[1]) if interval else None,
            samples["count"],
            _sampler(samples),
            " ".join(filter(None, against)),
            content["protocol"]["name"],
            tuple(metric["departures"]),
            copies.get("share") if copies else None,
            content["date"][:10],
        )
