"""Replacing files and folders: whole or not at all, whatever fails, interrupts or kills."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sddpm.errors import UserError
from sddpm.files import atomic_path, scratch
from sddpm.files.kinds import folder_kind
from sddpm.files.scratch import sweep


def make_model(path: Path, content: str = "old") -> Path:
    (path / "unet").mkdir(parents=True)
    (path / "model_index.json").write_text('{"_class_name": "SpikingDiffusionPipeline"}')
    (path / "unet" / "weights").write_text(content)
    return path


def write(path: Path, content: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(content)


def write_model(path: Path, content: str) -> None:
    with atomic_path(path) as temporary:
        make_model(temporary, content)


def test_files_and_folders_are_replaced_and_nothing_else_is_left(tmp_path):
    write(tmp_path / "a.txt", "one")
    write(tmp_path / "a.txt", "two")
    write_model(tmp_path / "model", "one")
    write_model(tmp_path / "model", "two")
    assert (tmp_path / "a.txt").read_text() == "two" and (tmp_path / "model/unet/weights").read_text() == "two"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "model"]


@pytest.mark.parametrize("name", ["owner.json", "before", "new", "x" * 255, "ä" * 127, "[a]*?", os.fsdecode(b"z\xe9")])
def test_any_name_will_do(tmp_path, name):
    write(tmp_path / name, "content")
    assert [path.name for path in tmp_path.iterdir()] == [name] and (tmp_path / name).read_text() == "content"


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt(), SystemExit(143)])
@pytest.mark.parametrize("failing", [1, 2])
def test_a_failure_of_either_move_brings_the_old_folder_back(tmp_path, monkeypatch, failing, error):
    model, calls = make_model(tmp_path / "model"), []
    real = os.replace

    def replace(source, target):
        calls.append(source)
        if len(calls) == failing:
            raise error
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(UserError if isinstance(error, OSError) else type(error)):
        write_model(model, "new")
    assert (model / "unet" / "weights").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("step", [0, 1, 2])
def test_ctrl_c_while_the_scratch_folder_is_made_leaves_nothing(tmp_path, monkeypatch, step):
    """After the folder, after its owner and after new/."""
    (tmp_path / "a.txt").write_text("old")
    done = []

    def interrupted(real):
        def call(path, *arguments, **keywords):
            real(path, *arguments, **keywords)
            done.append(path)
            if len(done) > step:
                raise KeyboardInterrupt

        return call

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_text", interrupted(Path.write_text))
        patched.setattr(os, "mkdir", interrupted(os.mkdir))
        with pytest.raises(KeyboardInterrupt):
            write(tmp_path / "a.txt", "new")
    assert len(done) == step + 1 and [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "old"


KILLED = """
import os, sys
from pathlib import Path
from sddpm.files import atomic_path
real, path, stop_at = os.replace, Path(sys.argv[1]), int(sys.argv[2])
calls = 0
def replace(source, target):
    global calls
    calls += 1
    if calls == stop_at:
        os.kill(os.getpid(), 9)
    real(source, target)
os.replace = replace
with atomic_path(path) as temporary:
    (temporary / "unet").mkdir(parents=True)
    (temporary / "model_index.json").write_text('{"_class_name": "SpikingDiffusionPipeline"}')
    (temporary / "unet" / "weights").write_text("new")
"""


@pytest.mark.parametrize("stop_at", [1, 2])
def test_after_a_kill_the_sweep_brings_the_old_folder_back(tmp_path, stop_at):
    model = make_model(tmp_path / "model")
    done = subprocess.run([sys.executable, "-c", KILLED, model, str(stop_at)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert model.exists() == (stop_at == 1) and len(list(tmp_path.glob(".model.*"))) == 1
    sweep(tmp_path)
    assert (model / "unet" / "weights").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_sweep_leaves_what_is_or_may_be_in_use(tmp_path):
    with atomic_path(tmp_path / "mine") as temporary:
        temporary.touch()
        elsewhere, unknown = tmp_path / ".a.00000000", tmp_path / ".b.00000000"
        for folder in (elsewhere, unknown):
            folder.mkdir()
        (elsewhere / scratch.OWNER).write_text(json.dumps({"machine": "another", "pid": 1, "started": 1, "name": "a"}))
        before = sorted(tmp_path.iterdir())
        sweep(tmp_path)
        assert sorted(tmp_path.iterdir()) == before and len(before) == 3


def test_a_file_never_replaces_a_folder_nor_a_folder_a_file(tmp_path):
    make_model(tmp_path / "model")
    (tmp_path / "notes").write_text("mine")
    with pytest.raises(UserError, match="is a folder and cannot be replaced by a file"):
        write(tmp_path / "model", "x")
    with pytest.raises(UserError, match="is a file and cannot be replaced by a folder"):
        write_model(tmp_path / "notes", "x")
    assert (tmp_path / "model/unet/weights").read_text() == "old" and (tmp_path / "notes").read_text() == "mine"


@pytest.mark.parametrize("name", [".", "..", "/"])
def test_a_path_without_a_name_is_refused(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="a file or folder name is needed"):
        write_model(Path(name), "x")
    assert list(tmp_path.iterdir()) == []


def test_a_pipe_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="a device or a pipe"):
        write(tmp_path / "pipe", "x")


def run_folder(path: Path) -> Path:
    path.mkdir()
    (path / "config.yaml").write_text("")
    (path / "metrics.jsonl").write_text("")
    return path


def pack_folder(path: Path) -> Path:
    path.mkdir()
    (path / "manifest.json").write_text('{"format": 1, "step": 3, "parts": []}')
    return path


def foreign_model(path: Path) -> Path:
    make_model(path)
    (path / ".git").mkdir()
    return path


def other_pipeline(path: Path) -> Path:
    make_model(path)
    (path / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    return path


def thesis(path: Path) -> Path:
    path.mkdir()
    (path / "chapter1.tex").write_text("precious")
    return path


@pytest.mark.parametrize(
    ("make", "kind", "words"),
    [
        (run_folder, "run", "holds a run and will not be replaced"),
        (pack_folder, "pack", "holds a pack and will not be replaced"),
        (foreign_model, "model", r"holds \.git besides a model"),
        (other_pipeline, None, "was not written by sddpm"),
        (thesis, None, "was not written by sddpm"),
    ],
)
def test_a_folder_is_replaced_by_one_of_its_kind_only(tmp_path, make, kind, words):
    folder = make(tmp_path / "folder")
    assert folder_kind(folder) == kind
    before = {path: path.stat().st_mtime_ns for path in sorted(folder.rglob("*"))}
    with pytest.raises(UserError, match=words):
        write_model(folder, "new")
    assert {path: path.stat().st_mtime_ns for path in sorted(folder.rglob("*"))} == before


def test_models_of_the_package_are_known_as_such():
    from sddpm import pretrained

    for name in pretrained.pretrained_names():
        folder = pretrained.find_pretrained(name)
        assert folder is not None and folder_kind(folder) == "model"


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o027, 0o640)])
def test_files_are_readable_by_the_umask(tmp_path, umask, mode):
    """safetensors makes its files for their owner alone, which would lock others out of a shared model."""
    before = os.umask(umask)
    try:
        with atomic_path(tmp_path / "one") as temporary:
            temporary.touch(0o600)
        with atomic_path(tmp_path / "folder") as temporary:
            (temporary / "inner").mkdir(parents=True)
            (temporary / "inner" / "two").touch(0o600)
    finally:
        os.umask(before)
    for file in (tmp_path / "one", tmp_path / "folder" / "inner" / "two"):
        assert file.stat().st_mode & 0o777 == mode
