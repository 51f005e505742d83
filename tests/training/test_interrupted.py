"""Runs in processes of their own that are killed, or asked to stop, and then resumed: not a bit may differ."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from sddpm.training import train
from sddpm.training.checkpoint import TENSOR_FILES, list_checkpoints

SDDPM = "import sys; from sddpm.cli.main import run; sys.argv[0] = 'sddpm'; run()"
STEPS = 45


@pytest.fixture(scope="module")
def settings(tiny_settings) -> list[str]:
    return [*tiny_settings, f"train.steps={STEPS}", "train.checkpoint_every=10", "data.flip=true"]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, tiny, settings) -> Path:
    folder = tmp_path_factory.mktemp("uninterrupted") / "run"
    train(tiny(*settings), folder, progress=False)
    return folder


@pytest.fixture
def begin(start, settings):
    """Start `sddpm train` with an output folder, and wait until it has made a number of steps."""
    processes = []

    def launch(folder: Path, steps: int) -> subprocess.Popen:
        options = [word for setting in settings for word in ("--set", setting)]
        process = start(["-c", SDDPM, "train", "digits", "--out", folder, *options])
        processes.append(process)
        metrics, end = folder / "metrics.jsonl", time.monotonic() + 120
        while not metrics.exists() or metrics.read_text().count("\n") < steps:
            assert process.poll() is None and time.monotonic() < end, process.communicate()
            time.sleep(0.005)
        return process

    yield launch
    for process in processes:
        process.kill()
        process.wait()


def assert_resumes_to_the_same_bits(folder: Path, uninterrupted: Path, tiny, settings) -> None:
    assert train(tiny(*settings), folder, resume=True, progress=False).step == STEPS
    ends = [list_checkpoints(run)[-1] for run in (folder, uninterrupted)]
    for name in TENSOR_FILES:
        ours, theirs = (load_file(end / name) for end in ends)
        assert ours.keys() == theirs.keys()
        assert all((ours[key] == theirs[key]).all() for key in ours), name
    models = [(run / "model" / "unet" / "diffusion_pytorch_model.safetensors") for run in (folder, uninterrupted)]
    assert models[0].read_bytes() == models[1].read_bytes()


def test_killed(tmp_path, begin, uninterrupted, tiny, settings):
    process = begin(tmp_path / "run", steps=26)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    reached = int(list_checkpoints(tmp_path / "run")[-1].name[5:])
    assert 20 <= reached < STEPS
    assert_resumes_to_the_same_bits(tmp_path / "run", uninterrupted, tiny, settings)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_asked_to_stop(tmp_path, begin, uninterrupted, tiny, settings, name):
    folder = tmp_path / "run"
    process = begin(folder, steps=10)
    process.send_signal(signal.Signals[name])
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.Signals[name]
    reached = int(list_checkpoints(folder)[-1].name[5:])
    assert errors.splitlines()[-1] == f"stopped by {name} after step {reached}; --resume continues the run in {folder}"
    assert "Traceback" not in errors
    assert 10 <= reached < STEPS
    assert_resumes_to_the_same_bits(folder, uninterrupted, tiny, settings)


STUBBORN = """
import sys, time
from sddpm.training.stopping import StopRequests
with StopRequests() as stop:
    print("ready", flush=True)
    while stop.received is None:
        time.sleep(0.01)
    print(stop.received, flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize(("processes", "stops"), [("1", True), ("2", False)])
def test_a_second_signal_stops_at_once_unless_a_launcher_repeats_it(processes, stops):
    process = subprocess.Popen(
        [sys.executable, "-c", STUBBORN],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "WORLD_SIZE": processes},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    assert process.stdout.readline() == "SIGTERM\n"
    process.send_signal(signal.SIGINT)
    try:
        assert process.wait(timeout=1 if not stops else 30) == 128 + signal.SIGINT and stops
    except subprocess.TimeoutExpired:
        assert not stops
    finally:
        process.kill()
        process.wait()


def test_handlers_are_put_back():
    from sddpm.training.stopping import StopRequests

    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with StopRequests():
        assert signal.getsignal(signal.SIGINT) != before[0]
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
