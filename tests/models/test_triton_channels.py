"""Neurons fused with batch norm against autograd in float64, and with an affine map against the definition."""

import copy
import itertools

import pytest
import torch
from torch import nn

from sddpm.models.batch_norm import StepBatchNorm2d, frozen_statistics
from sddpm.models.kernels import fused_layers
from sddpm.models.kernels.fused_layers import normalize_and_fire
from sddpm.neurons import Dynamics, SpikingNeuron, functional, kernels

pytest.importorskip("triton")
from sddpm.models.kernels import triton_channels

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
T = 4


def norm_of(channels: int, seed: int = 0) -> StepBatchNorm2d:
    """With parameters and statistics that are not those of a fresh layer."""
    norm = StepBatchNorm2d(channels)
    with torch.no_grad():
        generator = torch.Generator().manual_seed(seed)
        norm.weight.uniform_(0.5, 2.0, generator=generator)
        for values in (norm.bias, norm.running_mean):
            values.normal_(generator=generator)
    return norm


def definition(x, norm, dynamics, shift, w):
    currents = norm(x) if shift is None else norm(x) + shift[:, :, None, None]
    return functional.multi_step(currents, dynamics, w=w)


def distance_to_threshold(x, norm, dynamics, shift, w) -> float:
    """Of the membranes of the definition in float64: rounding flips no spike if this is far above it."""
    currents = copy.deepcopy(norm).double()(x.double()) + shift.double()[:, :, None, None]
    v, nearest = torch.full_like(currents[0], functional.start_of_membrane(dynamics, 1.0)), float("inf")
    for current in currents:
        _, v, h = functional.step(current, v, dynamics, w=w.double())
        nearest = min(nearest, float((h.detach() - 1.0).abs().min()))
    return nearest


def example(dynamics: Dynamics, shape: tuple[int, ...], dtype: torch.dtype = torch.float32, margin: float = 2e-5):
    """Currents, norm, shift, w and incoming gradient of the first seed whose spikes rounding does not touch."""
    w = torch.tensor(-0.3)
    for seed in range(1000):
        generator = torch.Generator().manual_seed(seed)
        x = (torch.randn(shape, generator=generator) * 2 + 3).to(dtype)
        norm, shift = norm_of(shape[2], seed), torch.randn(shape[1:3], generator=generator)
        if distance_to_threshold(x, norm, dynamics, shift, w) > margin:
            return x, norm, shift, w, torch.randn(shape, generator=generator).to(dtype)
    raise AssertionError("no seed keeps all membranes away from the threshold")


def run(function, dtype, device, x, norm, shift, w, incoming):
    norm = copy.deepcopy(norm).to(device, dtype if dtype == torch.float64 else torch.float32)
    x, shift, w = (tensor.to(device, dtype, copy=True).requires_grad_() for tensor in (x, shift, w))
    spikes = function(x, norm, shift, w)
    spikes.backward(incoming.to(device, dtype))
    gradients = {
        "x": x.grad, "shift": shift.grad, "w": w.grad, "weight": norm.weight.grad, "bias": norm.bias.grad,
    }  # fmt: skip
    statistics = {"mean": norm.running_mean, "var": norm.running_var, "batches": norm.num_batches_tracked}
    return spikes.detach().cpu(), {
        name: tensor.detach().cpu().double() for name, tensor in (gradients | statistics).items() if tensor is not None
    }


MODES = [
    ("if", "atan", 0.0, False, 0.0),
    ("if", "rectangle", None, True, 0.0),
    ("if", "atan", None, False, 0.5),
    ("lif", "sigmoid", -0.3, False, 0.0),
    ("plif", "atan", None, False, 0.0),
    ("plif", "triangle", 0.0, True, 0.5),
]


@pytest.mark.parametrize(("neuron", "surrogate", "v_reset", "detach", "charge"), MODES)
def test_batch_norm_and_neuron_against_float64(neuron, surrogate, v_reset, detach, charge):
    dynamics = Dynamics(
        neuron=neuron, surrogate=surrogate, v_reset=v_reset, detach_reset=detach, tau=1.7, initial_charge=charge
    )
    case = example(dynamics, (T, 2, 5, 4, 7))
    spikes, ours = run(
        lambda x, norm, shift, w: triton_channels.normalized_multi_step(x, norm, dynamics, shift=shift, w=w),
        torch.float32, DEVICE, *case,
    )  # fmt: skip
    expected, exact = run(lambda *given: definition(*given[:2], dynamics, *given[2:]), torch.float64, "cpu", *case)
    assert torch.equal(spikes.double(), expected)
    assert ("w" in ours) == (neuron == "plif") and ours.keys() == exact.keys()
    for name in ours:
        error = (ours[name] - exact[name]).norm() / exact[name].norm()
        assert error < 3e-5, (name, float(error))


