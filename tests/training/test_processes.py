"""Several processes train what one trains; what several began, as many or fewer go on with."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sddpm.errors import UserError
from sddpm.training import read_metrics, train
from sddpm.training.checkpoint import TENSOR_FILES, checkpoint_path, read_description
from sddpm.training.processes import make_accelerator

TORCHRUN = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "0", "--rdzv-backend", "c10d",
            "--rdzv-endpoint", "localhost:0"]  # fmt: skip
SDDPM = "from sddpm.cli.main import run; run()\n"


@pytest.fixture(scope="module")
def sddpm(tmp_path_factory) -> Path:
    """The command as a script, for launchers that want one."""
    path = tmp_path_factory.mktemp("bin") / "command.py"
    path.write_text(SDDPM)
    return path


def test_two_processes_train_what_one_trains(tmp_path, tiny, tiny_settings, start, sddpm):
    """float64, with flips, accumulation and synchronised batch norm: weights, averages, moments and buffers."""
    settings = ["train.precision=float64", "train.steps=4", "train.accumulation=2", "data.flip=true",
                "diffusion.min_snr_gamma=5"]  # fmt: skip
    options = [word for setting in [*tiny_settings, *settings] for word in ("--set", setting)]
    process = start([*TORCHRUN, sddpm, "train", "digits", "--device", "cpu", "--out", tmp_path / "two", *options])
    train(tiny(*settings), tmp_path / "one", device="cpu", progress=False)
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors

    one, two = (
        [load_file(checkpoint_path(tmp_path / run, 4) / name) for name in TENSOR_FILES] for run in ("one", "two")
    )
    # The gradient of a bias before batch norm is 0 but for rounding, which Adam divides by its own size; the running
    # mean behind it moves along.
    moments = {key.removeprefix("exp_avg_sq/"): value for key, value in one[2].items() if key.startswith("exp_avg_sq/")}
    rounding = {key for key, value in moments.items() if value.max() < 1e-20}
    assert rounding and all(key.endswith("bias") for key in rounding)
    compared = 0
    for ours, theirs in zip(one, two, strict=True):
        assert ours.keys() == theirs.keys()
        for key, value in ours.items():
            loose = key in rounding or key.endswith("running_mean")
            tolerance = 1e-6 if loose else 1e-10
            torch.testing.assert_close(
                theirs[key], value, rtol=1e-10, atol=tolerance, msg=lambda text, key=key: f"{key}: {text}"
            )
            compared += key.endswith("running_var")
    assert compared > 10
    losses = [[row["loss"] for row in read_metrics(tmp_path / run)] for run in ("one", "two")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_two_processes_resume(tmp_path, tiny, tiny_settings, start, sddpm):
    """What two began, two or one go on with; that there are now fewer is said."""
    options = [word for setting in [*tiny_settings, "train.steps=3"] for word in ("--set", setting)]
    train_two = [*TORCHRUN, sddpm, "train", "--device", "cpu", "--out", tmp_path / "two"]
    for arguments in (["digits", *options], ["--resume", "--set", "train.steps=4"]):
        process = start([*train_two, *arguments])
        _, errors = process.communicate(timeout=240)
        assert process.returncode == 0, errors
        assert "note: this run had" not in errors
    assert [row["step"] for row in read_metrics(tmp_path / "two")] == [1, 2, 3, 4]
    one = start([sddpm, "train", "--device", "cpu", "--out", tmp_path / "two", "--resume", "--set", "train.steps=5"])
    _, errors = one.communicate(timeout=240)
    assert one.returncode == 0, errors
    assert "note: this run had 2 processes so far and now has 1" in errors
    assert read_description(checkpoint_path(tmp_path / "two", 5))["processes"] == 1


@pytest.mark.parametrize("text", ["abc", "0", "-1", ""])
def test_a_number_of_processes_that_is_none_is_refused(monkeypatch, text):
    monkeypatch.setenv("WORLD_SIZE", text)
    with pytest.raises(UserError, match="WORLD_SIZE must be the number of processes"):
        make_accelerator("cpu", "float32")


def test_unknown_device():
    with pytest.raises(UserError, match="unknown device 'gpu'"):
        make_accelerator("gpu", "float32")
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match="cuda"):
            make_accelerator("cuda", "float32")
