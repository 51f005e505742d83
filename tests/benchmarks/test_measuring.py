"""The speed benchmarks: memory is seen, finished rows are kept, every form of a training step is one network's."""

import importlib
import json
import shlex
import sys
from functools import partial
from operator import mul
from pathlib import Path

import pytest
import torch

pytest.importorskip("spikingjelly")

BENCHMARKS = str(Path(__file__).resolve().parents[2] / "benchmarks")


@pytest.fixture
def measuring(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import measuring

    return measuring


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_peak_memory(measuring):
    """In a process of its own: what this one has freed and kept would hide some."""
    assert 31 <= measuring.in_process(measuring.peak_of, partial(mul, b"x", 2**25)) <= 40


def test_rows_are_not_measured_again(measuring, tmp_path):
    path = tmp_path / "rows.json"
    measuring.Rows(path).add({"batch": 1, "T": 4, "seconds": {"a": 0.5}})
    measuring.Rows(path).add({"batch": 2, "T": 4, "seconds": {"a": 0.9}})
    rows = measuring.Rows(path)
    assert rows.has(batch=2, T=4) and not rows.has(batch=2, T=8) and not rows.has(batch=2, size=32)
    assert [row["seconds"]["a"] for row in rows.rows] == [0.5, 0.9]


@pytest.fixture
def kept(measuring, monkeypatch, tmp_path):
    """kept(verb, model, ...) -> whether the command was run, with a stand-in that writes what `sddpm` would."""
    commands = []

    def run(words, check):
        assert check and words[1:3] == ["-m", "sddpm"]
        commands.append(words[3:])
        out = Path(words[words.index("--out") + 1])
        out.write_text(json.dumps({"command": shlex.join(["sddpm", *words[3:]]), "number": len(commands)}))

    monkeypatch.setattr(measuring.subprocess, "run", run)
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        before = len(commands)
        found = measuring.kept_json(tmp_path / "kept.json", "--out", *arguments)
        assert found["number"] == len(commands)  # never the output of an earlier command
        return len(commands) > before

    return call


def make_model(folder, weights=b"1"):
    (folder / "unet").mkdir(parents=True)
    (folder / "model_index.json").write_text("{}")
    (folder / "unet" / "weights.safetensors").write_bytes(weights)
    return folder


def test_a_command_with_other_options_is_run_again(kept, tmp_path):
    model = make_model(tmp_path / "model")
    evaluate = ("evaluate", model, "--metric", "kad", "--no-copies", "--samples", 500, "--solver", "ddim")
    assert kept(*evaluate) and not kept(*evaluate)
    assert kept(*evaluate[:-1], "unipc")
    assert kept(*evaluate[:-1], "unipc", "--x0-scale", 1.01)
    assert kept("evaluate", model, "--metric", "kad", "--samples", 500, "--solver", "unipc", "--x0-scale", 1.01)
    assert kept("energy", model, "--metric", "kad", "--samples", 500, "--solver", "unipc", "--x0-scale", 1.01)
    assert kept("evaluate", "samples.npz", "--samples", 500) and kept("evaluate", "others.npz", "--samples", 500)


def test_a_command_that_is_only_spelled_otherwise_is_not(kept, tmp_path, monkeypatch):
    make_model(tmp_path / "model")
    (tmp_path / "data").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "data")
    assert kept("evaluate", tmp_path / "model", "--data", tmp_path / "data", "--samples", 500, "--work", "cache")
    for data in ("data", "./data/", tmp_path / "link", tmp_path / "model" / ".." / "data"):
        assert not kept("evaluate", "model", "--samples", 500, "--data", data, "--grid", "a.png", "--force")
    file = tmp_path / "kept.json"
    file.write_text(file.read_text().replace('"sddpm evaluate', '"/opt/bin/python3 -m sddpm evaluate'))
    assert not kept("evaluate", "model", "--data", "data", "--samples", 500)
    assert kept("evaluate", "model", "--data", tmp_path, "--samples", 500)


def test_a_model_is_known_by_its_weights(kept, tmp_path):
    model = make_model(tmp_path / "model")
    assert kept("energy", model) and not kept("energy", model)
    assert not kept("energy", make_model(tmp_path / "copied" / "model"))
    assert kept("energy", make_model(tmp_path / "other" / "model", b"2"))
    assert kept("energy", model)
    (model / "unet" / "weights.safetensors").write_bytes(b"3")
    assert kept("energy", model) and not kept("energy", model)


def test_outputs_of_earlier_versions_are_kept(measuring, kept, tmp_path):
    """They tell the weights of an evaluation, but not of an energy estimate."""
    model, file = make_model(tmp_path / "model"), tmp_path / "kept.json"
    assert kept("energy", model, "--steps", 20)
    content = json.loads(file.read_text())
    assert content.pop("model_sha256") == measuring.weights_of(model)
    file.write_text(json.dumps(content))
    assert not kept("energy", model, "--steps", 20) and kept("energy", model, "--steps", 10)
    for weights, again in ((measuring.weights_of(model), False), ("0" * 64, True)):
        content = json.loads(file.read_text()) | {"samples": {"sha256": weights}}
        content.pop("model_sha256", None)
        file.write_text(json.dumps(content))
        assert kept("energy", model, "--steps", 10) == again


def test_runs_of_the_solver_benchmark_say_how_the_pipeline_is_called(measuring):
    from solvers import options_of

    assert options_of("sde-dpm++:50:v=0.98x:x0=1.01") == {
        "solver": "sde-dpm++",
        "num_inference_steps": 50,
        "v_threshold": "0.98x",
        "x0_scale": 1.01,
    }
    assert options_of("ddim:20:eta=0.5") == {"solver": "ddim", "num_inference_steps": 20, "eta": 0.5}


def test_medians_take_turns(measuring):
    now, order = [0.0], []

    def task(name, *seconds):
        left = iter(seconds)

        def run():
            order.append(name)
            now[0] += next(left)

        return run

    tasks = {"a": task("a", 9, 1, 5, 2), "b": task("b", 9, 3, 3, 8)}
    assert measuring.medians(tasks, 3, lambda: now[0], warm_up=1) == {"a": 2, "b": 3}
    assert order == ["a", "b"] * 4


def test_every_form_of_a_step_is_the_same_network(measuring):
    """Gradients of the first step, against the reference's: float32 to rounding, bf16 about."""
    from training_step import FORMS, Training

    gradients = {}
    for name, form in FORMS.items():
        training = Training(form, channels=8, T=2, size=8)
        training.backward(2)
        gradients[name] = torch.cat([p.grad.flatten().double() for p in training.parameters])
    for name, found in gradients.items():
        assert found.shape == gradients["reference"].shape, name
    first = gradients["reference"].norm()
    assert (gradients["float32"] - gradients["reference"]).norm() < 0.05 * first
    assert torch.equal(gradients["float32"], gradients["float32 recomputed"])
    assert torch.equal(gradients["bf16"], gradients["bf16 recomputed"])
    # Rounding to bf16 flips spikes. The gradients of an untrained network then differ a lot, with a cosine of 0.64;
    # unrelated ones would have about 0.
    cosine = torch.cosine_similarity(gradients["bf16"], gradients["float32"], 0)
    assert 0.4 < cosine < 0.9999


@pytest.mark.parametrize("name", sorted(path.stem for path in Path(BENCHMARKS).glob("*.py")))
def test_every_benchmark_imports_what_is_there(measuring, name):
    """A benchmark that is seldom run does not fall behind the package unseen."""
    importlib.import_module(name)