@pytest.mark.parametrize("shape", [(T, 1, 130, 3, 5), (T, 3, 17, 5, 9), (1, 2, 3, 1, 1)])
def test_several_tiles_of_channels_and_pixels(shape):
    dynamics = Dynamics()
    case = example(dynamics, shape, margin=1e-6)
    fused = lambda x, norm, shift, w: triton_channels.normalized_multi_step(x, norm, dynamics, shift=shift)  # noqa: E731
    spikes, ours = run(fused, torch.float32, DEVICE, *case)
    expected, exact = run(lambda *given: definition(*given[:2], dynamics, *given[2:]), torch.float64, "cpu", *case)
    assert torch.equal(spikes.double(), expected)
    for name in ours:
        torch.testing.assert_close(ours[name], exact[name], rtol=1e-3, atol=1e-4, msg=name)


def test_bfloat16_currents_are_normalised_in_float32():
    dynamics = Dynamics(neuron="lif")
    case = example(dynamics, (T, 2, 5, 4, 7), torch.bfloat16)
    fused = lambda x, norm, shift, w: triton_channels.normalized_multi_step(x, norm, dynamics, shift=shift)  # noqa: E731
    spikes, ours = run(fused, torch.bfloat16, DEVICE, *case[:2], case[2].bfloat16(), *case[3:])
    rounded = (*case[:2], case[2].bfloat16().float(), *case[3:])
    expected, exact = run(lambda *given: definition(*given[:2], dynamics, *given[2:]), torch.float64, "cpu", *rounded)
    assert spikes.dtype == torch.bfloat16
    assert (spikes.double() != expected).float().mean() < 0.002  # the shift was rounded after the margin was looked at
    for name in ours:
        assert (ours[name] - exact[name]).norm() < 2**-6 * exact[name].norm(), name


def test_without_shift_and_in_any_memory_order():
    dynamics = Dynamics()
    x, norm, _, _, incoming = example(dynamics, (T, 2, 5, 4, 7))
    norm = norm.to(DEVICE)
    results = []
    for layout in (torch.contiguous_format, torch.channels_last):
        leaf = x.flatten(0, 1).contiguous(memory_format=layout).unflatten(0, (T, 2)).to(DEVICE).requires_grad_()
        spikes = triton_channels.normalized_multi_step(leaf, copy.deepcopy(norm), dynamics)
        results.append((spikes, *torch.autograd.grad(spikes, leaf, incoming.to(DEVICE))))
        assert spikes.flatten(0, 1).is_contiguous(memory_format=torch.channels_last)
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
    expected = definition(x, norm.cpu(), dynamics, None, None)
    assert (results[0][0].cpu() != expected).float().mean() < 0.002


def test_the_normalised_currents_are_not_kept():
    x = torch.randn(T, 2, 16, 8, 8, device=DEVICE, requires_grad=True)
    norm, saved = norm_of(16).to(DEVICE), []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        triton_channels.normalized_multi_step(x.contiguous(), norm, Dynamics())
    assert sum(t.numel() for t in saved if t.numel() > 1000) == x.numel()


@pytest.fixture(params=["fused", "layer by layer"])
def way(request, monkeypatch):
    """Both ways that a call can take on a CUDA device."""
    monkeypatch.setattr(kernels, "_backend", lambda _device: kernels.load_triton())
    monkeypatch.setenv(kernels.VARIABLE, "auto" if request.param == "fused" else "eager")
    return request.param


def affine_parts():
    """A gain and an offset in each of their shapes, and the sum of what they make of x."""
    x = torch.randn(T, 2, 3, 3, 20)
    for gain, offset in itertools.product((None, (T, 1), (1, 20), (T, 20)), (None, (1, 1), (1, 2), (T, 1), (T, 2))):
        gain = None if gain is None else torch.rand(gain) + 0.5
        offset = None if offset is None else torch.randn(*offset, 20)
        currents = x if gain is None else x * gain[:, None, None, None]
        currents = currents if offset is None else currents + offset[:, :, None, None]
        yield x.to(DEVICE), *(None if part is None else part.to(DEVICE) for part in (gain, offset)), currents


@pytest.mark.parametrize("neuron", ["if", "plif"])
def test_affine_map_and_neuron_equal_the_definition(neuron, way):
    dynamics, w = Dynamics(neuron=neuron), torch.tensor(0.4)
    layer = SpikingNeuron(dynamics, 0.8)
    if layer.w is not None:
        layer.w.data.copy_(w)
    layer.to(DEVICE)
    for x, gain, offset, currents in affine_parts():
        spikes = fused_layers.affine_fire(x, layer, gain=gain, offset=offset, dtype=torch.uint8)
        assert spikes.dtype == torch.uint8
        assert torch.equal(spikes.cpu().float(), functional.multi_step(currents, dynamics, v_threshold=0.8, w=w))


def test_affine_map_and_sum(way):
    for steps in (None, 1, T):
        add = None if steps is None else torch.randn(steps, 2, 3, 3, 20)
        for x, gain, offset, currents in affine_parts():
            added = None if add is None else add.to(DEVICE)
            out = fused_layers.affine_add(x.clone(), gain=gain, offset=offset, add=added)
            assert torch.equal(out.cpu(), currents if add is None else currents + add)


