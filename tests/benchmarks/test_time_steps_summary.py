"""`benchmarks/time_steps_summary.py`: means over trainings and the Pareto front, from rows of known values."""

import json
import sys
from pathlib import Path

import pytest

from sddpm.errors import UserError

BENCHMARKS = str(Path(__file__).resolve().parents[2] / "benchmarks")


def row(model: str, T: int, evaluations: int, fad: float, mj: float, samples: int = 2000, x0: str = "1.02") -> dict:
    return {
        "sampler": f"--x0-scale {x0}",
        "model": model,
        "T": T,
        "evaluations": evaluations,
        "fad": [fad, fad - 1, fad + 1],
        "kad": [fad / 10, 0.0, 1.0],
        "firing_rate": 0.2,
        "mj": mj,
        "samples": samples,
    }


@pytest.fixture
def summary(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import time_steps_summary

    return time_steps_summary


def test_means_over_trainings_and_the_front(summary, tmp_path, monkeypatch):
    rows = [
        row("fashion-T4-0", 4, 10, 3.0, 2.0),
        row("fashion-T4-1", 4, 10, 5.0, 2.0),
        row("fashion-T2-0-four", 2, 4, 6.0, 0.5),
        row("fashion-T2-0", 2, 10, 7.0, 1.0),  # worse than T = 2 with four evaluations, and dearer
        row("fashion-mnist", 4, 10, 2.3, 1.7),  # not of the study
        row("fashion-T4-0", 4, 10, 9.0, 2.0, samples=100),
    ]
    (tmp_path / "few.json").write_text(json.dumps(rows))
    times = {"milliseconds_per_image_and_evaluation": {"T=2": 1.5, "T=4": 3.0}}
    (tmp_path / "time_steps.json").write_text(json.dumps(times))
    monkeypatch.setattr(sys, "argv", ["time_steps_summary.py", str(tmp_path), str(tmp_path / "out")])
    summary.main()
    assert (tmp_path / "out" / "time_steps.png").read_bytes()[:4] == b"\x89PNG"
    lines = (tmp_path / "out" / "time_steps.md").read_text().splitlines()[2:]
    assert lines == [
        "| 2 | 4 | 6.00 (6.00) | 0.60 | 0.200 | 0.50 | 6 | yes |",
        "| 2 | 10 | 7.00 (7.00) | 0.70 | 0.200 | 1.00 | 15 |  |",
        "| 4 | 10 | 4.00 (3.00, 5.00) | 0.40 | 0.200 | 2.00 | 30 | yes |",
    ]


def test_two_rows_of_one_training_are_no_two_trainings(summary):
    rows = [row("fashion-T4-0", 4, 10, 3.0, 2.0), row("fashion-T4-1", 4, 10, 5.0, 2.0)]
    summary.summaries(rows, 2000)
    stale = row("fashion-T4-0", 4, 10, 9.0, 2.0, x0="1.01")
    with pytest.raises(
        UserError, match=r"two rows of fashion-T4-0 .* '--x0-scale 1\.02' or that of '--x0-scale 1\.01'$"
    ):
        summary.summaries([*rows, stale], 2000)


def test_a_file_without_cells_of_the_study_is_said(summary, tmp_path, monkeypatch):
    (tmp_path / "few.json").write_text(json.dumps([row("fashion-mnist", 4, 10, 2.3, 1.7)]))
    monkeypatch.setattr(sys, "argv", ["time_steps_summary.py", str(tmp_path), str(tmp_path / "out")])
    with pytest.raises(UserError, match=r"few\.json has no cell"):
        summary.main()
    assert not (tmp_path / "out").exists()
