"""Convolutions on matrix units: exact on whole numbers, as exact as bfloat16 products are elsewhere."""

import pytest
import torch
import torch.nn.functional as F

from sddpm import native
from sddpm.errors import UserError
from sddpm.models.kernels import amx
from sddpm.models.kernels.geometry import ConvGeometry
from sddpm.models.layers import StepConv2d
from sddpm.models.training_conv import VARIABLE, TrainingConv

needs_amx = pytest.mark.skipif(not amx.supported(), reason="this machine has no AMX, or the kernels were not built")


@pytest.fixture(autouse=True)
def wherever_possible(monkeypatch):
    monkeypatch.setenv(VARIABLE, "amx")


SIZES = [(11, 16, 48, 7, 9), (40, 48, 16, 4, 4), (1, 32, 80, 16, 18), (3, 96, 64, 13, 8), (2, 192, 128, 33, 5)]
KINDS = {"3x3": (3, 1, False), "strided": (3, 2, False), "upsampled": (3, 1, True), "1x1": (1, 1, False),
         "strided 1x1": (1, 2, False)}  # fmt: skip


def conv_of(kind):
    kernel, stride, upsample = KINDS[kind]
    pad = kernel // 2
    return TrainingConv(ConvGeometry((stride, stride), (pad, pad)), torch.bfloat16, upsample)


def draw(shape, kind, *, whole=False):
    """Input, weights, bias and gradient of the output: whole numbers, or normal ones."""
    N, C, out, H, W = shape
    kernel, stride, upsample = KINDS[kind]
    generator = torch.Generator().manual_seed(0)

    def numbers(*size, scale=1.0):
        if whole:
            return torch.randint(-3, 4, size, generator=generator).float()
        return torch.randn(size, generator=generator) * scale

    x = numbers(N, C, H, W).bfloat16().contiguous(memory_format=torch.channels_last)
    weight = numbers(out, C, kernel, kernel, scale=(kernel**2 * C) ** -0.5).bfloat16().float()
    size = (2 * H, 2 * W) if upsample else (-(-H // stride), -(-W // stride))
    return x, weight, numbers(out), numbers(N, out, *size).bfloat16()


def reference(x, weight, bias, grad, kind, dtype=torch.float64):
    """Output, and gradients of input, weight and bias by PyTorch's autograd."""
    kernel, stride, upsample = KINDS[kind]
    x, w, b = (t.to(dtype).requires_grad_() for t in (x, weight, bias))
    images = F.interpolate(x, scale_factor=2, mode="nearest") if upsample else x
    out = F.conv2d(images, w, b, stride=stride, padding=kernel // 2)
    return (out.detach(), *torch.autograd.grad(out, (x, w, b), grad.to(dtype)))


def ours(x, weight, bias, grad, kind):
    conv = conv_of(kind)
    return (
        conv.convolve(x, weight, bias),
        conv.input_gradient(grad, weight, x),
        *conv.weight_gradient(grad, x, weight),
    )


@needs_amx
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SIZES)
def test_exact_on_whole_numbers(shape, kind):
    """Sums of small whole numbers are exact; where the result is a bfloat16 it is the nearest."""
    inputs = draw(shape, kind, whole=True)
    assert conv_of(kind).choose("convolve", torch.empty(256, *inputs[0].shape[1:]).bfloat16(), inputs[1]) == "amx"
    for name, result, expected in zip(("out", "x", "weight", "bias"), ours(*inputs, kind),
                                      reference(*inputs, kind), strict=True):  # fmt: skip
        assert torch.equal(result, expected.to(result.dtype)), name
        if name in ("out", "x"):
            assert result.is_contiguous(memory_format=torch.channels_last), name


@needs_amx
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SIZES)
def test_as_exact_as_bfloat16(shape, kind):
    """Where the operands are bfloat16 numbers, only results are rounded (and sums of weights, if upsampled)."""
    inputs = draw(shape, kind)
    for name, result, expected in zip(("out", "x", "weight", "bias"), ours(*inputs, kind),
                                      reference(*inputs, kind), strict=True):  # fmt: skip
        error = (result - expected).square().mean().sqrt() / expected.square().mean().sqrt()
        assert error < (2**-8 if name in ("out", "x") else 1e-5), name


@needs_amx
@pytest.mark.parametrize("kind", KINDS)
def test_threads_and_neighbours_do_not_matter(kind):
    """The same bits with any number of threads; an image's result does not depend on the others of its batch."""
    x, weight, bias, grad = inputs = draw((60, 64, 80, 10, 10), kind)
    before, results = torch.get_num_threads(), []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            results.append(ours(*inputs, kind))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))
    conv = conv_of(kind)
    assert torch.equal(conv.convolve(x[7:12], weight, bias), results[0][0][7:12])
    assert torch.equal(conv.input_gradient(grad[7:12], weight, x[7:12]), results[0][1][7:12])


