"""What docs/energy.md says works: its Python runs, its commands' options exist, its YAML loads, its links too."""

import re
import shlex
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import torch

import sddpm
from sddpm.cli.main import run
from sddpm.diffusion.solvers import make_scheduler
from sddpm.energy import cost_model_names, load_cost_model
from sddpm.pipelines import SpikingDiffusionPipeline
from sddpm.training import load_config

ROOT = Path(__file__).resolve().parent.parent.parent
TEXT = (ROOT / "docs" / "energy.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


def test_python(make_model, monkeypatch, capsys):
    pipeline = SpikingDiffusionPipeline(make_model(num_train_timesteps=1000), make_scheduler("ddim"))
    monkeypatch.setattr(sddpm, "load_pipeline", lambda _path: pipeline)
    (code,) = blocks("python")
    exec(code, {"x_t": torch.zeros(1, 1, 8, 8)})
    assert "mJ" in capsys.readouterr().out


def test_commands(monkeypatch, capfd):
    commands = [re.sub(r"\s+#.*", "", line) for block in blocks("sh") for line in block.splitlines()]
    commands = [line for line in commands if line.startswith("sddpm ")]
    assert len(commands) > 8
    known = {}
    for line in commands:
        _, verb, *rest = shlex.split(line)
        if verb not in known:
            monkeypatch.setattr(sys, "argv", ["sddpm", verb, "--help"])
            with pytest.raises(SystemExit):
                run()
            known[verb] = capfd.readouterr().out
        for option in (word for word in rest if word.startswith("--")):
            assert re.search(rf"(?<![\w-]){option}(?![\w-])", known[verb]), option
        if verb == "train":
            load_config(rest[0], [value for option, value in pairwise(rest) if option == "--set"])


def test_yaml(tmp_path):
    (tmp_path / "mine.yaml").write_text(blocks("yaml")[0])
    assert load_cost_model(tmp_path / "mine.yaml").name == "my-chip"
    for name in cost_model_names():
        cost = load_cost_model(name)
        assert re.search(rf"\| `{name}` \| {cost.mac_pj:g} pJ \| {cost.ac_pj:g} pJ \| {cost.update_pj:g}\b", TEXT)


def test_links():
    links = [link for link in re.findall(r"\]\(([^)]+)\)", TEXT) if "://" not in link]
    assert links and [link for link in links if not (ROOT / "docs" / link).exists()] == []
