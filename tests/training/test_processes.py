"""Several processes train what one trains; launchers that do not connect their processes are noticed."""

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file

from sddpm.errors import UserError
from sddpm.training import read_metrics, train
from sddpm.training.checkpoint import TENSOR_FILES, checkpoint_path
from sddpm.training.processes import make_accelerator

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
    torchrun = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "0", "--rdzv-backend", "c10d",
                "--rdzv-endpoint", "localhost:0"]  # fmt: skip
    process = start([*torchrun, sddpm, "train", "digits", "--device", "cpu", "--out", tmp_path / "two", *options])
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


def pretend_parent(monkeypatch, command: list[str]) -> None:
    class Process:
        def parent(self):
            return self

        def cmdline(self):
            return command

    monkeypatch.setattr(psutil, "Process", Process)


@pytest.mark.parametrize("flag", [["--num_processes", "2"], ["--num_processes=2"], ["--num-processes", "2"]])
def test_accelerate_launch_that_runs_one_process_is_noticed(monkeypatch, flag):
    command = ["python", "/bin/accelerate", "launch", "--cpu", *flag, "sddpm", "train", "digits"]
    pretend_parent(monkeypatch, command)
    with pytest.raises(UserError, match=r"2 processes were asked for, but this one sees 1.*torchrun"):
        make_accelerator("cpu", "float32")


@pytest.mark.parametrize("command", [["bash"], [], ["accelerate", "launch", "--num_processes", "1", "x.py"]])
def test_other_parents_mean_one_process(monkeypatch, command):
    pretend_parent(monkeypatch, command)
    assert make_accelerator("cpu", "float32").num_processes == 1


def test_unknown_device():
    with pytest.raises(UserError, match="unknown device 'gpu'"):
        make_accelerator("gpu", "float32")
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match="cuda"):
            make_accelerator("cuda", "float32")


@pytest.mark.slow
def test_accelerate_launch_itself(tmp_path, sddpm):
    command = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2", sddpm]
    done = subprocess.run(
        [*command, "train", "digits", "--device", "cpu", "--out", tmp_path / "run"],
        capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode != 0
    assert "2 processes were asked for" in done.stderr
    assert not (tmp_path / "run").exists()
