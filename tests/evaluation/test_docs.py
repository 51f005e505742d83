"""Every command in docs/evaluation.md is one that the command line understands."""

import re
import shlex
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.main import get_command

import sddpm.evaluation
from sddpm.cli.main import app
from sddpm.evaluation.settings import make_plan

DOCS = Path(__file__).resolve().parents[2] / "docs" / "evaluation.md"


def commands():
    shell = "\n".join(re.findall(r"```sh\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL))
    return [found[0] for line in shell.splitlines() if (found := re.search(r"sddpm (evaluate|stats) [^#]+", line))]


@pytest.mark.parametrize("command", commands())
def test_commands_parse(command):
    _, verb, *arguments = shlex.split(command)
    get_command(app).commands[verb].make_context(verb, arguments)


def test_python_runs_up_to_the_measuring(monkeypatch):
    asked = []
    monkeypatch.setattr(sddpm.evaluation, "evaluate", lambda x: asked.append(x) or SimpleNamespace(measurements=[]))
    (code,) = re.findall(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    exec(code, {})
    assert make_plan(asked[0]).dim == 2048


def test_there_are_commands_and_links_lead_somewhere():
    text = DOCS.read_text(encoding="utf-8")
    assert len(commands()) > 15
    links = [link for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link]
    assert [link for link in links if not (DOCS.parent / link).exists()] == []
