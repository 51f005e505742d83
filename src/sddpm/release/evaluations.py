"""Reads the results of `sddpm evaluate` for a model card."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sddpm.errors import UserError
from sddpm.evaluation.sampling import model_digest
from sddpm.opening.json_files import read_json


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
        try:
            content = read_json(file)
            of_model = content["samples"].get("sha256")
            rows = list(_rows(content, content["samples"]))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{file} was not written by sddpm evaluate of a model") from error
        if of_model != digest:
            raise UserError(f"{file} is of another model: evaluate the released model")
        found += rows
    return found


def _rows(content: dict[str, Any], samples: dict[str, Any]) -> Iterable[Evaluation]:
    reference = content["reference"]
    copies = content.get("near_copies")
    sampler = f"{samples['solver'].upper()}-{samples['steps']}"
    if threshold := samples.get("v_threshold"):
        sampler += f", threshold {threshold}"
    if (scale := samples.get("x0_scale", 1)) != 1:
        sampler += f", x0_scale {scale:g}"
    for metric in content["metrics"].values():
        statistics = " (published statistics)" if metric["label"] == "fad" and content.get("fad_statistics") else ""
        interval = metric.get("interval_95")
        yield Evaluation(
            metric["label"],
            metric["value"],
            (interval[0], interval[1]) if interval else None,
            samples["count"],
            sampler,
            " ".join(part for part in (Path(reference["path"]).name, reference.get("split")) if part) + statistics,
            content["protocol"]["name"],
            tuple(metric["departures"]),
            copies["share"] if copies else None,
            content["date"][:10],
        )
