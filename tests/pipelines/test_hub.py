"""Models of the hub, by a stand-in server, and folders that plain diffusers loads.

huggingface_hub reads its environment once, so what depends on it runs in a process of its own.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from PIL import Image

from sddpm import SpikingDiffusionPipeline, load_pipeline
from sddpm.errors import UserError
from sddpm.pipelines.hub import check_hub_id, is_hub_id
from tests.helpers.hub import hub
from tests.helpers.small_pipeline import pipeline_of

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def saved(tmp_path):
    pipeline_of(scale=1.01).save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


def drawn(pipe):
    return torch.as_tensor(pipe(seeds=[3], num_inference_steps=2, output_type="pt", progress=False).images)


def python(*arguments, folder, **environment):
    variables = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "HF_HOME": str(folder / "hf"), **environment}
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE"):
        if name not in environment:
            variables.pop(name, None)
    return subprocess.run([sys.executable, *arguments], cwd=folder, env=variables, capture_output=True, text=True)


def test_plain_diffusers_loads_a_saved_folder(saved):
    code = (
        "import sys; from diffusers import DiffusionPipeline\n"
        "pipe = DiffusionPipeline.from_pretrained('saved', trust_remote_code=True)\n"
        "pipe(seeds=[3], num_inference_steps=2)[0][0].save('theirs.png')"
    )
    done = python("-c", code, folder=saved.parent)
    assert done.returncode == 0, done.stderr
    expected = load_pipeline(saved)(seeds=[3], num_inference_steps=2, progress=False).images[0]
    assert np.array_equal(np.asarray(Image.open(saved.parent / "theirs.png")), np.asarray(expected))
    with pytest.raises(ValueError, match="trust_remote_code"):
        DiffusionPipeline.from_pretrained(saved)


def test_ours_load_it_without_executing_its_code(saved):
    (saved / "pipeline.py").write_text("raise SystemExit('executed')")
    assert torch.equal(drawn(load_pipeline(saved)), drawn(SpikingDiffusionPipeline.from_pretrained(saved)))


def test_folders_of_before_still_load(saved):
    index = saved / "model_index.json"
    content = json.loads(index.read_text())
    assert content["_class_name"] == ["pipeline", "SpikingDiffusionPipeline"]
    expected = drawn(load_pipeline(saved))
    (saved / "pipeline.py").unlink()
    for name in ("SpikingDiffusionPipeline", content["_class_name"]):
        index.write_text(json.dumps(content | {"_class_name": name}))
        assert torch.equal(drawn(load_pipeline(saved)), expected)
        assert torch.equal(drawn(SpikingDiffusionPipeline.from_pretrained(saved)), expected)
    index.write_text(json.dumps(content | {"_class_name": ["pipeline", "Other"]}))
    with pytest.raises(UserError, match="not a SpikingDiffusionPipeline"):
        load_pipeline(saved)


def test_sending_and_fetching(saved):
    send = "import sys; from pathlib import Path; from sddpm.pipelines.hub import send_model\n"
    send += "print(send_model(Path('saved'), 'user/clothes'))"
    with hub() as server:
        places = {"HF_ENDPOINT": server.address}
        done = python("-c", send, folder=saved.parent, HF_TOKEN="hf_standin", **places)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == f"{server.address}/user/clothes"
        files = {path.relative_to(saved).as_posix(): path.read_bytes() for path in saved.rglob("*") if path.is_file()}
        assert server.models["user/clothes"].items() >= files.items()
        server.models["user/clothes"]["pipeline.py"] = b"raise SystemExit('executed')"
        sample = ("-m", "sddpm", "sample", "user/clothes", "--seeds", "3", "--steps", "2", "--out")
        done = python(*sample, "fetched.npz", folder=saved.parent, **places)
        assert done.returncode == 0, done.stderr
        assert not any(line.endswith("pipeline.py") for line in server.log if line.startswith("GET"))
        done = python("-m", "sddpm", "guide", "user/clothes", "--clear", folder=saved.parent, **places)
        assert done.returncode == 2 and "is from the hub and must not be changed" in done.stderr
        fetch = "from sddpm import SpikingDiffusionPipeline as P; print(P.from_pretrained('user/clothes').x0_scale)"
        done = python("-c", fetch, folder=saved.parent, **places)
        assert done.stdout.strip() == "1.01", done.stderr
    done = python("-m", "sddpm", "sample", str(saved), *sample[4:], "here.npz", folder=saved.parent)
    arrays = [np.load(saved.parent / name)["arr_0"] for name in ("fetched.npz", "here.npz")]
    assert np.array_equal(*arrays)
    done = python(*sample, "again.npz", folder=saved.parent, HF_HUB_OFFLINE="1", **places)
    assert done.returncode == 0, done.stderr  # what was fetched before needs no hub


@pytest.mark.parametrize("environment", [{"HF_ENDPOINT": "http://127.0.0.1:9"}, {"HF_HUB_OFFLINE": "1"}])
def test_a_hub_that_does_not_answer(tmp_path, environment):
    done = python("-m", "sddpm", "sample", "user/clothes", folder=tmp_path, **environment)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "error: no model at user/clothes" in done.stderr and "cannot fetch user/clothes from the hub" in done.stderr


def test_a_model_that_the_hub_does_not_have_and_nobody_logged_in(saved):
    send = "from pathlib import Path; from sddpm.pipelines.hub import send_model\n"
    send += "try: send_model(Path('saved'), 'user/clothes')\nexcept ValueError as error: print(error)"
    with hub() as server:
        done = python("-m", "sddpm", "sample", "user/clothes", folder=saved.parent, HF_ENDPOINT=server.address)
        assert done.returncode == 2 and "the hub has no model user/clothes" in done.stderr
        done = python("-c", send, folder=saved.parent, HF_ENDPOINT=server.address)
        assert "log in with" in done.stdout and done.stdout.count("\n") == 1


def test_names_of_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert is_hub_id("user/model-1.0")
    for name in ("model", "/user/model", "./model", "../model", "a/b/c", "user/", "user/mo del"):
        assert not is_hub_id(name)
    (tmp_path / "runs" / "first").mkdir(parents=True)
    assert not is_hub_id("runs/first")
    with pytest.raises(UserError, match="user/model, not 'model'"):
        check_hub_id("model")
