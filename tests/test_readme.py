"""The README's Python runs."""

import sddpm.training
from tests.helpers.documents import ROOT, blocks


def test_python(tmp_path, monkeypatch):
    """All Python blocks one after another, with a shorter training run."""
    code = blocks((ROOT / "README.md").read_text(encoding="utf-8"), "python")
    monkeypatch.chdir(tmp_path)
    load = sddpm.training.load_config
    shorter = ["train.steps=2", "train.sample_every=0", "model.base_channels=8", "model.channel_mult=[1, 2]"]
    monkeypatch.setattr(sddpm.training, "load_config", lambda name: load(name, shorter))
    assert len(code) == 2
    exec("\n".join(code), {})
    assert (tmp_path / "digit.png").exists()
