"""What docs/how-to/evaluate.md shows in Python is understood, and what it adds is measured."""

from types import SimpleNamespace

import numpy as np
import pytest

import sddpm.evaluation
from sddpm.data import DATASETS
from sddpm.evaluation import METRICS
from sddpm.evaluation.settings import make_plan
from tests.helpers.documents import ROOT, blocks


@pytest.fixture
def shown():
    """What adds a metric and a data set, and what evaluates."""
    own, code = blocks((ROOT / "docs" / "how-to" / "evaluate.md").read_text(encoding="utf-8"), "python")
    return SimpleNamespace(own=own, evaluating=code)


def test_python_runs_up_to_the_measuring(shown, monkeypatch):
    given = []
    monkeypatch.setattr(sddpm.evaluation, "evaluate", lambda x: given.append(x) or SimpleNamespace(measurements=[]))
    exec(shown.evaluating, {})
    assert make_plan(given[0]).dim == 2048


def test_an_own_metric_of_an_own_data_set_is_measured(shown, monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("SDDPM_CACHE", str(tmp_path))
    try:
        exec(shown.own, {})
    finally:
        METRICS.pop("brightness", None)
        DATASETS.pop("noise", None)
    draws = [np.random.default_rng(seed).integers(0, 256, (500, 8, 8), dtype=np.uint8).mean() for seed in (0, 1)]
    assert float(capsys.readouterr().out) == pytest.approx(abs(draws[0] - draws[1]), rel=1e-9)
