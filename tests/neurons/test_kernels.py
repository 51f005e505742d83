"""The fused CPU kernel against the definition: identical spikes, gradients within the stated rounding."""

import itertools
import logging
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sddpm import native
from sddpm.errors import UserError
from sddpm.neurons import SURROGATES, Dynamics, SpikingNeuron, functional, kernels
from sddpm.neurons.kernels import cpu
from tests.helpers.neuron_oracle import any_dynamics, spikes_and_gradients

built = pytest.mark.skipif(native.library() is None, reason="the native kernel was not built")
DTYPES = [torch.float32, torch.float64, torch.bfloat16]


def currents(shape, dtype, seed=0, scale=2.0):
    return (torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * scale).to(dtype)


def compare(dynamics: Dynamics, x: torch.Tensor, v_threshold: float = 1.0, w: float = -0.3) -> None:
    parameters = (torch.tensor(w, requires_grad=True),) if dynamics.neuron == "plif" else ()

    def run(function):
        kwargs = {"w": parameters[0]} if parameters else {}
        return spikes_and_gradients(
            lambda leaf: function(leaf, dynamics, v_threshold=v_threshold, **kwargs), x, *parameters
        )

    assert cpu.unsupported(x, dynamics, v_threshold, parameters[0] if parameters else None) is None
    spikes, gx, *gw = run(cpu.multi_step)
    expected, gx_expected, *gw_expected = run(functional.multi_step)
    assert spikes.dtype == x.dtype and gx.dtype == x.dtype
    assert torch.equal(spikes, expected)
    if dynamics.surrogate != "sigmoid":
        assert torch.equal(gx, gx_expected)
    else:
        rounding = {torch.float32: 1e-6, torch.float64: 1e-14, torch.bfloat16: 2**-8}[x.dtype]
        assert (gx - gx_expected).abs().max() <= rounding * gx_expected.abs().max()
    if gw:
        size = (gx_expected.double().abs() * x.double().abs()).sum() + gx_expected.double().abs().sum()
        assert abs(gw[0] - gw_expected[0]) <= (2e-3 if x.dtype == torch.bfloat16 else 1e-5) * size


@built
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("surrogate", SURROGATES)
@pytest.mark.parametrize("neuron", ["if", "lif", "plif"])
def test_equals_the_definition_in_every_mode(neuron, surrogate, dtype):
    x = currents((4, 2, 3, 9, 11), dtype)  # more than one block of neurons and a ragged last one
    for v_reset, detach, decay in itertools.product((0.0, None, -0.3), (False, True), (False, True)):
        dynamics = Dynamics(
            neuron=neuron, v_reset=v_reset, tau=1.7, decay_input=decay, detach_reset=detach, surrogate=surrogate
        )
        compare(dynamics, x, 0.7)


@built
@settings(deadline=None, max_examples=150)
@given(
    dynamics=any_dynamics(),
    shape=st.lists(st.integers(1, 9), min_size=0, max_size=4),
    T=st.integers(1, 20),
    dtype=st.sampled_from(DTYPES),
    v_threshold=st.floats(0.05, 4.0),
    scale=st.floats(0.1, 8.0),
    seed=st.integers(0, 2**31),
)
def test_equals_the_definition_by_hypothesis(dynamics, shape, T, dtype, v_threshold, scale, seed):
    compare(dynamics, currents((T, *shape), dtype, seed, scale), v_threshold)


@built
def test_the_square_of_alpha_is_rounded_alike():
    """This alpha**2 is not alpha * alpha."""
    dynamics = Dynamics(surrogate="piecewise_quadratic", surrogate_alpha=2.3619146383200875)
    compare(dynamics, currents((1, 500), torch.float64), v_threshold=2.75)


