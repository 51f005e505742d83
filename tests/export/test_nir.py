"""NIR files read back: by its specification, by spikingjelly's exchange and by norse, spike by spike over T."""

import copy
import json
from pathlib import Path
from types import SimpleNamespace

import nir
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from sddpm.diffusion.noise import generators_for, seeded_noise
from sddpm.diffusion.solvers import make_scheduler
from sddpm.errors import UserError
from sddpm.export.nir_file import export_nir
from sddpm.export.nir_graph import DT, nir_graph, refusal
from sddpm.models import SpikingUNet2DModel
from sddpm.models.ann import ANNUNet2DModel
from sddpm.models.patches import from_patches, to_patches
from sddpm.models.readout import membrane_readout
from sddpm.pipelines import denoise
from sddpm.training import load_config
from tests.helpers.exported_networks import calibrated
from tests.helpers.nir_interpreter import run
from tests.helpers.small_pipeline import pipeline_of

T = 4
FITS = {"channel_mult": (1,), "pure": True, "T": T, "patch_size": 2, "sample_size": 16}


def inputs_of(model, x, t, labels=None):
    """What the graph's input is, from x_t and t."""
    emb = model.time_embedding(t)
    if labels is not None:
        emb = emb + model.class_embedding(labels)
    patches = to_patches(x, model.config["patch_size"])
    maps = F.silu(emb)[:, :, None, None].expand(-1, -1, *patches.shape[2:])
    return torch.cat([patches, maps], 1)


@torch.no_grad()
def spikes_of(model, *given):
    """The prediction and the spikes of every layer, a concatenation as its two parts."""
    found = {}
    hooks = [
        neuron.register_forward_hook(lambda _m, _x, out, name=name: found.__setitem__(name, out))
        for name, neuron in model.neurons().items()
    ]
    answer = model(*given).sample
    for hook in hooks:
        hook.remove()
    for name in [name for name in found if name.startswith("up.") and name.endswith("neuron1")]:
        found[f"{name}.a"], found[f"{name}.b"] = found.pop(name).chunk(2, dim=2)
    return answer, found


def prediction(model, outputs):
    return from_patches(membrane_readout(outputs, model.config["readout_decay"]), model.config["patch_size"], 2)


@pytest.fixture(scope="module")
def model():
    return calibrated(**FITS)