def test_a_centre():
    x, centre = torch.randn(T, 2, 3, 20), torch.randn(20)
    spikes = triton_channels.affine_multi_step(x.to(DEVICE), Dynamics(), centre=centre.to(DEVICE))
    assert torch.equal(spikes.cpu(), functional.multi_step(x - centre, Dynamics()))


@pytest.mark.parametrize("size", [(5, 3), (1, 2), (1, 1)])
def test_spikes_of_a_concatenation_are_written_in_place(size, way):
    first, second = torch.randn(T, 2, *size, 24), torch.randn(1, 2, *size, 8).expand(T, -1, -1, -1, -1)
    out = torch.full((T, 2, *size, 32), 7, dtype=torch.uint8, device=DEVICE)
    for part, place in zip((first, second), out.split([24, 8], dim=-1), strict=True):
        fused_layers.affine_fire(part.to(DEVICE), SpikingNeuron(Dynamics()), out=place)
    assert torch.equal(out.cpu().float(), functional.multi_step(torch.cat([first, second], -1), Dynamics()))


def test_what_cannot_be_fused():
    x, norm = torch.zeros(T, 2, 3, 4, 4), norm_of(3)
    assert triton_channels.unfusable(x, norm) is None
    assert "training" in triton_channels.unfusable(x, copy.deepcopy(norm).eval())
    assert "parameters" in triton_channels.unfusable(x, StepBatchNorm2d(3, affine=False))
    assert "parameters" in triton_channels.unfusable(x, nn.BatchNorm2d(3, momentum=None))
    assert "parameters" in triton_channels.unfusable(x, nn.BatchNorm2d(3, track_running_stats=False))
    assert "[T, B, C, H, W]" in triton_channels.unfusable(x[0], norm)


def test_frozen_statistics():
    x, norm, _, _, _ = example(Dynamics(), (T, 2, 5, 4, 7))
    norm = norm.to(DEVICE)
    before = copy.deepcopy(norm.state_dict())
    expected = triton_channels.normalized_multi_step(x.to(DEVICE), copy.deepcopy(norm), Dynamics())
    with frozen_statistics(norm):
        assert torch.equal(triton_channels.normalized_multi_step(x.to(DEVICE), norm, Dynamics()), expected)
    assert all(torch.equal(norm.state_dict()[name], value) for name, value in before.items())


def test_statistics_of_several_processes_are_not_fused(monkeypatch):
    norm = norm_of(3)
    norm.synchronized = True
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    assert "several processes" in triton_channels.unfusable(torch.zeros(T, 2, 3, 4, 4), norm)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 1)
    assert triton_channels.unfusable(torch.zeros(T, 2, 3, 4, 4), norm) is None


def test_the_layers_in_turn_are_used_where_they_cannot_be_fused(monkeypatch):
    """The dispatcher, as on a CUDA device: fused in training mode only, and not past somebody's hook."""
    calls = []
    fused = triton_channels.normalized_multi_step
    monkeypatch.setattr(kernels, "_backend", lambda _device: kernels.load_triton())
    monkeypatch.setattr(
        triton_channels, "normalized_multi_step", lambda *given, **options: calls.append(1) or fused(*given, **options)
    )
    neuron, norm = SpikingNeuron(Dynamics()).to(DEVICE), norm_of(3).to(DEVICE)
    x, shift = torch.randn(T, 2, 3, 4, 4, device=DEVICE), torch.randn(2, 3, device=DEVICE)

    def output():
        return normalize_and_fire(copy.deepcopy(norm), neuron, x, shift)

    expected = neuron(copy.deepcopy(norm)(x) + shift[:, :, None, None])
    assert torch.equal(output(), expected) and len(calls) == 1
    monkeypatch.setenv(kernels.VARIABLE, "eager")
    assert torch.equal(output(), expected) and len(calls) == 1
    monkeypatch.delenv(kernels.VARIABLE)
    seen = []
    handle = neuron.register_forward_hook(lambda _module, _inputs, spikes: seen.append(spikes))
    assert torch.equal(output(), expected) and len(calls) == 1 and torch.equal(seen[0], expected)
    handle.remove()
    norm.eval()
    assert torch.equal(output(), neuron(norm(x) + shift[:, :, None, None])) and len(calls) == 1


def test_on_the_cpu_norm_and_neuron_run_in_turn():
    x, norm, shift, _, incoming = example(Dynamics(), (T, 2, 5, 4, 7))
    results = []
    for function in (
        lambda leaf, norm: normalize_and_fire(norm, SpikingNeuron(Dynamics()), leaf, shift),
        lambda leaf, norm: kernels.multi_step(norm(leaf) + shift[:, :, None, None], Dynamics()),
    ):
        leaf = x.clone().requires_grad_()
        spikes = function(leaf, copy.deepcopy(norm))
        results.append((spikes, *torch.autograd.grad(spikes, leaf, incoming)))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
