"""gpu_session.sh: what would travel, and every stage with a CPU in the GPU's place."""

import io
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def data(tmp_path):
    """A folder with cifar10, of 24 images."""
    folder = tmp_path / "data" / "cifar10"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for half in (0, 1):
        with zipfile.ZipFile(folder / f"train-{half}.zip", "w") as archive:
            names = [f"{i:02d}.png" for i in range(12)]
            for name in names:
                file = io.BytesIO()
                Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(file, "PNG")
                archive.writestr(name, file.getvalue())
            archive.writestr("dataset.json", json.dumps({"labels": [[name, i % 10] for i, name in enumerate(names)]}))
    return folder.parent


def session(root, *arguments, **variables):
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "OMP_NUM_THREADS": "1"} | variables
    command = ["bash", str(root / "benchmarks" / "gpu_session.sh"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=1500, env=environment)


@pytest.mark.skipif(shutil.which("git") is None or not (ROOT / ".git").exists(), reason="no git checkout")
def test_what_travels_is_small_or_refused(data, tmp_path):
    root, wheels = tmp_path / "clone", tmp_path / "wheels"
    subprocess.run(["git", "clone", "-q", ROOT, root], check=True)
    wheels.mkdir()
    (wheels / "some.whl").write_bytes(b"wheel")
    for name in ("gpu_session.sh", "gpu_offline.sh"):
        shutil.copy(ROOT / "benchmarks" / name, root / "benchmarks" / name)
    done = session(root, "prepare", data, wheels)
    assert done.returncode == 0, done.stderr
    assert not list(root.rglob("*.png")) and not (root / "src" / "sddpm" / "pretrained" / "models").exists()
    carried = {path.relative_to(root / "out" / "carried").as_posix() for path in root.glob("out/carried/*/*")}
    assert carried == {"first/wheels", "first/train-0.zip", "second/train-1.zip"}
    assert subprocess.run(["git", "status", "--short", "out"], cwd=root, capture_output=True).stdout == b""
    (root / "large.bin").write_bytes(bytes(7 * 2**20))
    done = session(root, "prepare", data, wheels)
    assert done.returncode == 2 and "under 6 MiB may travel" in done.stderr
    (root / "large.bin").unlink()
    (wheels / "some.whl").write_bytes(bytes(64 * 2**20))
    done = session(root, "prepare", data, wheels)
    assert done.returncode == 2 and "64 MiB that travel" in done.stderr
    assert session(root, "restore").returncode == 0
    assert (root / "src" / "sddpm" / "pretrained" / "models" / "mnist" / "config.yaml").is_file()


@pytest.mark.slow
def test_both_calls_with_a_cpu_in_the_place_of_the_gpu(data, tmp_path):
    from sddpm import load_pipeline

    root, ignored = tmp_path / "tree", shutil.ignore_patterns("__pycache__", "models", "*.png", "*.ckpt.pt")
    root.mkdir()
    for name in ("benchmarks", "configs", "tests"):
        shutil.copytree(ROOT / name, root / name, ignore=ignored)
    shutil.copytree(ROOT / "src" / "sddpm", root / "src" / "sddpm", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", root)
    for call, half in (("first", 0), ("second", 1)):
        (root / "out" / "carried" / call).mkdir(parents=True)
        shutil.copy(data / "cifar10" / f"train-{half}.zip", root / "out" / "carried" / call)
        out = tmp_path / call
        done = session(root, call, out, STAND_IN="1")
        assert done.returncode == 0, done.stdout + done.stderr
        back = [path for path in out.rglob("*") if path.is_file()]
        assert len(back) <= 8 and all(path.stat().st_size < 2**24 for path in back)
    results = json.loads((tmp_path / "first" / "speed" / "gpu.json").read_text())
    assert set(results) == {"machine", "training", "sampling"}
    assert "skipped" in (tmp_path / "first" / "tests.log").read_text()

    run = tmp_path / "run"
    done = session(root, "receive", tmp_path / "second", run)
    assert done.returncode == 0, done.stderr
    with np.load(run / "samples.npz") as samples:
        assert samples["arr_0"].shape == (4, 32, 32, 3) and samples["arr_1"].shape == (4,)
    pipeline = load_pipeline(run)
    assert pipeline.num_classes == 10 and pipeline.unet.config.T == 4
    steps = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert len(steps) >= 2
