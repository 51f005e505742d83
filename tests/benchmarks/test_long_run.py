"""long_run.sh with commands that only note what they were called with: which trainings, from what, and what is kept."""

import json
import os
import signal
import subprocess
import time
from itertools import pairwise
from pathlib import Path

import pytest

from sddpm.training import load_config

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "long_run.sh"
STAGES = [
    "leg-a-quantized",
    "leg-a",
    "twin",
    "paper",
    "ours-2h-quantized",
    "ours-2h",
    "leg-b",
    "fashion-twin",
    "celeba-quantized",
    "celeba",
    "celeba-twin",
    "tsm",
    "tsm-none",
]
# Notes its arguments and leaves the folders that the real command would.
SDDPM = """#!/usr/bin/env python3
import json, os, sys
from pathlib import Path
arguments = sys.argv[1:]
with open(os.environ["NOTED"], "a") as file:
    file.write(json.dumps(arguments) + "\\n")
if arguments[0] == "train":
    Path(arguments[arguments.index("--out") + 1], "checkpoints", "step-0000001").mkdir(parents=True, exist_ok=True)
elif arguments[0] == "unpack":
    Path(arguments[2], "checkpoints", "step-0000005").mkdir(parents=True)
else:
    folder = Path(arguments[2])
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text("{}")
    (folder / "part-001").write_bytes(bytes(int(os.environ.get("PACKED", "10"))))
"""
PYTHON = "#!/bin/sh\necho 1000\n"


