"""The speed benchmarks: memory is seen, finished rows are kept, every form of a training step is one network's."""

import importlib
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
    assert (gradients["bf16"] - gradients["float32"]).norm() > 0


@pytest.mark.parametrize("name", sorted(path.stem for path in Path(BENCHMARKS).glob("*.py")))
def test_every_benchmark_imports_what_is_there(measuring, name):
    """A benchmark that is seldom run does not fall behind the package unseen."""
    importlib.import_module(name)
