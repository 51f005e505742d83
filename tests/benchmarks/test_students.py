"""The networks that the benchmarks of few evaluations and time steps start from."""

from pathlib import Path

import pytest
import torch

from sddpm import load_pipeline
from sddpm.conversion.ann import convert_ann

BENCHMARKS = str(Path(__file__).resolve().parents[2] / "benchmarks")


@pytest.fixture
def students(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import students

    return students


def test_conversion_undoes_quantized_from(students):
    """The packaged model as a quantised network, converted to its own T, is the packaged model."""
    spiking = load_pipeline(students.START).unet.eval()
    quantized = students.quantized_from(spiking, levels=6)
    back = convert_ann(quantized, T=spiking.config["T"])
    before, after = spiking.state_dict(), back.state_dict()
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        torch.testing.assert_close(after[name], tensor, rtol=1e-6, atol=1e-8, msg=name)
    for name, neuron in spiking.neurons().items():
        assert back.neurons()[name].v_threshold == pytest.approx(neuron.v_threshold, rel=1e-6)
    assert convert_ann(quantized).config["T"] == 6


def test_finished_runs_are_known(students, tmp_path):
    assert not students.complete(tmp_path, 3)
    (tmp_path / "metrics.jsonl").write_text('{"step": 2}\n{"step": 3}\n')
    assert not students.complete(tmp_path, 3)  # no model yet
    (tmp_path / "model").mkdir()
    assert students.complete(tmp_path, 3) and not students.complete(tmp_path, 4)
