"""Outputs are checked before work begins: nothing that is read, nor anything foreign, is written over."""

import os
from pathlib import Path

import pytest

from sddpm.errors import UserError
from sddpm.files import FIGURES, Output, check_outputs


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """runs/r0 is a run with a model, images/ holds pictures, model/ is a saved model."""
    monkeypatch.chdir(tmp_path)
    for folder in ("runs/r0/model/unet", "runs/r0/checkpoints", "images", "model/unet", "empty"):
        Path(folder).mkdir(parents=True)
    Path("runs/r0/config.yaml").touch()
    Path("images/1.png").touch()
    for folder in ("model", "runs/r0/model"):
        Path(folder, "model_index.json").write_text('{"_class_name": "SpikingDiffusionPipeline"}')
    Path("link").symlink_to("runs/r0")
    Path("notes.txt").touch()
    return tmp_path


MODEL = ("model",)


@pytest.mark.parametrize(
    ("output", "inputs", "words"),
    [
        (Output(Path("runs/r0"), folder=MODEL), ["runs/r0"], "is also an input"),
        (Output(Path("link"), folder=MODEL), ["runs/r0"], "is also an input"),
        (Output(Path("runs/../runs/r0"), folder=MODEL), ["link"], "is also an input"),
        (Output(Path("runs"), folder=MODEL), ["runs/r0"], "contains runs/r0, which is an input"),
        (Output(Path(".."), folder=MODEL), ["runs/r0"], "contains runs/r0, which is an input"),
        (Output(Path("."), folder=MODEL), [], "a file or folder name is needed"),
        (Output(Path("runs/r0/model"), folder=MODEL), ["runs/r0"], "is a part of runs/r0"),
        (Output(Path("runs/r0/config.yaml")), ["runs/r0"], "is a part of runs/r0"),
        (Output(Path("images/1.png")), ["images"], "is a part of images"),
        (Output(Path("notes.txt"), folder=MODEL), [], "is a file and cannot be replaced by a folder"),
        (Output(Path("images"), folder=MODEL), [], "was not written by sddpm"),
        (Output(Path("runs/r0"), folder=MODEL), [], "holds a run and will not be replaced"),
        (Output(Path("model"), "--out"), [], "is a folder: a file name is needed"),
        (Output(Path("notes.txt"), "--out", folder=()), [], "is a file: a folder is needed"),
        (Output(Path("fig"), "--plot", FIGURES), [], r"--plot fig: a file name that ends in \.png or"),
        (Output(Path("notes.txt/x.json")), [], "notes.txt is not a folder"),
        (Output(Path("/proc/x.json")), [], "cannot write /proc/x.json"),
        (Output(Path("x" * 256)), [], "longer than 255 bytes"),
        (Output(Path("ä" * 128)), [], "longer than 255 bytes"),
        (Output(Path(os.fsdecode(b"z\xe9.json"))), [], r"the name 'z\\udce9\.json' is not UTF-8"),
        (Output(Path(os.fsdecode(b"z\xe9"), "model"), folder=MODEL), [], "is not UTF-8: choose another one"),
        (Output(Path("/"), folder=MODEL), [], "cannot write /: a file or folder name is needed"),
        (Output(Path("/"), "--out"), [], "--out / is a folder: a file name is needed"),
        (Output(Path("y" * 300) / "x.json"), [], "cannot write"),
    ],
)
def test_what_would_lose_something_is_refused_with_force_too(place, output, inputs, words):
    before = sorted(place.rglob("*"))
    with pytest.raises(UserError, match=words):
        check_outputs([output], inputs=inputs, force=True)
    assert sorted(place.rglob("*")) == before


@pytest.mark.parametrize(
    ("output", "inputs"),
    [
        (Output(Path("model"), folder=MODEL), ["runs/r0", "mnist", "x" * 300, "a\0b"]),
        (Output(Path("empty"), folder=MODEL), ["runs/r0"]),
        (Output(Path("new/deep/model"), folder=MODEL), ["runs/r0"]),
        (Output(Path("runs/r0/fid.json"), "--out"), ["runs/r0"]),
        (Output(Path("images/grid.png"), "--grid"), ["images"]),
        (Output(Path("notes.txt")), []),
        (Output(Path("images"), "--out", folder=()), []),
        (Output(Path("x" * 255)), []),
    ],
)
def test_what_loses_nothing_is_allowed(place, output, inputs):
    check_outputs([output], inputs=inputs, force=True)


def test_what_exists_needs_force(place):
    for output in (Output(Path("model"), folder=MODEL), Output(Path("notes.txt")), Output(Path("images"), folder=())):
        with pytest.raises(UserError, match="already exists; choose another name or pass `force=True`"):
            check_outputs([output], force=False)
    check_outputs([Output(Path("empty"), folder=())], force=False)


def test_two_outputs_need_two_places(place):
    with pytest.raises(UserError, match="--out and --grid need different names, not both same"):
        check_outputs([Output(Path("same"), "--out"), Output(Path("runs/../same"), "--grid")], force=True)
