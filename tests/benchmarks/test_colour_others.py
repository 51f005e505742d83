"""colour_others.sh with a command that only notes its arguments: what is evaluated, and against which faces."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import torch
from safetensors.torch import save_file
from typer.main import get_command

from sddpm.cli.main import app

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "colour_others.sh"
SDDPM = """#!/usr/bin/env python3
import json, os, sys
from pathlib import Path
with open(os.environ["NOTED"], "a") as file:
    file.write(json.dumps(sys.argv[1:]) + "\\n")
given = dict(zip(sys.argv, sys.argv[1:]))
best = 1.004 if given["evaluate"].endswith("twin") else 1.008
kad = abs(float(given.get("--x0-scale", 1)) - best)
Path(given["--out"]).write_text(json.dumps({"metrics": {"kad": {"value": kad}}}))
"""


def of_option(calls, option):
    return [call[call.index(option) + 1] for call in calls]


def make_run(folder, step):
    """A run of two steps with its newest checkpoint at `step`, and a model."""
    checkpoint, model = folder / "checkpoints" / f"step-{step:07d}", folder / "model" / "unet"
    for each, name in ((checkpoint, "ema"), (model, "diffusion_pytorch_model")):
        each.mkdir(parents=True)
        save_file({"weight": torch.ones(1)}, each / f"{name}.safetensors")
    (checkpoint / "state.json").write_text(json.dumps({"step": step}))
    (folder / "config.yaml").write_text("train: {steps: 2}")


def test_what_is_trained_is_evaluated_once_on_faces_that_were_held_out(tmp_path):
    data, runs, out, noted = (tmp_path / name for name in ("data", "runs", "out", "noted"))
    (data / "celeba64").mkdir(parents=True)
    (data / "inception.pth").touch()
    for name in ("fashion-twin", "celeba"):
        make_run(runs / name, 2)
    make_run(runs / "celeba-twin", 1)
    with zipfile.ZipFile(data / "celeba64" / "faces.zip", "w") as archive:
        for i in reversed(range(8003)):
            archive.writestr(f"{i:06d}.jpg", str(i))
        archive.writestr("README.txt", "")
    (tmp_path / "sddpm").write_text(SDDPM)
    (tmp_path / "sddpm").chmod(0o755)
    path = os.pathsep.join([str(tmp_path), str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = os.environ | {"PATH": path, "NOTED": str(noted)}
    for _ in range(2):
        subprocess.run(["sh", SCRIPT, data, runs, out], check=True, env=environment)
    calls = [json.loads(line) for line in noted.read_text().splitlines()]
    names = [call[1].rpartition("/")[2] for call in calls]
    assert names == ["fashion-mnist"] * 5 + ["fashion-twin"] * 5 + ["celeba"]
    assert (
        of_option(calls[0:4], "--x0-scale") == of_option(calls[5:9], "--x0-scale") == ["1", "1.004", "1.008", "1.012"]
    )
    assert of_option(calls[0:9], "--split") == [*["train"] * 4, "test", *["train"] * 4]
    assert of_option([calls[4], calls[9]], "--x0-scale") == ["1.008", "1.004"]  # the best of each
    for verb, *words in calls:
        get_command(app).commands[verb].make_context(verb, words)  # type: ignore[attr-defined]
    with zipfile.ZipFile(out / "held-out.zip") as held:
        assert held.namelist() == ["008000.jpg", "008001.jpg", "008002.jpg"]
        assert held.read("008002.jpg") == b"8002"
    assert of_option(calls[10:], "--reference") == [str(out / "held-out.zip")]