@built
@pytest.mark.parametrize("level", range(len(native.instruction_sets())))
def test_every_instruction_set_gives_the_same(level):
    kernel = native.library()
    best = kernel.sddpm_instruction_set(-1)
    if level > best:
        pytest.skip(f"this machine has no {native.instruction_sets()[level]}")
    try:
        assert kernel.sddpm_instruction_set(level) == level
        for dtype, neuron, surrogate in itertools.product(DTYPES, ["if", "lif"], SURROGATES):
            compare(Dynamics(neuron=neuron, surrogate=surrogate), currents((4, 1500), dtype))
    finally:
        kernel.sddpm_instruction_set(best)


@built
def test_any_number_of_threads_gives_the_same_bits():
    x = currents((4, 70_001), torch.float32)
    w = torch.tensor(0.2, requires_grad=True)
    dynamics = Dynamics(neuron="plif", surrogate="sigmoid")
    before = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 3, 7):
            torch.set_num_threads(count)
            results.append(spikes_and_gradients(lambda leaf: cpu.multi_step(leaf, dynamics, w=w), x, w))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def _layouts():
    y = torch.randn(6, 5, 4, 3)
    yield "channels last", y.to(memory_format=torch.channels_last).unflatten(0, (2, 3))
    yield "one channel, channels last", y[:, :1].to(memory_format=torch.channels_last).unflatten(0, (2, 3))
    yield "time repeated", torch.randn(3, 5, 4).expand(4, 3, 5, 4)
    yield "every other time step", torch.randn(6, 3, 5)[::2]
    yield "time inside", torch.randn(3, 5, 4).movedim(2, 0)
    yield "a slice of channels", torch.randn(4, 3, 10)[..., 2:7]
    yield "no neurons", torch.randn(4, 0, 3)
    yield "one time step", torch.randn(1, 700)
    yield "a hundred time steps", torch.randn(100, 700)


@built
@pytest.mark.parametrize(("name", "x"), [pytest.param(name, x, id=name) for name, x in _layouts()])
def test_memory_layouts(name, x):
    dynamics = Dynamics(neuron="lif")
    incoming = torch.randn(x.shape)
    for g in (incoming, incoming.transpose(0, -1).contiguous().transpose(0, -1), torch.ones(()).expand(x.shape)):
        results = []
        for function in (functional.multi_step, cpu.multi_step):
            leaf = x.detach().requires_grad_()
            spikes = function(2 * leaf, dynamics, v_threshold=0.5)
            results.append((spikes, torch.autograd.grad(spikes, leaf, g)[0]))
        assert torch.equal(results[0][0], results[1][0])
        assert torch.equal(results[0][1], results[1][1])
        leaf = x.detach().requires_grad_()
        spikes = cpu.multi_step(leaf, dynamics, v_threshold=0.5)
        assert torch.equal(spikes, functional.multi_step(x, dynamics, v_threshold=0.5))
        (grad,) = torch.autograd.grad(spikes, leaf, g)
        leaf = x.detach().requires_grad_()
        expected = torch.autograd.grad(functional.multi_step(leaf, dynamics, v_threshold=0.5), leaf, g)[0]
        assert torch.equal(grad, expected)
    if "channels last" in name:
        assert spikes.flatten(0, 1).is_contiguous(memory_format=torch.channels_last)
        assert spikes.flatten(0, 1).data_ptr() == spikes.data_ptr()


@built
def test_infinities_and_nans_flow_like_in_the_definition():
    x = torch.tensor([[0.5, float("inf"), float("-inf"), float("nan")], [1.0, 1.0, 2.0, 3.0]])
    for v_reset, surrogate in itertools.product((0.0, None), set(SURROGATES) - {"sigmoid"}):
        dynamics = Dynamics(v_reset=v_reset, surrogate=surrogate)
        ours, theirs = (
            spikes_and_gradients(lambda leaf, f=f, d=dynamics: f(leaf, d), x)
            for f in (cpu.multi_step, functional.multi_step)
        )
        assert torch.equal(ours[0], theirs[0])
        torch.testing.assert_close(ours[1], theirs[1], equal_nan=True, rtol=0, atol=0)


