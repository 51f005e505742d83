"""family.sh with commands that only note their arguments: a training that was stopped goes on."""

import json
import os
import subprocess
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "family.sh"
SDDPM = """#!/usr/bin/env python3
import json, os, sys
from pathlib import Path
with open(os.environ["NOTED"], "a") as file:
    file.write(json.dumps(sys.argv[1:]) + "\\n")
if sys.argv[1] == "train":
    Path(sys.argv[sys.argv.index("--out") + 1], "checkpoints", "step-0000001").mkdir(parents=True, exist_ok=True)
"""


def test_a_stopped_training_goes_on(tmp_path):
    noted, out = tmp_path / "noted", tmp_path / "out"
    for name, text in (("sddpm", SDDPM), ("python", "#!/bin/sh\nmkdir -p $MODEL && echo $MODEL\n")):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    (out / "fashion_mnist_small").mkdir(parents=True)  # killed before its first checkpoint
    environment = os.environ | {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "NOTED": str(noted)}
    environment["MODEL"] = str(tmp_path / "model")
    trainings = []
    for _ in range(2):
        noted.write_text("")
        subprocess.run(["sh", SCRIPT, tmp_path, out], check=True, env=environment)
        calls = [json.loads(line) for line in noted.read_text().splitlines()]
        trainings.append([call for call in calls if call[0] == "train"])
    configs = ["fashion_mnist_small", "fashion_mnist_small_classes", "fashion_mnist_small_attention"]
    assert [call[1] for call in trainings[0]] == configs
    assert trainings[1] == [["train", "--resume", "--out", str(out / name)] for name in configs]
