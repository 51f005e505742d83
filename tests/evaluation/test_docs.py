"""What docs/evaluation.md shows in Python is understood."""

from types import SimpleNamespace

import sddpm.evaluation
from sddpm.evaluation.settings import make_plan
from tests.helpers.documents import ROOT, blocks


def test_python_runs_up_to_the_measuring(monkeypatch):
    given = []
    monkeypatch.setattr(sddpm.evaluation, "evaluate", lambda x: given.append(x) or SimpleNamespace(measurements=[]))
    (code,) = blocks((ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8"), "python")
    exec(code, {})
    assert make_plan(given[0]).dim == 2048
