"""The fused training step of norm, neuron and convolution against the modules one after another."""

import copy

import pytest
import torch
from torch import nn

from sddpm import SpikingUNet2DModel, native
from sddpm.models.batch_norm import StepBatchNorm2d
from sddpm.models.layers import ModulatedStepConv2d, StepConv2d
from sddpm.models.spiking_conv import spiking_conv
from sddpm.neurons import SURROGATES, Dynamics, SpikingNeuron
from sddpm.neurons.kernels import VARIABLE

pytestmark = pytest.mark.skipif(native.library() is None, reason="the native kernels were not built")
FUSED = "_SpikingConvBackward"


def innermost(x):
    return x.flatten(0, 1).contiguous(memory_format=torch.channels_last).unflatten(0, x.shape[:2])


def layers(channels=5, out=7, *, stride=1, dynamics=None, modulated=False, threshold=0.8, kernel=3):
    torch.manual_seed(0)
    norm = StepBatchNorm2d(channels)
    nn.init.normal_(norm.weight, 1, 0.3)
    nn.init.normal_(norm.bias, 0, 0.3)
    geometry = (channels, out, kernel, stride, kernel // 2)
    conv = ModulatedStepConv2d(*geometry, T=4) if modulated else StepConv2d(*geometry)
    if modulated:
        nn.init.normal_(conv.p, 1, 0.2)
    neuron = SpikingNeuron(dynamics or Dynamics(), threshold)
    return nn.ModuleDict({"norm": norm, "neuron": neuron, "conv": conv})


def run(modules, x, shift=None, *, norm=True, upsample=False, fused=True, monkeypatch):
    """Output, gradients by name and running statistics of a training step."""
    monkeypatch.setenv(VARIABLE, "auto" if fused else "eager")
    modules = copy.deepcopy(modules)
    x = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    shift = None if shift is None else shift.detach().clone().requires_grad_()
    out = spiking_conv(
        2 * x,
        modules["neuron"],
        modules["conv"],
        norm=modules["norm"] if norm else None,
        shift=shift,
        upsample=(2, 2) if upsample else (1, 1),
    )
    fused_in = out.grad_fn if not isinstance(modules["conv"], ModulatedStepConv2d) else out.grad_fn.next_functions[0][0]
    assert (type(fused_in).__name__ == FUSED) == fused
    generator = torch.Generator().manual_seed(1)
    (out * torch.randn(out.shape, generator=generator, dtype=torch.float64).to(out)).sum().backward()
    found = {"out": out.detach(), "x": x.grad} | {
        n: p.grad for n, p in modules.named_parameters() if p.grad is not None
    }
    if shift is not None:
        found["shift"] = shift.grad
    return found | dict(modules.named_buffers())


def assert_close(ours, expected, tolerance):
    """Largest difference within `tolerance` of the tensor's scale."""
    assert ours.keys() == expected.keys()
    for name, value in expected.items():
        value = value.double()
        assert ours[name].shape == value.shape, name
        assert (ours[name].double() - value).abs().max() <= tolerance * (value.abs().max() + 1e-6), name


def step(T=4, B=3, channels=5, size=6, dtype=torch.double):
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(T, B, channels, size, size, generator=generator, dtype=torch.double) + 0.5
    return innermost(x.to(dtype)), torch.randn(B, channels, generator=generator, dtype=torch.double).to(dtype)


@pytest.mark.parametrize("surrogate", SURROGATES)
@pytest.mark.parametrize("neuron", ["if", "lif", "plif"])
@pytest.mark.parametrize("norm", [True, False])
def test_every_neuron_equals_the_modules(neuron, surrogate, norm, monkeypatch):
    x, shift = step()
    for v_reset, detach, decay in [(0.0, False, True), (None, False, False), (-0.3, True, True)]:
        dynamics = Dynamics(
            neuron=neuron, v_reset=v_reset, tau=1.7, decay_input=decay, detach_reset=detach, surrogate=surrogate
        )
        modules = layers(dynamics=dynamics).double()
        ours, expected = (
            run(modules, x, shift if norm else None, norm=norm, fused=fused, monkeypatch=monkeypatch)
            for fused in (True, False)
        )
        assert_close(ours, expected, 1e-10)


@pytest.mark.parametrize("channels", [1, 3, 64, 100, 256, 300, 520])
@pytest.mark.parametrize("T", [1, 4])
def test_any_number_of_channels(channels, T, monkeypatch):
    """Below, at and above the width of the kernels' tiles, dividing it or not."""
    x, shift = step(T=T, channels=channels, size=5)
    modules = layers(channels, 3, kernel=1).double()
    ours, expected = (run(modules, x, shift, fused=fused, monkeypatch=monkeypatch) for fused in (True, False))
    assert_close(ours, expected, 1e-10)


@pytest.mark.parametrize(
    ("kwargs", "upsample"), [({"stride": 2}, False), ({}, True), ({"modulated": True}, False), ({"kernel": 1}, False)]
)
def test_every_convolution(kwargs, upsample, monkeypatch):
    x, _ = step()
    modules = layers(**kwargs).double()
    for norm in (True, False):
        ours, expected = (
            run(modules, x, norm=norm, upsample=upsample, fused=fused, monkeypatch=monkeypatch)
            for fused in (True, False)
        )
        assert_close(ours, expected, 1e-10)


def test_float32_is_as_exact_as_the_modules(monkeypatch):
    """Against float64, on 1x1 convolutions that pass the spikes on: few spikes flip, and gradients agree."""
    x, shift = step(B=8, channels=32, size=16, dtype=torch.float32)
    modules = layers(32, 32, kernel=1)
    nn.init.eye_(modules["conv"].weight.data.view(32, 32))
    nn.init.zeros_(modules["conv"].bias)
    exact = run(modules.double(), x.double(), shift.double(), fused=False, monkeypatch=monkeypatch)
    modules = modules.float()
    for fused in (True, False):
        ours = run(modules, x, shift, fused=fused, monkeypatch=monkeypatch)
        assert (ours["out"] != exact["out"]).double().mean() < 1e-5
        for name in ("x", "norm.weight", "norm.bias", "shift", "norm.running_mean", "norm.running_var"):
            error = (ours[name] - exact[name]).double().square().mean().sqrt()
            assert error < 1e-3 * exact[name].square().mean().sqrt(), name


def test_bfloat16_computes_in_float32(monkeypatch):
    """Spikes are those of the float32 step on the same numbers; gradients are rounded, not summed, in bfloat16."""
    x, shift = step(B=8, channels=32, size=16, dtype=torch.bfloat16)
    modules = layers(32, 32, kernel=1)
    nn.init.eye_(modules["conv"].weight.data.view(32, 32))
    nn.init.zeros_(modules["conv"].bias)
    wide = run(modules, x.float(), shift.float(), monkeypatch=monkeypatch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours = run(modules, x, shift, monkeypatch=monkeypatch)
    assert ours["out"].dtype == torch.bfloat16 and torch.equal(ours["out"].float(), wide["out"])
    assert ours["norm.weight"].dtype == torch.float32
    for name in ("x", "norm.weight", "norm.bias", "shift", "conv.weight"):
        error = (ours[name] - wide[name]).double().square().mean().sqrt()
        assert error < 2**-7 * wide[name].double().square().mean().sqrt(), name


def test_float32_currents_under_autocast(monkeypatch):
    """The convolution alone is bfloat16."""
    x, shift = step(B=8, channels=32, size=16, dtype=torch.float32)
    modules = layers(32, 32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours = run(modules, x, shift, monkeypatch=monkeypatch)
    exact = run(modules, x, shift, monkeypatch=monkeypatch)
    assert ours["out"].dtype == torch.bfloat16 and ours["x"].dtype == ours["conv.weight"].dtype == torch.float32
    for name in ("out", "x", "conv.weight"):
        error = (ours[name] - exact[name]).square().mean().sqrt()
        assert 0 < error < 2**-6 * exact[name].square().mean().sqrt(), name


def test_neither_threads_nor_instruction_sets_change_a_bit(monkeypatch):
    x, shift = step(B=6, channels=40, size=12, dtype=torch.float32)
    modules, kernels = layers(40, 4, kernel=1), native.library()
    threads, best = torch.get_num_threads(), kernels.sddpm_instruction_set(-1)
    results = []
    try:
        for count, level in [(1, best), (3, best), *((1, level) for level in range(best))]:
            torch.set_num_threads(count)
            kernels.sddpm_instruction_set(level)
            found = run(modules, x, shift, monkeypatch=monkeypatch)
            results.append({name: found[name] for name in ("x", "norm.weight", "norm.bias", "norm.running_var")})
    finally:
        torch.set_num_threads(threads)
        kernels.sddpm_instruction_set(best)
    torch.set_num_threads(1)
    for other in results[1:]:
        assert all(torch.equal(other[name], value) for name, value in results[0].items())
    torch.set_num_threads(threads)


def test_only_the_convolutions_output_is_kept():
    """For the backward pass: x, 4 bytes a neuron and time step, and what does not grow with the image."""
    x, shift = step(channels=16, size=16, dtype=torch.float32)
    modules, kept = layers(16, 16), {}
    x.requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.__setitem__(t.data_ptr(), t) or t, lambda t: t):
        spiking_conv(x, modules["neuron"], modules["conv"], norm=modules["norm"], shift=shift)
    sizes = sorted(t.nbytes for t in kept.values())
    assert sizes[-1] == x.nbytes and x.data_ptr() in kept
    assert sum(sizes[:-1]) <= modules["conv"].weight.nbytes + 1024


# Where the modules are called one after another


def names_of_graph(out):
    seen, left = set(), [out.grad_fn]
    while left:
        node = left.pop()
        if node not in seen:
            seen.add(node)
            left += [n for n, _ in node.next_functions if n is not None]
    return {type(node).__name__ for node in seen}


@pytest.mark.parametrize("name", ["norm", "neuron", "conv"])
@pytest.mark.parametrize("kind", ["register_forward_hook", "register_forward_pre_hook", "register_full_backward_hook"])
def test_hooks_are_called(name, kind):
    x, _ = step(dtype=torch.float32)
    modules, calls = layers(), []
    getattr(modules[name], kind)(lambda *args: calls.append(args) and None)
    out = spiking_conv(x.requires_grad_(), modules["neuron"], modules["conv"], norm=modules["norm"])
    out.sum().backward()
    assert len(calls) == 1 and FUSED not in names_of_graph(out)


def test_falls_back(monkeypatch):
    x, shift = step(dtype=torch.float32)
    modules = layers()

    def graph(x=x, modules=modules):
        norm, neuron, conv = modules.values()
        return names_of_graph(spiking_conv(x.detach().requires_grad_(), neuron, conv, norm=norm, shift=shift.to(x)))

    class OtherNeuron(SpikingNeuron):
        pass

    assert FUSED in graph()
    assert FUSED not in graph(x=x.contiguous())  # channels outermost
    assert FUSED not in graph(modules=copy.deepcopy(modules).eval())
    assert FUSED not in graph(modules=nn.ModuleDict({**modules, "neuron": OtherNeuron(Dynamics())}))
    affine = nn.ModuleDict({**modules, "norm": StepBatchNorm2d(5, affine=False)})
    assert FUSED not in graph(modules=affine)
    with torch.no_grad():
        assert not spiking_conv(x, modules["neuron"], modules["conv"], norm=modules["norm"]).requires_grad
    monkeypatch.setattr(native, "library", lambda: None)
    assert FUSED not in graph()


def test_whole_network(monkeypatch):
    """Loss, gradients and buffers of the U-Net's training step, with and without the fused path; the way that was
    taken is seen in the graph."""
    torch.manual_seed(0)
    model = SpikingUNet2DModel(sample_size=8, base_channels=8, channel_mult=(1, 2), num_res_blocks=1).double()
    nn.init.normal_(model.readout.conv.weight)
    model.to(memory_format=torch.channels_last)
    x = torch.randn(2, 3, 8, 8).double().contiguous(memory_format=torch.channels_last)
    results, graphs = [], []
    for choice in ("auto", "eager"):
        monkeypatch.setenv(VARIABLE, choice)
        net = copy.deepcopy(model)
        out = net(x, torch.tensor([3, 700])).sample
        graphs.append(names_of_graph(out))
        out.square().mean().backward()
        results.append(
            {"out": out.detach()} | {n: p.grad for n, p in net.named_parameters()} | dict(net.named_buffers())
        )
    assert {FUSED, "_NormaliseBackward"} <= graphs[0]
    assert not {FUSED, "_NormaliseBackward", "_NeuronBackward"} & graphs[1]
    scale = max(v.abs().max() for n, v in results[1].items() if n.endswith("weight"))
    for name, value in results[1].items():
        # A bias before a batch norm has gradient zero but for rounding, hence the absolute part.
        assert torch.allclose(results[0][name].double(), value.double(), rtol=1e-10, atol=1e-11 * scale), name
