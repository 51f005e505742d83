"""The neurons of examples/own_neuron.py: spikes by hand, and the example itself in its smallest form."""

import math

import pytest
import torch

from examples import demo, own_neuron
from sddpm import UserError, load_pipeline
from sddpm.neurons import Dynamics, steps

pytestmark = pytest.mark.usefixtures("registries")

SMALLEST = (
    "model.base_channels=8",
    "model.channel_mult=[1,2]",
    "model.T=3",
    "train.batch_size=8",
    "train.log_every=1",
    "train.tensorboard=false",
)


def spikes(x, dynamics, **parameters):
    return [int(s) for s, _, _ in steps(torch.tensor(x, dtype=torch.float64), dynamics, **parameters)]


def test_the_threshold_rises_with_every_spike_and_falls_back():
    """tau = 1: h = x; beta = 1, rho = 1/2: thresholds 1, 1.5, 1.75, 1.375."""
    own_neuron.register()
    options = {"beta": 1.0, "tau_adaptation": 1 / math.log(2)}
    assert spikes([1.6] * 4, Dynamics(neuron="alif", tau=1.0, options=options)) == [1, 1, 0, 1]


def test_without_adaptation_it_is_a_lif_neuron():
    own_neuron.register()
    x = torch.randn(6, 50, generator=torch.Generator().manual_seed(0)) * 2
    for v_reset in (0.0, None):
        adapting = steps(x, Dynamics(neuron="alif", tau=1.5, v_reset=v_reset, options={"beta": 0.0}))
        for (s, state, h), (s_lif, v, h_lif) in zip(
            adapting, steps(x, Dynamics(neuron="lif", tau=1.5, v_reset=v_reset)), strict=True
        ):
            assert torch.equal(s, s_lif) and torch.equal(h, h_lif) and torch.equal(state.v, v)
    with pytest.raises(UserError, match="tau_adaptation must be above 0"):
        Dynamics(neuron="alif", options={"tau_adaptation": 0.0})


def test_the_synapse_remembers():
    """tau = 1: h = i; decay 1/2: i = 0.6, 0.9, 1.05, 0.525."""
    own_neuron.register()
    synapse = torch.tensor(0.0, dtype=torch.float64)
    assert spikes([0.6, 0.6, 0.6, 0.0], Dynamics(neuron="cuba_lif", tau=1.0), synapse=synapse) == [0, 0, 1, 0]


def test_the_example(tmp_path, capsys):
    own_neuron.main(tmp_path, 4, SMALLEST)
    out = capsys.readouterr().out
    for neuron, learned in (("alif", None), ("cuba_lif", "encoder.neuron.synapse")):
        picture = tmp_path / neuron / "samples.png"
        assert f"{neuron}: see {picture}; a sample of 5 evaluations needs" in out and picture.is_file()
        unet = load_pipeline(tmp_path / neuron).unet
        assert unet.config["neuron"] == neuron
        assert learned is None or unet.state_dict()[learned] != -1.0


def test_the_examples_delete_nothing(tmp_path, monkeypatch):
    note = tmp_path / "alif" / "note.txt"
    note.parent.mkdir()
    note.write_text("mine")
    with pytest.raises(UserError, match="alif exists already: give another OUT"):
        own_neuron.main(tmp_path, 4, SMALLEST)
    assert note.read_text() == "mine"

    calls = []

    def stop(*words):
        calls.append(words)
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "sddpm", stop)
    (tmp_path / "demo" / "run").mkdir(parents=True)
    (tmp_path / "demo-2").mkdir()
    (tmp_path / "demo-2" / "samples.png").write_text("mine")
    (tmp_path / "demo-3").mkdir()
    (tmp_path / "demo-3" / "fashion-mnist.png").write_text("of another command")
    with pytest.raises(KeyboardInterrupt):
        demo.main(tmp_path / "demo")
    assert calls == [("train", "digits_quantized", "--out", tmp_path / "demo-3" / "quantized")]
    assert (tmp_path / "demo" / "run").is_dir() and (tmp_path / "demo-2" / "samples.png").read_text() == "mine"