@built
def test_only_the_currents_are_saved():
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        x = torch.randn(4, 1000, requires_grad=True)
        spikes = kernels.multi_step(x, Dynamics())
    assert [t.data_ptr() for t in saved] == [x.data_ptr()]
    spikes.sum().backward()
    assert x.grad is not None


@built
def test_no_grad_and_autocast():
    layer = torch.nn.Sequential(torch.nn.Linear(8, 8), SpikingNeuron(Dynamics()), torch.nn.Linear(8, 1))
    x = torch.randn(4, 3, 8)
    with torch.no_grad():
        assert not layer(x).requires_grad
    with torch.autocast("cpu", dtype=torch.bfloat16):
        spikes = layer[1](layer[0](x))
        assert spikes.dtype == torch.bfloat16
        layer(x).float().sum().backward()
    assert layer[0].weight.grad.abs().sum() > 0


def test_the_variable_chooses(monkeypatch):
    x = torch.randn(4, 10, requires_grad=True)
    monkeypatch.setenv(kernels.VARIABLE, "eager")
    assert "plain PyTorch" in kernels.describe()
    assert type(kernels.multi_step(x, Dynamics()).grad_fn).__name__ != "_NeuronBackward"
    monkeypatch.setenv(kernels.VARIABLE, "fused")
    with pytest.raises(UserError, match="float16"):
        kernels.multi_step(x.half(), Dynamics())
    if native.library() is not None:
        assert "fused" in kernels.describe()
        assert type(kernels.multi_step(x, Dynamics()).grad_fn).__name__ == "_NeuronBackward"
    monkeypatch.setenv(kernels.VARIABLE, "fastest")
    with pytest.raises(UserError, match="one of auto, eager, fused"):
        kernels.multi_step(x, Dynamics())


def test_without_the_kernel_one_log_line_and_plain_pytorch(monkeypatch, caplog, tmp_path):
    native.library.cache_clear()
    monkeypatch.setattr(native, "__file__", str(tmp_path / "native.py"))
    try:
        with caplog.at_level(logging.INFO, logger="sddpm"):
            x = torch.randn(4, 10)
            for _ in range(3):
                assert torch.equal(kernels.multi_step(x, Dynamics()), functional.multi_step(x, Dynamics()))
        assert len(caplog.records) == 1 and "not built" in caplog.text
        assert "not built" in kernels.describe()
        monkeypatch.setenv(kernels.VARIABLE, "fused")
        with pytest.raises(UserError, match="not built"):
            kernels.multi_step(x, Dynamics())
    finally:
        native.library.cache_clear()


@pytest.mark.parametrize("x", [torch.zeros(3, 2, dtype=torch.int64), torch.zeros(0, 2), torch.tensor(1.0)])
def test_bad_currents(x):
    with pytest.raises(UserError, match="T >= 1"):
        kernels.multi_step(x, Dynamics())
    with pytest.raises(UserError, match="w"):
        kernels.multi_step(torch.zeros(2, 3), Dynamics(neuron="plif"))


@built
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc/self/maps")
def test_no_second_openmp_library_and_no_more_threads_than_torch_has():
    code = (
        "import os, torch\n"
        "torch.set_num_threads(2)\n"
        "conv = torch.nn.Conv2d(32, 32, 3, padding=1)\n"
        "with torch.no_grad(): conv(torch.randn(8, 32, 64, 64))\n"
        "libraries = lambda: {l.split()[-1] for l in open('/proc/self/maps') if 'omp' in l.split()[-1]}\n"
        "before = libraries(), len(os.listdir('/proc/self/task'))\n"
        "from sddpm import native\n"
        "from sddpm.neurons import Dynamics\n"
        "from sddpm.neurons.kernels import cpu\n"
        "assert native.threads() == 2, 'GOMP_parallel was not found'\n"
        "cpu.multi_step(torch.randn(4, 1 << 20), Dynamics())\n"
        "assert (libraries(), len(os.listdir('/proc/self/task'))) == before\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