@pytest.fixture(scope="module")
def x():
    return torch.randn(2, 1, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def close(found, expected, flips=2e-3):
    """The same layers, and but for neurons at the very threshold the same spikes."""
    assert set(found) == set(expected)
    for name, spikes in expected.items():
        assert (found[name] != spikes).double().mean() < flips, name
        assert 0 < spikes.double().mean() < 1


@pytest.mark.parametrize(
    "config", [{}, {"num_res_blocks": 2}, {"num_classes": 3}, {"v_threshold": {"*": 1.0, "up*": 0.8}}]
)
def test_spike_by_spike_as_the_specification_says(config, x):
    model = calibrated(**{**FITS, **config})
    t = torch.tensor([700, 3])
    labels = torch.tensor([0, 2]) if "num_classes" in config else None
    expected, spikes = spikes_of(model, x, t, labels)
    with torch.no_grad():
        outputs, found = run(nir_graph(model), inputs_of(model, x, t, labels), T, DT)
    close(found, spikes)
    assert (prediction(model, outputs) - expected).abs().max() < 1e-2 * expected.std()


def test_one_diffusion_step_in_the_biases(model, x):
    expected, spikes = spikes_of(model, x, 321)
    graph = nir_graph(model, 321)
    outputs, found = run(graph, to_patches(x, 2), T, DT)
    close(found, spikes)
    assert (prediction(model, outputs) - expected).abs().max() < 1e-2 * expected.std()
    assert not any("time" in name for name in graph.nodes)


def test_a_neuron_fires_at_its_threshold():
    """Where ours fires from theta on and NIR above its own: at theta and the floats beside it, to the bit."""
    model = calibrated(**FITS, v_threshold=0.7).float()
    node = nir_graph(model).nodes["encoder.neuron"]
    theta = np.float32(0.7)
    for value in (np.nextafter(theta, np.float32(0)), theta, np.nextafter(theta, np.float32(1))):
        ours = model.encoder.neuron(torch.full((1, 1, 1, 1, 1), float(value)))
        assert bool(ours.item()) == bool(value > node.v_threshold.flat[0])


@pytest.fixture(scope="module")
def spikingjelly_s(model, tmp_path_factory):
    """The network as spikingjelly reads it from a file."""
    exchange = pytest.importorskip("spikingjelly.activation_based.nir_exchange")
    file = tmp_path_factory.mktemp("nir") / "model.nir"
    nir.write(file, nir_graph(model))
    return exchange.import_from_nir(file, dt=DT)


@torch.no_grad()
def evaluate(theirs, given):
    """Currents of the readout [T, B, ...] of a module of nirtorch, which hands on its state."""
    state, outputs = None, []
    for _ in range(T):
        out, state = theirs(given, state)
        outputs.append(out)
    return torch.stack(outputs)


def test_spikingjelly_reads_it_back(model, x, spikingjelly_s):
    found = {}
    neurons = [m for m in spikingjelly_s.named_modules() if type(m[1]).__name__ == "_NIRStatefulModule"]
    hooks = [
        module.register_forward_hook(lambda _m, _x, out, name=name: found.setdefault(name, []).append(out[0]))
        for name, module in neurons
    ]
    t = torch.tensor([700, 3])
    outputs = evaluate(spikingjelly_s, inputs_of(model, x, t).float())
    for hook in hooks:
        hook.remove()
    expected, spikes = spikes_of(model, x, t)
    by_name = {name.replace(".", "_"): layer for name, layer in spikes.items()}
    close({name.replace(".", "_"): torch.stack(steps) for name, steps in found.items()}, by_name)
    assert (prediction(model, outputs) - expected).abs().max() < 1e-2 * expected.std()


def test_neurons_of_norse(model, x):
    pytest.importorskip("norse")
    from nirtorch import nir_to_torch
    from norse.torch.utils.import_nir import _import_norse_module

    def convert(node):
        return _import_norse_module(node, ignore_warnings=True, dt=DT)

    expected, _ = spikes_of(model, x, 321)
    theirs = nir_to_torch(nir_graph(model, 321), {nir.Conv2d: convert, nir.IF: convert})
    outputs = evaluate(theirs, to_patches(x, 2).float())
    assert (prediction(model, outputs) - expected).abs().max() < 1e-2 * expected.std()


def test_a_whole_picture_through_spikingjelly(model, spikingjelly_s):
    class Theirs(torch.nn.Module):
        def forward(self, sample, timestep):
            t = torch.as_tensor(timestep).expand(len(sample))
            given = inputs_of(model, sample.double(), t).float()
            return SimpleNamespace(sample=prediction(model, evaluate(spikingjelly_s, given)))

    noise, scheduler = seeded_noise([5, 6], (1, 16, 16)), make_scheduler("ddim", prediction_type="v_prediction")
    options = {"num_inference_steps": 5}
    pictures = []
    for network in (Theirs(), copy.deepcopy(model).float()):
        *_, last = denoise(network, scheduler, noise, generators_for([5, 6]), **options)
        pictures.append(last.x_prev)
    assert (pictures[0] - pictures[1]).abs().median() < 1e-4  # a spike that flips by rounding may change some pixels
    assert pictures[0].std() > 0.1


def test_the_file_says_how_to_sample(tmp_path):
    pipe = pipeline_of(**FITS, num_classes=2)
    export_nir(pipe, tmp_path / "model.nir")
    graph = nir.read(tmp_path / "model.nir")
    facts = json.loads(_text(graph.metadata["sddpm"]))
    assert facts["T"] == T and facts["dt"] == DT and facts["readout_decay"] == 0.8
    assert graph.metadata["time_embedding"].shape == (1000, 32) and graph.metadata["class_embedding"].shape == (3, 32)
    assert set(graph.nodes) == set(nir_graph(pipe.unet).nodes)


def _text(value):
    return value if isinstance(value, str) else np.asarray(value).item().decode()


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"channel_mult": (1, 2)}, r"upsampling.*channel_mult"),
        ({"pure": False}, "pure = true"),
        ({"neuron": "lif"}, "neuron = if"),
        ({"v_reset": None}, "v_reset = 0"),
        ({"v_reset": -0.2}, "v_reset = 0"),
        ({"initial_charge": 0.5}, "initial_charge = 0"),
        ({"v_reset": None, "signed_spikes": True}, "v_reset = 0"),
        ({"temporal_modulation": True}, "temporal_modulation = false"),
        ({"attention_resolutions": (8,)}, "attention_resolutions"),
        ({"synaptic_currents": True}, "synaptic_currents = false"),
        ({"dims": 1}, "dims = 2"),
    ],
)
def test_networks_that_nir_cannot_say(config, reason):
    with pytest.raises(UserError, match=reason):
        nir_graph(SpikingUNet2DModel(**{"in_channels": 1, "base_channels": 8, "out_channels": 1, **FITS, **config}))


def test_the_config_fits():
    config = load_config(Path(__file__).resolve().parents[2] / "configs" / "fashion_mnist_nir.yaml")
    model = config.model.model_dump(exclude={"kind"})
    assert refusal(SpikingUNet2DModel(sample_size=32, in_channels=1, out_channels=1, **model)) is None


def test_a_twin_without_spikes_is_refused(model):
    twin = ANNUNet2DModel(sample_size=8, base_channels=8, channel_mult=(1,), num_res_blocks=1)
    with pytest.raises(UserError, match="NIR needs a spiking network"):
        nir_graph(twin)
    for step in (-1, 1000):
        with pytest.raises(UserError, match="from 0 to 999"):
            nir_graph(model, step)
