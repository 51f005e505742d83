"""The Triton kernels against the definition on the CPU: under Triton's interpreter, or on the GPU if there is one."""

import itertools
import logging
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sddpm.errors import UserError
from sddpm.neurons import SURROGATES, Dynamics, functional, kernels
from tests.helpers.neuron_oracle import any_dynamics, spikes_and_gradients

pytest.importorskip("triton")
from sddpm.neurons.kernels import triton_neuron

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def currents(shape, dtype, seed=0, scale=2.0):
    return (torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * scale).to(dtype)


def as_stored(x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """float32 as the kernels store it: rounded, but Triton's interpreter truncates where it makes bfloat16."""
    if dtype == torch.bfloat16 and triton_neuron.interpreted():
        x = (x.view(torch.int32) & -65536).view(torch.float32)
    return x.to(dtype)


def compare(dynamics: Dynamics, x: torch.Tensor, v_threshold: float = 1.0, w: float = -0.3) -> None:
    """The definition runs in float32 on the CPU, from the same currents and incoming gradients."""
    plif = dynamics.neuron == "plif"
    parameters = (torch.tensor(w, requires_grad=True),) if plif else ()

    def definition(leaf):
        spikes = functional.multi_step(leaf, dynamics, v_threshold=v_threshold, w=parameters[0] if plif else None)
        return spikes.to(x.dtype).float()  # incoming gradients are rounded as those of the kernel

    def fused(leaf):
        w = parameters[0].to(DEVICE) if plif else None
        return triton_neuron.multi_step(leaf.to(DEVICE), dynamics, v_threshold=v_threshold, w=w).cpu()

    on_device = parameters[0].to(DEVICE) if plif else None
    assert triton_neuron.unsupported(x.to(DEVICE), dynamics, v_threshold, on_device) is None
    spikes, gx, *gw = spikes_and_gradients(fused, x, *parameters)
    leaf = x.float().requires_grad_()
    expected = definition(leaf)
    incoming = torch.randn(x.shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64).to(x.dtype)
    gx_expected, *gw_expected = torch.autograd.grad(expected, (leaf, *parameters), incoming.float())
    assert spikes.dtype == x.dtype and gx.dtype == x.dtype
    assert torch.equal(spikes.float(), expected)
    if dynamics.surrogate != "sigmoid":
        assert torch.equal(gx, as_stored(gx_expected, x.dtype))
    else:
        rounding = {torch.float32: 1e-6, torch.bfloat16: 2**-7, torch.float16: 2**-10}[x.dtype]
        assert (gx.float() - gx_expected).abs().max() <= rounding * gx_expected.abs().max()
    if gw:
        size = (gx_expected.abs() * x.float().abs()).sum() + gx_expected.abs().sum()
        assert abs(gw[0] - gw_expected[0]) <= 1e-5 * size


@pytest.mark.parametrize("surrogate", SURROGATES)
@pytest.mark.parametrize("neuron", ["if", "lif", "plif"])
def test_equals_the_definition_in_every_mode(neuron, surrogate):
    T = 5
    assert triton_neuron.block_size(T) == 512  # so that two programs share the neurons, the last one not full
    modes = itertools.product((0.0, None, -0.3), (False, True))
    for (v_reset, detach), (dtype, decay) in zip(modes, itertools.product(DTYPES, (False, True)), strict=True):
        dynamics = Dynamics(
            neuron=neuron, v_reset=v_reset, tau=1.7, decay_input=decay, detach_reset=detach, surrogate=surrogate
        )
        compare(dynamics, currents((T, 2, 3, 9, 11), dtype), 0.7)


@settings(deadline=None, max_examples=25)
@given(
    dynamics=any_dynamics(),
    shape=st.lists(st.integers(1, 9), min_size=0, max_size=4),
    T=st.integers(1, triton_neuron.MAX_T),
    dtype=st.sampled_from(DTYPES),
    v_threshold=st.floats(0.05, 4.0),
    scale=st.floats(0.1, 8.0),
    seed=st.integers(0, 2**31),
)
def test_equals_the_definition_by_hypothesis(dynamics, shape, T, dtype, v_threshold, scale, seed):
    compare(dynamics, currents((T, *shape), dtype, seed, scale), v_threshold)


def _layouts():
    y = torch.randn(6, 5, 4, 3)
    yield "channels last", y.to(memory_format=torch.channels_last).unflatten(0, (2, 3))
    yield "time repeated", torch.randn(3, 5, 4).expand(4, 3, 5, 4)
    yield "every other time step", torch.randn(6, 3, 5)[::2]
    yield "a slice of channels", torch.randn(4, 3, 10)[..., 2:7]
    yield "no neurons", torch.randn(4, 0, 3)


@pytest.mark.parametrize(("name", "x"), [pytest.param(name, x, id=name) for name, x in _layouts()])
def test_memory_layouts(name, x):
    dynamics = Dynamics(neuron="lif")
    leaf = x.to(DEVICE).requires_grad_()
    spikes = triton_neuron.multi_step(leaf, dynamics, v_threshold=0.5)
    for g in (torch.randn(x.shape), torch.randn(x.shape[::-1]).permute(*reversed(range(x.dim()))), torch.ones(())):
        g = g.expand(x.shape)
        (grad,) = torch.autograd.grad(spikes, leaf, g.to(DEVICE), retain_graph=True)
        reference = x.detach().requires_grad_()
        expected = functional.multi_step(reference, dynamics, v_threshold=0.5)
        assert torch.equal(spikes.cpu(), expected)
        assert torch.equal(grad.cpu(), torch.autograd.grad(expected, reference, g)[0])
    if name == "channels last":
        assert spikes.flatten(0, 1).is_contiguous(memory_format=torch.channels_last)
        assert spikes.flatten(0, 1).data_ptr() == spikes.data_ptr()


@pytest.mark.filterwarnings("ignore:invalid value")  # the interpreter's arithmetic is numpy's
def test_infinities_and_nans_flow_like_in_the_definition():
    x = torch.tensor([[0.5, float("inf"), float("-inf"), float("nan")], [1.0, 1.0, 2.0, 3.0]])
    for v_reset, surrogate in itertools.product((0.0, None), set(SURROGATES) - {"sigmoid"}):
        dynamics = Dynamics(v_reset=v_reset, surrogate=surrogate)
        ours = spikes_and_gradients(lambda leaf, d=dynamics: triton_neuron.multi_step(leaf.to(DEVICE), d).cpu(), x)
        theirs = spikes_and_gradients(lambda leaf, d=dynamics: functional.multi_step(leaf, d), x)
        assert torch.equal(ours[0], theirs[0])
        torch.testing.assert_close(ours[1], theirs[1], equal_nan=True, rtol=0, atol=0)


def test_only_the_currents_are_saved():
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        x = torch.randn(4, 1000, device=DEVICE, requires_grad=True)
        spikes = triton_neuron.multi_step(x, Dynamics())
    assert [t.data_ptr() for t in saved] == [x.data_ptr()]
    assert spikes.requires_grad


@pytest.mark.parametrize("dtype", [torch.uint8, torch.bfloat16, torch.float32])
def test_spikes_of_another_type(dtype):
    x = currents((3, 700), torch.bfloat16)
    spikes = triton_neuron.multi_step(x.to(DEVICE), Dynamics(), dtype=dtype)
    assert spikes.dtype == dtype
    assert torch.equal(spikes.cpu().float(), functional.multi_step(x, Dynamics()).float())
    assert 0.1 < float(spikes.float().mean()) < 0.9


def test_what_it_cannot_take():
    x = torch.zeros(2, 3, device=DEVICE)

    def reason(x=x, dynamics=Dynamics(), v_threshold=1.0, w=None):  # noqa: B008
        return triton_neuron.unsupported(x, dynamics, v_threshold, w)

    assert reason() is None
    assert "float64" in reason(x.double())
    assert "1 to 32 time steps" in reason(torch.zeros(33, 2, device=DEVICE))
    assert "1 to 32 time steps" in reason(torch.zeros(0, 2, device=DEVICE))
    assert "1 to 32 time steps" in reason(torch.zeros((), device=DEVICE))
    assert "threshold is a tensor" in reason(v_threshold=torch.tensor(1.0))
    assert "w is not" in reason(dynamics=Dynamics(neuron="plif"))
    assert "w is not" in reason(dynamics=Dynamics(neuron="plif"), w=torch.zeros(3, device=DEVICE))
    assert "meta" in reason(torch.zeros(2, 3, device="meta"))


@pytest.fixture
def dispatched(monkeypatch):
    """Calls on this machine's device take the way that calls on CUDA devices take."""
    triton_neuron.broken.cache_clear()
    monkeypatch.setattr(kernels, "_backend", lambda _device: kernels.load_triton())
    yield
    kernels.load_triton.cache_clear()
    triton_neuron.broken.cache_clear()


def test_the_variable_chooses(dispatched, monkeypatch):
    x = torch.randn(4, 10, device=DEVICE, requires_grad=True)
    assert kernels.multi_step(x, Dynamics()).grad_fn._forward_cls is triton_neuron._Neuron
    monkeypatch.setenv(kernels.VARIABLE, "eager")
    assert type(kernels.multi_step(x, Dynamics()).grad_fn).__name__ == "PermuteBackward0"
    monkeypatch.setenv(kernels.VARIABLE, "fused")
    with pytest.raises(UserError, match="not torch"):
        kernels.multi_step(x.double(), Dynamics())


def falls_back(caplog, complaint: str) -> None:
    x = torch.randn(4, 10, device=DEVICE)
    with caplog.at_level(logging.INFO, logger="sddpm"):
        for _ in range(3):
            assert torch.equal(kernels.multi_step(x, Dynamics()), functional.multi_step(x, Dynamics()))
    assert len(caplog.records) == 1 and complaint in caplog.text and "plain PyTorch" in caplog.text


def test_without_triton_one_log_line_and_plain_pytorch(dispatched, monkeypatch, caplog):
    kernels.load_triton.cache_clear()
    monkeypatch.delitem(sys.modules, triton_neuron.__name__)
    monkeypatch.setitem(sys.modules, "triton", None)
    falls_back(caplog, "cannot be used")
    assert "Triton is not installed" in kernels.describe("cuda")
    monkeypatch.setenv(kernels.VARIABLE, "fused")
    with pytest.raises(UserError, match="fused, but"):
        kernels.multi_step(torch.randn(4, 10, device=DEVICE), Dynamics())


def test_where_triton_does_not_work_one_log_line_and_plain_pytorch(dispatched, monkeypatch, caplog):
    def no_compiler(*_args, **_kwargs):
        raise RuntimeError("Failed to find C compiler. Please specify via CC environment variable.\nmore")

    monkeypatch.setattr(triton_neuron, "launch", no_compiler)
    falls_back(caplog, "Failed to find C compiler")
    monkeypatch.setenv(kernels.VARIABLE, "fused")
    with pytest.raises(UserError, match="Failed to find C compiler"):
        kernels.multi_step(torch.randn(4, 10, device=DEVICE), Dynamics())


def test_wrong_spikes_are_not_used(dispatched, monkeypatch, caplog):
    monkeypatch.setattr(triton_neuron, "launch", lambda _kernel, _grid, _x, _in, spikes, *_args, **_kw: spikes.zero_())
    falls_back(caplog, "wrong spikes")


def test_a_device_without_kernels(monkeypatch):
    x = torch.zeros(2, 3, device="meta")
    assert kernels.multi_step(x, Dynamics()).shape == x.shape
    assert kernels.describe("meta") == "plain PyTorch"
    monkeypatch.setenv(kernels.VARIABLE, "fused")
    assert kernels.multi_step(x, Dynamics()).shape == x.shape  # a shape alone: no kernel is needed for it


def test_torch_compile_takes_the_definition(dispatched):
    x = torch.randn(4, 10, device=DEVICE)
    compiled = torch.compile(lambda x: kernels.multi_step(x, Dynamics()), fullgraph=True, backend="eager")
    assert torch.equal(compiled(x), functional.multi_step(x, Dynamics()))


@pytest.mark.cuda
def test_more_elements_than_32_bits_count():
    x = torch.zeros(2, 2**31 + 4096, dtype=torch.bfloat16, device="cuda")
    x[:, -4096:] = currents((2, 4096), torch.bfloat16).cuda()
    spikes = kernels.multi_step(x, Dynamics())
    assert spikes[:, :-4096].max() == 0
    assert torch.equal(spikes[:, -4096:], functional.multi_step(x[:, -4096:], Dynamics()))


@pytest.mark.cuda
def test_used_on_cuda_devices():
    assert kernels.describe("cuda") == "fused Triton kernel"
    x = torch.randn(4, 10, device="cuda", requires_grad=True)
    assert kernels.multi_step(x, Dynamics()).grad_fn._forward_cls is triton_neuron._Neuron
