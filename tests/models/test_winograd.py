"""Winograd convolutions: exact on whole numbers, adjoint to one another, as exact as PyTorch's elsewhere."""

import pytest
import torch
import torch.nn.functional as F

from sddpm import native
from sddpm.models.kernels import winograd
from sddpm.models.kernels.geometry import ConvGeometry

GEOMETRY = ConvGeometry(stride=(1, 1), padding=(1, 1))
SIZES = [(11, 16, 48, 7, 9), (40, 48, 16, 4, 4), (1, 32, 80, 16, 18), (3, 96, 64, 13, 8)]  # N, C, C', H, W


def supported(dtype):
    kernels = native.library()
    return kernels is not None and bool(kernels.sddpm_winograd_supported(native.TYPES[dtype]))


def needs(dtype):
    return pytest.param(
        dtype, marks=pytest.mark.skipif(not supported(dtype), reason="this machine lacks, or does not gain by it")
    )


DTYPES = [needs(torch.float32), needs(torch.bfloat16)]


def draw(shape, upsample, *, whole=False, dtype=torch.float32):
    """Spikes, weights, bias and gradient of the output: whole numbers (weights in fours), or normal ones."""
    N, C, out, H, W = shape
    generator = torch.Generator().manual_seed(0)

    def numbers(*size, scale=1.0):
        if whole:
            return torch.randint(-3, 4, size, generator=generator) * scale
        return torch.randn(size, generator=generator) * scale

    spikes = (torch.rand(N, C, H, W, generator=generator) < 0.3).to(dtype)
    weight = numbers(out, C, 3, 3, scale=4.0 if whole else (0.3 * 9 * C) ** -0.5)
    grad = numbers(N, out, *((2 * H, 2 * W) if upsample else (H, W))).to(dtype)
    bias = numbers(out)
    return spikes, weight, bias, grad


def reference(spikes, weight, bias, grad, upsample, dtype=torch.float64):
    """Output, and gradients of input, weight and bias by PyTorch's autograd."""
    x, w, b = (t.to(dtype).requires_grad_() for t in (spikes, weight, bias))
    out = F.conv2d(F.interpolate(x, scale_factor=2, mode="nearest") if upsample else x, w, b, padding=1)
    return (out.detach(), *torch.autograd.grad(out, (x, w, b), grad.to(dtype)))


def ours(spikes, weight, bias, grad, upsample):
    assert winograd.gains(spikes[:1].expand(999, -1, -1, -1), weight, GEOMETRY, upsample=upsample)
    return (
        winograd.convolve(spikes, weight, bias, upsample=upsample),
        winograd.input_gradient(grad, weight, upsample=upsample),
        *winograd.weight_gradient(spikes, grad, upsample=upsample),
    )


@pytest.mark.parametrize("upsample", [False, True])
@pytest.mark.parametrize("shape", SIZES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_exact_on_whole_numbers(dtype, shape, upsample):
    """Where all numbers are small and whole, and weights multiples of four, nothing is rounded on the way."""
    inputs = draw(shape, upsample, whole=True, dtype=dtype)
    for name, result, expected in zip(("out", "x", "weight", "bias"), ours(*inputs, upsample),
                                      reference(*inputs, upsample), strict=True):  # fmt: skip
        assert torch.equal(result, expected.to(result.dtype)), name
        if result.dim() == 4:
            assert result.is_contiguous(memory_format=torch.channels_last), name


@pytest.mark.parametrize("upsample", [False, True])
@pytest.mark.parametrize("shape", SIZES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_as_exact_as_pytorchs(dtype, shape, upsample):
    inputs = draw(shape, upsample, dtype=dtype)
    exact = reference(*inputs, upsample)
    theirs = reference(*inputs, upsample, dtype=dtype)
    for name, result, other, expected in zip(
        ("out", "x", "weight", "bias"), ours(*inputs, upsample), theirs, exact, strict=True
    ):
        error, usual = ((value - expected).square().mean().sqrt() for value in (result, other))
        floor = 1e-6 if dtype == torch.float32 else 2**-9
        assert error <= max(2.5 * usual, floor * expected.std()), name


@pytest.mark.parametrize("upsample", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_threads_and_neighbours_do_not_matter(dtype, upsample):
    """The same bits with any number of threads; an image's result does not depend on the others of its batch."""
    inputs = draw((30, 64, 80, 10, 10), upsample, dtype=dtype)
    before, results = torch.get_num_threads(), []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            results.append(ours(*inputs, upsample))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
    spikes, weight, bias, grad = inputs
    alone = winograd.convolve(spikes[7:9], weight, bias, upsample=upsample)
    assert torch.equal(alone, results[0][0][7:9])
    assert torch.equal(winograd.input_gradient(grad[7:9], weight, upsample=upsample), results[0][1][7:9])


@pytest.mark.parametrize("dtype", DTYPES)
def test_memory_orders(dtype):
    spikes, weight, bias, grad = draw(SIZES[0], False, dtype=dtype)
    expected = ours(spikes, weight, bias, grad, False)
    last = [t.contiguous(memory_format=torch.channels_last) for t in (spikes, weight, grad)]
    assert all(torch.equal(a, b) for a, b in zip(ours(last[0], last[1], bias, last[2], False), expected, strict=True))


def test_where_it_is_not_used():
    kernels = native.library()
    if not supported(torch.float32):
        pytest.skip("this machine has no AVX-512")
    x, weight = torch.zeros(8, 32, 16, 16), torch.zeros(16, 32, 3, 3)
    assert winograd.gains(x, weight, GEOMETRY)
    assert not winograd.gains(x, weight, GEOMETRY._replace(stride=(2, 2)))
    assert not winograd.gains(x, torch.zeros(16, 32, 1, 1), GEOMETRY._replace(padding=(0, 0)))
    assert not winograd.gains(x, torch.zeros(24, 32, 3, 3), GEOMETRY)
    assert not winograd.gains(x.double(), weight.double(), GEOMETRY)
    assert not winograd.gains(x[:1], weight, GEOMETRY)  # few pixels
    best = kernels.sddpm_instruction_set(-1)
    try:
        kernels.sddpm_instruction_set(native.instruction_sets().index("AVX2"))
        assert not winograd.gains(x, weight, GEOMETRY)
    finally:
        kernels.sddpm_instruction_set(best)
