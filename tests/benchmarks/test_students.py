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


def test_a_saved_model_takes_the_place_of_an_earlier_one(students, tmp_path):
    """A training that is done again must not start from what came of the one before."""
    spiking = load_pipeline(students.START).unet.eval()
    students.saved(spiking, tmp_path / "start")
    with torch.no_grad():
        spiking.readout.conv.bias.fill_(0.5)
    students.saved(spiking, tmp_path / "start")
    assert load_pipeline(tmp_path / "start").unet.readout.conv.bias.eq(0.5).all()
