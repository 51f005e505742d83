"""Checkpoints: every bit comes back; damage is noticed and named; a full disk leaves what was there."""

import errno
import json
import shutil
import subprocess

import pytest
import torch

from sddpm.errors import UserError
from sddpm.training import checkpoint as checkpoints
from sddpm.training import train
from sddpm.training.checkpoint import (
    FORMAT,
    STATE_FILE,
    TENSOR_FILES,
    list_checkpoints,
    newest_checkpoint,
    read_description,
    restore,
    save_checkpoint,
)
from sddpm.training.state import TrainState, build_model, make_state

FILES = (*TENSOR_FILES, STATE_FILE)
CPU = torch.device("cpu")


def trained_state(config, steps: int = 3) -> TrainState:
    """A state with arbitrary weights, averages and moments (no training needed)."""
    state = make_state(build_model(config, channels=1), config, CPU)
    generator = torch.Generator().manual_seed(0)
    for tensor in [*state.model.state_dict().values(), *state.ema.state_dict().values()]:
        tensor.copy_(torch.rand(tensor.shape, generator=generator) * 10)
    for parameter in state.model.parameters():
        parameter.grad = torch.rand(parameter.shape, generator=generator)
    for _ in range(steps):
        state.optimizer.step()
        state.step += 1
    return state


def tensors_of(state: TrainState) -> list[torch.Tensor]:
    moments = [value for p in state.model.parameters() for _, value in sorted(state.optimizer.state[p].items())]
    return [*state.model.state_dict().values(), *state.ema.state_dict().values(), *moments]


@pytest.fixture
def run(tmp_path, tiny):
    """A run folder with checkpoints of steps 3, 6 and 9."""
    state = trained_state(tiny())
    for step in (3, 6, 9):
        state.step = step
        save_checkpoint(tmp_path, state, tiny().to_dict(), processes=1, keep=5)
    return tmp_path


@pytest.mark.parametrize("layout", ["true", "false"])
@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
def test_every_bit_comes_back(tmp_path, tiny, layout, optimizer):
    config = tiny(f"train.channels_last={layout}", f"train.optimizer={optimizer}")
    state = trained_state(config)
    state.seconds = 1.25
    path = save_checkpoint(tmp_path, state, config.to_dict(), processes=1, keep=1)
    other = make_state(build_model(config, channels=1), config, CPU)
    restore(other, path, read_description(path), CPU)
    assert (other.step, other.seconds) == (3, 1.25)
    for a, b in zip(tensors_of(state), tensors_of(other), strict=True):
        assert a.dtype == b.dtype and a.stride() == b.stride()
        assert torch.equal(a, b)


def test_the_newest_are_kept(tmp_path, tiny):
    state = trained_state(tiny())
    for step in (5, 10, 99, 100):
        state.step = step
        save_checkpoint(tmp_path, state, {"train": {}}, processes=1, keep=2)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-0000099", "step-0000100"]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("tenth", range(10))