@needs_amx
@pytest.mark.parametrize("choice", ["winograd", "torch"])
def test_fallback_can_be_forced(choice, monkeypatch):
    monkeypatch.setenv(VARIABLE, choice)
    inputs = draw(SIZES[3], "3x3")
    assert conv_of("3x3").choose("weight_gradient", *inputs[:2]) != "amx"
    for name, result, expected in zip(("out", "x", "weight", "bias"), ours(*inputs, "3x3"),
                                      reference(*inputs, "3x3"), strict=True):  # fmt: skip
        error = (result - expected).square().mean().sqrt() / expected.square().mean().sqrt()
        assert error < 2**-7, name


def test_unknown_choice_is_refused(monkeypatch):
    monkeypatch.setenv(VARIABLE, "fastest")
    with pytest.raises(UserError, match=VARIABLE):
        conv_of("3x3").choose("convolve", torch.zeros(1), torch.zeros(1))


@needs_amx
def test_where_it_is_not_used():
    conv, weight = conv_of("3x3"), torch.zeros(16, 32, 3, 3)
    x = torch.zeros(8, 32, 16, 16, dtype=torch.bfloat16)
    assert conv.choose("weight_gradient", x, weight) == "amx"
    assert conv.choose("weight_gradient", x.float(), weight) == "torch"
    assert conv.choose("weight_gradient", x, torch.zeros(16, 4, 3, 3)) == "torch"
    assert conv.choose("weight_gradient", x, torch.zeros(16, 32, 5, 5)) == "torch"
    assert conv.choose("weight_gradient", x[:1, :, :4, :4], weight) == "torch"
    kernels = native.library()
    best = kernels.sddpm_instruction_set(-1)
    try:
        kernels.sddpm_instruction_set(native.instruction_sets().index("AVX2"))
        assert conv.choose("weight_gradient", x, weight) == "torch"
    finally:
        kernels.sddpm_instruction_set(best)


@needs_amx
@pytest.mark.parametrize("conv", [StepConv2d(32, 48, 3, padding=1), StepConv2d(32, 16, 1)])
def test_layers_use_it_in_training(conv, monkeypatch):
    """A plain layer under autocast: the same as PyTorch's, but for rounding, and only where gradients are wanted."""
    x = torch.randn(2, 3, 32, 8, 8).bfloat16().flatten(0, 1).contiguous(memory_format=torch.channels_last)
    x = x.unflatten(0, (2, 3)).requires_grad_()
    results = {}
    for choice in ("auto", "amx", "torch"):
        monkeypatch.setenv(VARIABLE, choice)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            out = conv(x)
            assert ("_Convolution" in out.grad_fn.next_functions[0][0].name()) == (choice != "torch")
            assert not conv(x.detach()).isnan().any()
        results[choice] = (out, *torch.autograd.grad(out.float().square().mean(), (x, conv.weight, conv.bias)))
    for choice in ("auto", "amx"):
        for ours_, theirs in zip(results[choice], results["torch"], strict=True):
            assert ours_.dtype == theirs.dtype and ours_.shape == theirs.shape
            assert (ours_ - theirs).norm() < 2**-6 * theirs.norm()
