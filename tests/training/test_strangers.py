"""A neuron and a surrogate that are registered from outside, end to end: config, training, checkpoint, resumption,
sampling with every engine, energy, information; and what happens where they are not registered."""

import math
import shutil
from typing import NamedTuple

import pytest
import torch
import yaml
from torch import Tensor

from sddpm import (
    SpikingDiffusionPipeline,
    SpikingUNet2DModel,
    UserError,
    load_pipeline,
    register_neuron,
    register_surrogate,
)
from sddpm.energy import load_cost_model, measure_sampling, recording
from sddpm.neurons import NEURONS, SURROGATES, Dynamics, fire, reset
from sddpm.training import load_config, train

STRANGERS = ["model.neuron=sticky", "model.surrogate=bell", "model.neuron_options={stay: 0.25}"]
QUICK = {"seeds": [0, 1], "num_inference_steps": 5, "output_type": "pt", "progress": False}


class Sticky(NamedTuple):
    v: Tensor
    last: Tensor


def start(x: Tensor, dynamics: Dynamics, v_threshold: float) -> Sticky:
    return Sticky(torch.zeros_like(x), torch.zeros_like(x))


def step(x: Tensor, state: Sticky, dynamics: Dynamics, v_threshold: float, gain: Tensor):
    """An IF neuron to which its own last spike comes back."""
    h = state.v + gain * x + dynamics.options["stay"] * state.last
    s = fire(h, dynamics, v_threshold)
    return s, Sticky(reset(h, s, dynamics, v_threshold), s), h


def register() -> None:
    register_neuron("sticky", step, start, parameters={"gain": lambda _: 1.0}, options={"stay": 0.5}, leaks=3)
    register_surrogate("bell", lambda grad, u, alpha: alpha * torch.exp(-math.pi * (alpha * u) ** 2) * grad, 1.0)


@pytest.fixture(scope="module")
def run(tiny, tmp_path_factory):
    """A run of six steps, as it is after a stop at the third and a resumption, and one that was not stopped."""
    before = dict(NEURONS), dict(SURROGATES)
    register()
    folder = tmp_path_factory.mktemp("strangers")
    config = tiny(*STRANGERS)
    train(config, folder / "whole", device="cpu", progress=False)
    half = config.model_copy(update={"train": config.train.model_copy(update={"steps": 3})})
    train(half, folder / "run", device="cpu", progress=False)
    train(load_config(folder / "run" / "config.yaml", ["train.steps=6"]), folder / "run", resume=True, device="cpu",
          progress=False)  # fmt: skip
    yield folder / "run"
    for registry, parts in zip((NEURONS, SURROGATES), before, strict=True):
        registry.clear()
        registry.update(parts)


@pytest.fixture
def forgotten(run, registries):
    """The run in a process in which nothing was registered."""
    del NEURONS["sticky"], SURROGATES["bell"]
    return run


def test_the_run_learned_and_was_resumed_to_the_bit(run):
    whole, resumed = (load_pipeline(path).unet.state_dict() for path in (run.parent / "whole", run))
    assert whole.keys() == resumed.keys() and "encoder.neuron.gain" in whole
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert whole["encoder.neuron.gain"] != 1.0
    written = yaml.safe_load((run / "config.yaml").read_text())["model"]
    assert (written["neuron"], written["surrogate"]) == ("sticky", "bell")
    assert load_pipeline(run).unet.config["neuron_options"] == {"stay": 0.25}


def test_options_are_saved_with_their_values(run, tmp_path):
    model = SpikingUNet2DModel(sample_size=8, base_channels=8, channel_mult=(1,), neuron="sticky")
    model.save_pretrained(tmp_path)
    assert SpikingUNet2DModel.load_config(tmp_path)["neuron_options"] == {"stay": 0.5}


def test_every_engine_samples_it(run):
    """One evaluation; exact mode computes the same, but for rounding."""
    pipeline = load_pipeline(run)
    unet = pipeline.unet.double()
    x = torch.randn(2, 1, 8, 8, dtype=torch.float64)
    with torch.no_grad():
        expected = unet(x, 500).sample
        exact = pipeline.model_for("exact")(x, 500).sample
    torch.testing.assert_close(exact, expected, rtol=0, atol=1e-9 * expected.abs().max().item() + 1e-9)
    pipeline.unet.float()
    for engine in ("auto", "eager", "exact", "fast"):
        images = torch.as_tensor(pipeline(**QUICK, engine=engine).images)
        assert images.shape == (2, 1, 8, 8) and images.isfinite().all()
    early = torch.as_tensor(pipeline(**QUICK, exit_tolerance=0.0).images)
    torch.testing.assert_close(early, torch.as_tensor(pipeline(**QUICK, engine="eager").images), rtol=0, atol=1e-3)


def test_its_energy_is_counted_and_its_membranes_recorded(run):
    pipeline = load_pipeline(run)
    with recording(pipeline.unet) as activity:
        ledger = measure_sampling(pipeline, [0, 1], num_inference_steps=2)
    neurons = [layer for layer in ledger.evaluations[0].layers if layer.kind == "neuron"]
    assert len(neurons) == len(pipeline.unet.neurons()) and {layer.leaks for layer in neurons} == {3}
    assert all(layer.binary for layer in neurons) and sum(sum(layer.fired) for layer in neurons) > 0
    assert ledger.per_sample(load_cost_model("45nm")).total > 0
    layer = activity.layers["encoder.neuron"]
    assert layer.membrane.sum() == 2 * pipeline.unet.config.T * 8 * 64  # evaluations, steps, channels, pixels


def test_info_names_it(run, sddpm):
    code, out, _ = sddpm("info", run, "--layers")
    assert code == 0 and "layers of STICKY" in out and "surrogate bell" in out


def test_without_the_registration_each_door_names_what_it_needs(forgotten, sddpm, tmp_path):
    needed = r"needs neuron 'sticky', which is not registered: call sddpm\.register_neuron\('sticky', \.\.\.\) first"
    model = forgotten / "model"
    for open_ in (
        lambda: load_pipeline(forgotten),
        lambda: SpikingDiffusionPipeline.from_pretrained(model),
        lambda: SpikingUNet2DModel.from_pretrained(model / "unet"),
        lambda: load_config(forgotten / "config.yaml"),
    ):
        with pytest.raises(UserError, match=needed) as error:
            open_()
        assert "\n" not in str(error.value)
    shutil.copytree(forgotten, tmp_path / "run")
    commands = [
        ("info", forgotten),
        ("train", tmp_path / "run" / "config.yaml", "--out", tmp_path / "run", "--resume"),
        ("sample", forgotten, "--count", "1", "--out", tmp_path / "samples"),
    ]
    for command in commands:
        code, _, err = sddpm(*command)
        assert code == 2 and "needs neuron 'sticky'" in err and "Traceback" not in err


def test_a_surrogate_that_is_missing_is_named(run, registries):
    del SURROGATES["bell"]
    with pytest.raises(UserError, match="needs surrogate 'bell', which is not registered"):
        load_pipeline(run)


def test_weights_of_another_neuron_are_refused(run, tmp_path):
    shutil.copytree(run / "model" / "unet", tmp_path / "unet")
    path = tmp_path / "unet" / "config.json"
    path.write_text(path.read_text().replace('"sticky"', '"if"').replace('"stay": 0.25', ""))
    with pytest.raises(UserError, match=r"neuron\.?\d?\.gain, which neuron 'if' of the config does not learn"):
        SpikingUNet2DModel.from_pretrained(tmp_path / "unet")