def test_truncated_at_every_tenth(run, name, tenth):
    file = run / "checkpoints" / "step-0000009" / name
    content = file.read_bytes()
    file.write_bytes(content[: len(content) * tenth // 10])
    with pytest.raises(UserError) as error:
        newest_checkpoint(run)
    message = str(error.value)
    assert "step-0000009" in message and name in message
    assert "delete that folder to resume from step-0000006" in message
    shutil.rmtree(file.parent)
    assert newest_checkpoint(run)[0].name == "step-0000006"


@pytest.mark.parametrize("name", TENSOR_FILES)
def test_one_flipped_bit(run, name):
    file = run / "checkpoints" / "step-0000009" / name
    content = bytearray(file.read_bytes())
    content[len(content) * 2 // 3] ^= 4
    file.write_bytes(content)
    with pytest.raises(UserError, match=rf"{name} is incomplete or changed"):
        newest_checkpoint(run)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file(run, name):
    (run / "checkpoints" / "step-0000009" / name).unlink()
    with pytest.raises(UserError, match=rf"{name} is missing.*step-0000006"):
        newest_checkpoint(run)


@pytest.mark.parametrize("content", ["[]", "{}", "null", '{"sha256": 3}', '{"sha256": {}, "step": 9}'])
def test_a_state_file_of_something_else(run, content):
    (run / "checkpoints" / "step-0000009" / STATE_FILE).write_text(content)
    with pytest.raises(UserError, match=f"{STATE_FILE} is incomplete or changed"):
        newest_checkpoint(run)


def test_formats(run):
    """One written before there were numbers is read; one of a later version is refused, and called neither damaged nor
    to be deleted."""
    path, description = newest_checkpoint(run)
    assert description["format"] == FORMAT
    (path / STATE_FILE).write_text(json.dumps({key: value for key, value in description.items() if key != "format"}))
    assert newest_checkpoint(run)[1]["step"] == 9
    (path / STATE_FILE).write_text(json.dumps({**description, "format": FORMAT + 1}))
    with pytest.raises(
        UserError, match=f"has format {FORMAT + 1}, written by a later version of sddpm.*install"
    ) as error:
        newest_checkpoint(run)
    assert "delete" not in str(error.value) and "damaged" not in str(error.value)


def test_the_checkpoint_named_is_one_that_is_whole(run):
    for step in (6, 9):
        (run / "checkpoints" / f"step-000000{step}" / "ema.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match="resume from step-0000003"):
        newest_checkpoint(run)
    (run / "checkpoints" / "step-0000003" / STATE_FILE).unlink()
    with pytest.raises(UserError, match="no other intact checkpoint"):
        newest_checkpoint(run)


def test_another_network_is_refused(run, tiny):
    config = tiny("model.base_channels=16")
    path, description = newest_checkpoint(run)
    with pytest.raises(UserError, match="does not fit"):
        restore(make_state(build_model(config, channels=1), config, CPU), path, description, CPU)


def test_state_file_holds_no_pickle_and_says_what_wrote_it(run):
    path, description = newest_checkpoint(run)
    assert description == json.loads((path / STATE_FILE).read_text())
    assert description["versions"]["torch"] == torch.__version__
    assert sorted(file.name for file in path.iterdir()) == sorted(FILES)


@pytest.mark.parametrize("files_written", range(4))
def test_a_disk_that_fills_while_writing(run, tiny, monkeypatch, files_written):
    """ENOSPC at each file in turn, and when all are to reach the disk."""
    before = {file: file.read_bytes() for file in run.rglob("*") if file.is_file()}
    written, save_file = [], checkpoints.save_file

    def save_until_full(tensors, path):
        save_file(tensors, path)
        written.append(path)
        if len(written) > files_written:
            path.write_bytes(path.read_bytes()[:1000])
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoints, "save_file", save_until_full)
    if files_written == 3:

        def no_room(*_args, **_kwargs):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(checkpoints, "_sync", no_room)
    state = trained_state(tiny())
    state.step = 12
    with pytest.raises(UserError, match=r"step-0000012.*No space left"):
        save_checkpoint(run, state, tiny().to_dict(), processes=1, keep=1)
    assert len(written) == min(files_written + 1, 3)
    assert {file: file.read_bytes() for file in run.rglob("*") if file.is_file()} == before
    assert not list((run / "checkpoints").glob(".*"))


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1.5 MB, where this user may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1500k", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a tmpfs is not allowed here")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_disk_that_is_really_full(small_disk, tiny):
    run = small_disk / "run"
    with pytest.raises(UserError, match=r"cannot write .*checkpoints/step-000000\d.*No space left"):
        train(tiny("train.checkpoint_every=1", "train.keep_checkpoints=9"), run, progress=False)
    kept = list_checkpoints(run)
    assert kept and newest_checkpoint(run)[0] == kept[-1]
    assert not list((run / "checkpoints").glob(".*"))
