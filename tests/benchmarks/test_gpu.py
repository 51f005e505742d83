"""benchmarks/gpu.py on the CPU, at its smallest: every stage gives numbers, and what is missing is left out."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "gpu.py"
WITHOUT = """
import runpy, sys
sys.modules.update({{"triton": None, "spikingjelly": None}})
sys.argv = {argv!r}
runpy.run_path({script!r}, run_name="__main__")
"""


def run(out: Path, *arguments: str, without: bool = False) -> dict:
    argv = [str(SCRIPT), "--device", "cpu", "--quick", "--out", str(out), *arguments]
    command = (
        [sys.executable, "-c", WITHOUT.format(argv=argv, script=str(SCRIPT))] if without else [sys.executable, *argv]
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, env=environment)
    assert done.returncode == 0, done.stderr
    results = json.loads((out / "gpu.json").read_text())
    assert (out / "gpu.md").read_text().count("## ") == len(results)
    return results


def numbers(found: dict) -> int:
    return sum(isinstance(value, float) for row in found["rows"] for value in row.values())


def test_stages_give_numbers_and_add_up_over_calls(tmp_path):
    pytest.importorskip("spikingjelly")
    results = run(tmp_path, "--stages", "machine", "norms", "sampling", "exactness")
    assert list(results) == ["machine", "norms", "sampling", "exactness"]
    for stage, found in results.items():
        assert "error" not in found and numbers(found) > 0, stage
        assert not any("error" in row for row in found["rows"]), stage
    first, *_, again = results["sampling"]["rows"]
    assert first["what"] == "reference-equivalent, default" and first["times as fast"] == 1
    assert again["what"] == "reference-equivalent, default, again"
    exact = {row["what"]: row["largest error"] for row in results["exactness"]["rows"]}
    assert exact["3 x TF32"] < 1e-5 < exact["bf16"] < 0.1
    more = run(tmp_path, "--stages", "machine", "--label", "second ")
    assert set(more) == {*results, "second machine"}


def test_without_triton_and_spikingjelly_and_a_checkout(tmp_path):
    results = run(tmp_path, "--stages", "machine", "neurons", "training", "--reference", "nowhere", without=True)
    machine = results["machine"]["rows"][0]
    assert machine["triton"] == machine["spikingjelly"] == "missing"
    assert numbers(results["neurons"]) > 0
    rows = {row["what"]: row for row in results["training"]["rows"]}
    assert "error" in rows["reference-equivalent, default"] and "error" in rows["authors' repository, default"]
    assert rows["ours, float32 without TF32"]["times as fast"] == 1 and rows["ours, bf16"]["ms"] > 0


def test_when_time_is_up_what_was_measured_is_written(tmp_path):
    results = run(tmp_path, "--stages", "machine", "neurons", "--minutes", "0")
    assert results == {}
