"""What docs/how-to/energy.md says works: its Python runs, its YAML loads, its table is that of the cost models."""

import re

import torch

import sddpm
from sddpm.diffusion.solvers import make_scheduler
from sddpm.energy import cost_model_names, load_cost_model
from sddpm.pipelines import SpikingDiffusionPipeline
from tests.helpers.documents import ROOT, blocks

TEXT = (ROOT / "docs" / "how-to" / "energy.md").read_text(encoding="utf-8")


def test_python(make_model, monkeypatch, capsys):
    pipeline = SpikingDiffusionPipeline(make_model(num_train_timesteps=1000), make_scheduler("ddim"))
    monkeypatch.setattr(sddpm, "load_pipeline", lambda _path: pipeline)
    (code,) = blocks(TEXT, "python")
    exec(code, {"x_t": torch.zeros(1, 1, 8, 8)})
    assert "mJ" in capsys.readouterr().out


def test_yaml(tmp_path):
    (tmp_path / "mine.yaml").write_text(blocks(TEXT, "yaml")[0])
    assert load_cost_model(tmp_path / "mine.yaml").name == "my-chip"
    for name in cost_model_names():
        cost = load_cost_model(name)
        assert re.search(rf"\| `{name}` \| {cost.mac_pj:g} pJ \| {cost.ac_pj:g} pJ \| {cost.update_pj:g}\b", TEXT)