@pytest.fixture
def long_run(tmp_path):
    """long_run(STAGE, ..., NAME=VALUE, ...) -> its exit code and the calls of sddpm that it made."""
    for name, text in (("sddpm", SDDPM), ("python", PYTHON)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    noted = tmp_path / "noted"

    def run(*stages, **variables):
        noted.write_text("")
        names = {"SDDPM": tmp_path / "sddpm", "PYTHON": tmp_path / "python", "NOTED": noted, "POLL_SECONDS": "0.05"}
        environment = os.environ | {name: str(value) for name, value in {**names, **variables}.items()}
        command = ["bash", SCRIPT, tmp_path, tmp_path / "home", tmp_path / "kept", *stages]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
        return done.returncode, [json.loads(line) for line in noted.read_text().splitlines()]

    return run


def options(call):
    return [value for option, value in pairwise(call) if option == "--set"]


def test_leg_a_is_what_it_was_when_it_began(long_run, tmp_path):
    _, calls = long_run("leg-a-quantized", "leg-a", PACK_HOURS=0)
    first, conversion, second = calls
    home = tmp_path / "home" / "runs"
    assert first[:4] == ["train", "cifar10_small", "--data", str(tmp_path / "cifar10")]
    assert options(first) == [
        "model.base_channels=64",
        "model.channel_mult=[1,2,2]",
        "model.num_classes=10",
        "train.ema_decay=0.999",
        "train.checkpoint_every=500",
        "train.keep_checkpoints=200",
        "train.sample_every=0",
        "train.log_every=100",
        "model.kind=quantized",
        "train.lr=1.5e-3",
        "train.warmup_steps=200",
        "train.steps=38000",
    ]
    assert conversion == ["convert-ann", f"{home}/leg-a-quantized", f"{home}/leg-a-converted", "--T", "4"]
    assert second[1] == f"{home}/leg-a-converted/config.yaml"
    assert second[4:6] == ["--init-from", f"{home}/leg-a-converted"]
    assert options(second) == ["train.lr=6e-4", "train.warmup_steps=100", "train.seed=1", "train.steps=6000"]


def test_every_stage_is_a_valid_training(long_run):
    code, calls = long_run(*STAGES, PACK_HOURS=0)
    trainings = {call[call.index("--out") + 1].rpartition("/")[2]: call for call in calls if call[0] == "train"}
    assert code == 0 and list(trainings) == STAGES
    configs = {name: load_config(call[1], options(call)) for name, call in trainings.items() if "/" not in call[1]}
    twin, paper = configs["twin"], configs["paper"]
    assert (twin.model.kind, twin.train.steps * twin.train.batch_size) == ("ann", 64 * (38000 + 6000))
    assert (paper.train.steps, paper.train.warmup_steps) == (1000, 50)
    assert (paper.diffusion.prediction_type, paper.model.v_reset, paper.model.pure) == ("epsilon", 0.0, False)
    shipped = load_config("fashion_mnist_medium_quantized").model
    assert configs["fashion-twin"].model.channel_mult == shipped.channel_mult
    assert configs["fashion-twin"].train.steps * 64 == 2_521_600
    assert (configs["celeba-quantized"].data.limit, configs["celeba-twin"].train.steps) == (8000, 2000)
    assert "model.temporal_modulation=true" in options(trainings["tsm"])
    for name in ("leg-b", "tsm", "tsm-none"):
        assert trainings[name][trainings[name].index("--init-from") + 1].endswith("/runs/leg-a")


def test_a_stage_goes_on_and_costs_add_up(long_run, tmp_path):
    long_run("twin", PACK_HOURS=0)
    _, calls = long_run("twin", PACK_HOURS=0)
    assert calls == [["train", "--resume", "--out", str(tmp_path / "home/runs/twin")]]
    assert len(list((tmp_path / "home/runs/twin.cpu.d").glob("*[0-9]"))) >= 1


def test_a_lost_stage_goes_on_from_what_was_packed(long_run, tmp_path):
    _, calls = long_run("twin")
    assert calls[-1][:3] == ["pack", str(tmp_path / "home/runs/twin"), str(tmp_path / "kept/twin.new")]
    assert (tmp_path / "kept/twin/manifest.json").is_file() and not (tmp_path / "kept/twin.new").exists()
    subprocess.run(["rm", "-r", tmp_path / "home"], check=True)
    _, calls = long_run("twin")
    assert [call[0] for call in calls] == ["unpack", "train", "pack"] and "--resume" in calls[1]
    assert (tmp_path / "home/runs/twin.unpacked").read_text() == "step-0000005\n"


@pytest.mark.parametrize("stage", ["leg-a", "ours-2h", "celeba"])
def test_spikes_go_on_from_their_pack_without_what_they_started_from(long_run, tmp_path, stage):
    """The pack of the quantised stage is gone by then, and so is all that was in HOME."""
    both = (f"{stage}-quantized", stage)
    long_run(*both)
    assert not (tmp_path / "kept" / both[0]).exists()
    subprocess.run(["rm", "-r", tmp_path / "home"], check=True)
    code, calls = long_run(*both, PYTHON="/bin/false")  # no steps are measured again
    assert code == 0
    assert [call[0] for call in calls] == ["unpack", "train", "pack"] and "--resume" in calls[1]
    code, calls = long_run(*both, PYTHON="/bin/false")  # now from the run
    assert code == 0 and [call[0] for call in calls] == ["train", "pack"] and "--resume" in calls[0]


def test_a_quantised_stage_goes_on_from_its_own_pack(long_run, tmp_path):
    long_run("leg-a-quantized")
    subprocess.run(["rm", "-r", tmp_path / "home"], check=True)
    _, calls = long_run("leg-a-quantized", "leg-a", PACK_HOURS=0)
    assert [call[0] for call in calls] == ["unpack", "train", "convert-ann", "train"]


def test_steps_outlive_home(long_run, tmp_path):
    long_run("celeba-quantized", "celeba")
    subprocess.run(["rm", "-r", tmp_path / "home"], check=True)
    code, calls = long_run("celeba-twin", PYTHON="/bin/false", PACK_HOURS=0)
    assert code == 0 and "train.steps=2000" in options(calls[0])


def test_steps_of_an_earlier_version_are_kept(long_run, tmp_path):
    (tmp_path / "home/runs").mkdir(parents=True)
    (tmp_path / "home/runs/ours-2h-quantized.steps").write_text("77\n")
    code, calls = long_run("ours-2h-quantized", PYTHON="/bin/false", PACK_HOURS=0)
    assert code == 0 and "train.steps=77" in options(calls[0])
    assert (tmp_path / "kept/ours-2h-quantized.steps").read_text() == "77\n"


def test_what_is_packed_is_replaced_and_not_piled_up(long_run, tmp_path):
    long_run("leg-a-quantized", "leg-a")
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["leg-a"]
    code, _ = long_run("leg-a", PACKED=50 * 2**20)
    assert code == 0 and [path.name for path in (tmp_path / "kept").iterdir()] == ["leg-a"]
    assert (tmp_path / "kept/leg-a/part-001").stat().st_size == 10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "DATA HOME KEPT and a STAGE are needed"),
        (("data", "home", "kept"), "DATA HOME KEPT and a STAGE are needed"),
        (("time",), "time needs HOME"),
        (("pack", "data", "home"), "pack needs DATA HOME KEPT STAGE"),
        (("curve",), "curve needs DATA HOME RESULTS"),
        (("data", "home", "kept", "twin", "tiwn"), "unknown stage tiwn: the stages are leg-a-quantized leg-a twin "),
        (("data", "home", "kept", "packed"), "unknown stage packed: the stages are"),
    ],
)
def test_a_wrong_call_is_refused_before_anything_is_done(tmp_path, arguments, message):
    done = subprocess.run(["bash", SCRIPT, *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    first, *usage = done.stderr.splitlines()
    assert (done.returncode, done.stdout) == (2, "") and first.startswith(f"long_run.sh: {message}")
    assert len(usage) == 4 and usage[0].startswith("benchmarks/long_run.sh DATA HOME KEPT STAGE...")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP"])
def test_a_signal_ends_the_training_too(long_run, tmp_path, name):
    (tmp_path / "sddpm").write_text("#!/bin/sh\necho $$ >$NOTED\nexec sleep 100\n")
    names = {"SDDPM": tmp_path / "sddpm", "PYTHON": tmp_path / "python", "NOTED": tmp_path / "pid", "PACK_HOURS": 0}
    environment = os.environ | {"POLL_SECONDS": "0.05"} | {key: str(value) for key, value in names.items()}
    command = ["bash", SCRIPT, tmp_path, tmp_path / "home", tmp_path / "kept", "twin"]
    script = subprocess.Popen(command, env=environment)
    for _ in range(600):
        if (tmp_path / "pid").is_file() and (tmp_path / "home/runs/twin.cpu.d").is_dir():
            break
        time.sleep(0.05)
    time.sleep(0.2)
    training = int((tmp_path / "pid").read_text())
    script.send_signal(signal.Signals[name])
    assert script.wait(timeout=60) == 143
    with pytest.raises(ProcessLookupError):
        os.kill(training, 0)
