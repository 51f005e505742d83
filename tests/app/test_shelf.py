"""Models that several visitors use, and that change or vanish."""

import shutil

import pytest
import torch

from sddpm.app.shelf import Shelf
from sddpm.errors import UserError
from sddpm.pretrained import pretrained_names
from tests.helpers.small_pipeline import pipeline_of


def test_lent_to_one_at_a_time(tmp_path):
    folder = str(tmp_path / "tiny")
    pipeline_of().save_pretrained(folder)
    shelf = Shelf(folder)
    with shelf.borrowed(folder) as first, shelf.borrowed(folder) as second:
        assert first.unet is not second.unet
    with shelf.borrowed(folder) as third:
        assert third is first or third is second
    with pytest.raises(ZeroDivisionError), shelf.borrowed(folder) as fourth:
        raise ZeroDivisionError
    with shelf.borrowed(folder) as fifth:
        assert fifth is not fourth


def test_trained_further_and_gone(tmp_path):
    folder = tmp_path / "tiny"
    pipeline = pipeline_of()
    pipeline.save_pretrained(folder)
    shelf = Shelf(str(folder))
    with shelf.borrowed(str(folder)) as before:
        pass
    with torch.no_grad():
        next(pipeline.unet.parameters()).add_(1)
    pipeline.save_pretrained(folder)
    with shelf.borrowed(str(folder)) as after:
        assert after is not before
        assert torch.equal(next(after.unet.parameters()), next(pipeline.unet.parameters()))
    shutil.rmtree(folder)
    with pytest.raises(UserError, match="no model at"), shelf.borrowed(str(folder)):
        pass


def test_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    others = [name for name in pretrained_names() if name != "fashion-mnist"]
    assert Shelf().names() == ["fashion-mnist", *others] and Shelf("mnist").names()[0] == "mnist"
    pipeline_of().save_pretrained(tmp_path / "runs" / "mine" / "model")
    (tmp_path / "runs" / "begun").mkdir()
    assert Shelf().names() == ["fashion-mnist", *others, "runs/mine"]
    with Shelf().borrowed("runs/mine") as pipeline:
        assert pipeline.unet.config.sample_size == 8
    with pytest.raises(UserError, match="the model 'elsewhere' no longer exists"), Shelf().borrowed("elsewhere"):
        pass
    with pytest.raises(UserError, match="no model at nothing"):
        Shelf("nothing")
