"""A subclass of a neuron, a module in its place and hooks are called in every layer, in training and in sampling."""

import pytest
import torch
from torch import Tensor, nn

from sddpm import SpikingUNet2DModel, UserError
from sddpm.diffusion.solvers import make_scheduler
from sddpm.models.early_exit import EarlyExit
from sddpm.neurons import SpikingNeuron
from sddpm.pipelines import SpikingDiffusionPipeline

CONFIG = {"sample_size": 8, "in_channels": 1, "out_channels": 1, "base_channels": 8, "num_res_blocks": 1, "T": 2}
NETWORKS = {
    "sddpm": {"channel_mult": (1, 2)},
    "attention": {"channel_mult": (1, 2), "attention_resolutions": (4,)},
    "pure": {"channel_mult": (1, 2), "pure": True},
    "pure attention": {"channel_mult": (1, 2), "pure": True, "attention_resolutions": (8, 4)},
}
STEPS = 6


class CountingNeuron(SpikingNeuron):
    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(x)


class Replacement(nn.Module):
    """No neuron at all."""

    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return (x > 1).to(x)


def put(model: nn.Module, name: str, layer: nn.Module) -> nn.Module:
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, layer)
    return layer


def subclassed(model):
    layers = {name: CountingNeuron(neuron.dynamics) for name, neuron in model.neurons().items()}
    for name, layer in layers.items():
        put(model, name, layer)
    return lambda: {name: layer.calls for name, layer in layers.items()}


def replaced(model):
    layers = {name: Replacement() for name in model.neurons()}
    for name, layer in layers.items():
        put(model, name, layer)
    return lambda: {name: layer.calls for name, layer in layers.items()}


def watching(register):
    def watch(model):
        calls = dict.fromkeys(model.neurons(), 0)

        def hook(name):
            def count(*_):
                calls[name] += 1

            return count

        for name, neuron in model.neurons().items():
            getattr(neuron, register)(hook(name))
        return lambda: calls

    return watch


def own_forward(model):
    calls = dict.fromkeys(model.neurons(), 0)

    def forward_of(name, original):
        def forward(x):
            calls[name] += 1
            return original(x)

        return forward

    for name, neuron in model.neurons().items():
        neuron.forward = forward_of(name, neuron.forward)
    return lambda: calls


FORWARD = {
    "subclass": subclassed,
    "replacement": replaced,
    "hook": watching("register_forward_hook"),
    "pre-hook": watching("register_forward_pre_hook"),
    "own forward": own_forward,
}
BACKWARD = {
    "backward hook": watching("register_full_backward_hook"),
    "backward pre-hook": watching("register_full_backward_pre_hook"),
}


@pytest.fixture(params=NETWORKS)
def model(request):
    torch.manual_seed(0)
    model = SpikingUNet2DModel(**CONFIG, **NETWORKS[request.param]).to(memory_format=torch.channels_last).train()
    with torch.no_grad():
        nn.init.normal_(model.readout.conv.weight)
        model(torch.randn(4, 1, 8, 8), torch.arange(4))
    return model


@pytest.mark.parametrize("kind", [*FORWARD, *BACKWARD])
def test_in_a_training_step(model, kind):
    counts = {**FORWARD, **BACKWARD}[kind](model)
    x = torch.randn(2, 1, 8, 8).contiguous(memory_format=torch.channels_last)
    model(x, 3).sample.square().mean().backward()
    assert set(counts().values()) == {1}, counts()
    assert len(counts()) > 8


@pytest.mark.parametrize("register", ["register_forward_hook", "register_full_backward_hook"])
def test_hooks_on_batch_norm_in_a_training_step(model, register):
    calls = {name: 0 for name, layer in model.named_modules() if isinstance(layer, nn.BatchNorm2d)}

    def hook(name):
        def count(*_):
            calls[name] += 1

        return count

    for name in calls:
        getattr(model.get_submodule(name), register)(hook(name))
    x = torch.randn(2, 1, 8, 8).contiguous(memory_format=torch.channels_last)
    model(x, 3).sample.square().mean().backward()
    assert set(calls.values()) == {1}, calls


@pytest.mark.parametrize("kind", FORWARD)
def test_in_sampling(model, kind):
    pipeline = SpikingDiffusionPipeline(model.eval(), make_scheduler("ddim"))
    quick = {"seeds": [1], "num_inference_steps": STEPS, "output_type": "pt", "progress": False}
    pipeline(**quick)  # compiled, where that can be
    counts = FORWARD[kind](model)
    pipeline(**quick)
    assert set(counts().values()) == {STEPS}, counts()
    for engine in ("exact", "fast"):
        with pytest.raises(UserError, match=f"engine '{engine}': this model cannot be compiled: "):
            pipeline(**quick, engine=engine)
    assert set(counts().values()) == {STEPS}


def test_a_subclass_changes_no_bit(model):
    x = torch.randn(2, 1, 8, 8).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        expected = model.eval()(x, 3).sample
        subclassed(model)
        assert torch.equal(model(x, 3).sample, expected)


@torch.no_grad()
def test_early_exit_calls_a_subclass_at_every_step_and_refuses_what_keeps_no_state():
    torch.manual_seed(0)
    model = SpikingUNet2DModel(**CONFIG, channel_mult=(1, 2)).eval().double()
    x = torch.randn(2, 1, 8, 8).double()
    expected = EarlyExit(model, 0.0)(x, 3).sample
    counts = subclassed(model)
    assert torch.equal(EarlyExit(model.double(), 0.0)(x, 3).sample, expected)
    assert set(counts().values()) == {CONFIG["T"]}
    for neuron in model.neurons().values():
        assert neuron.state is None and not neuron.carries

    class Stateless(SpikingNeuron):
        def forward(self, x):
            return (x > 1).to(x)

    put(model, "encoder.neuron", Stateless(model.encoder.neuron.dynamics))
    with pytest.raises(UserError, match=r"encoder\.neuron, a Stateless, does not call SpikingNeuron\.forward"):
        EarlyExit(model, 0.0)(x, 3)
    put(model, "encoder.neuron", Replacement())
    with pytest.raises(UserError, match=r"needs a SpikingNeuron at encoder\.neuron, not a Replacement"):
        EarlyExit(model, 0.0)


@pytest.mark.parametrize(
    ("layer", "message"),
    [(lambda old: CountingNeuron(old.dynamics), "middle.0.neuron1 is a CountingNeuron"),
     (lambda _: Replacement(), "middle.0.neuron1 is a Replacement")],
)  # fmt: skip
def test_neurons_put_in_by_hand_are_not_saved_as_others(tmp_path, layer, message):
    model = SpikingUNet2DModel(**CONFIG, channel_mult=(1, 2))
    put(model, "middle.0.neuron1", layer(model.middle[0].neuron1))
    pipeline = SpikingDiffusionPipeline(model, make_scheduler("ddim"))
    for save in (model.save_pretrained, pipeline.save_pretrained):
        with pytest.raises(UserError, match=f"cannot be saved: {message} .*register_neuron"):
            save(tmp_path / "model")
