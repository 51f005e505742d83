"""Layers over real values against float64, and that neither batch, threads nor instruction set touch a bit."""

import pytest
import torch
import torch.nn.functional as F

from sddpm import native
from sddpm.inference.dense import Dense, TorchDense, has_half
from sddpm.inference.folding import FoldedConv

CPU = torch.device("cpu")
needs_native = pytest.mark.skipif(not Dense.available(), reason="the native kernels were not built")
IMPLEMENTATIONS = [
    pytest.param(Dense(), torch.float32, id="native", marks=needs_native),
    pytest.param(TorchDense(CPU, torch.float32), torch.float32, id="torch"),
    pytest.param(TorchDense(CPU, torch.float64), torch.float64, id="float64"),
]
# output channels, input channels of the parts, size of the filter
SHAPES = [(8, [3], 3), (16, [1], 3), (3, [40], 3), (70, [12], 3), (1, [1], 3), (5, [7], 1), (64, [24, 40], 1)]
SHAPES += [(100, [1, 33], 1)]


def folded(out_channels, in_channels, size, steps=None):
    weight = torch.randn(out_channels, sum(in_channels), size, size, dtype=torch.float64)
    bias = torch.randn(steps or 1, out_channels, dtype=torch.float64)
    scale = None if steps is None else torch.rand(steps, dtype=torch.float64) + 0.5
    return FoldedConv(weight, bias, scale, 1)


def truth(conv, parts):
    x = torch.cat(parts, dim=-1).double()
    out = F.conv2d(x.flatten(0, 1).permute(0, 3, 1, 2), conv.weight, padding=conv.weight.shape[-1] // 2)
    out = out.permute(0, 2, 3, 1).unflatten(0, x.shape[:2])
    scale = torch.ones(1, dtype=torch.float64) if conv.scale is None else conv.scale
    return out * scale.view(-1, 1, 1, 1, 1) + conv.bias[:, None, None, None]


@pytest.mark.parametrize(("dense", "dtype"), IMPLEMENTATIONS)
@pytest.mark.parametrize(("out_channels", "in_channels", "size"), SHAPES)
@pytest.mark.parametrize("steps", [None, 3])
def test_convolution(dense, dtype, out_channels, in_channels, size, steps):
    torch.manual_seed(0)
    conv = folded(out_channels, in_channels, size, steps)
    for T, images in ((3, 2), (1, 1)):  # with modulation one time step stands for all
        parts = [torch.randn(T, images, 5, 7, channels, dtype=dtype) for channels in in_channels]
        out, expected = dense.conv(conv)(parts), truth(conv, parts)
        assert out.shape == expected.shape and out.dtype == dtype
        tolerance = 1e-12 if dtype == torch.float64 else 2e-6 if isinstance(dense, Dense) else 1e-5
        assert ((out - expected).abs().max() / expected.std()).item() < tolerance


@pytest.mark.skipif(not has_half(), reason="no AMX, or dense_amx.cpp was not built")
@pytest.mark.parametrize(("out_channels", "in_channels"), [(48, [20]), (128, [128, 64]), (7, [33, 70]), (16, [1])])
def test_bfloat16_is_what_rounding_the_inputs_costs_and_independent_of_batch_and_threads(out_channels, in_channels):
    torch.manual_seed(0)
    conv = folded(out_channels, in_channels, 1, 3)
    parts = [torch.randn(3, 4, 5, 7, channels) for channels in in_channels]
    layer = Dense(half=True).conv(conv)
    out = layer(parts)
    rounded = FoldedConv(conv.weight.bfloat16().double(), conv.bias, conv.scale, 1)
    expected = truth(rounded, [part.bfloat16() for part in parts])
    assert ((out - expected).abs().max() / expected.std()).item() < 5e-6
    assert 1e-5 < ((out - truth(conv, parts)).std() / expected.std()).item() < 5e-3
    before = torch.get_num_threads()
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            assert torch.equal(layer(parts), out)
            assert torch.equal(layer([part[:, 1:2] for part in parts]), out[:, 1:2])
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(("dense", "dtype"), IMPLEMENTATIONS)
def test_readout(dense, dtype):
    torch.manual_seed(0)
    x, gain, offset = 20 * torch.randn(3, 2, 5, 7, 11, dtype=torch.float64), torch.randn(11).double(), torch.randn(11)
    expected = F.silu(x * gain + offset)
    out = dense.silu(gain, offset.double())(x.to(dtype))
    assert (out - expected).abs().max().item() < 1e-5
    weights, b = torch.tensor([0.64, 0.8, 1.0]), torch.randn_like(x)
    expected = sum(weight * (x[n] + F.silu(b[n])) for n, weight in enumerate(weights.double()))
    out = dense.readout(weights)(x.to(dtype), b.to(dtype))
    assert out.dtype == dtype and (out - expected).abs().max().item() < 2e-5


def everything(x):
    """All three, on x [T, B, H, W, C] that is large enough for two threads."""
    torch.manual_seed(0)
    dense, C = Dense(), x.shape[-1]
    a = dense.conv(folded(C, [C], 3))([dense.silu(torch.randn(C), torch.randn(C))(x)])
    b = dense.conv(folded(C, [C, C], 1, steps=len(x)))([x, a])
    return dense.readout(torch.rand(len(x)))(a, b)


@needs_native
def test_the_same_bits_at_any_batch_size():
    x = torch.randn(2, 9, 13, 11, 21)
    together = everything(x)
    for size in (1, 2, 4):
        assert torch.equal(torch.cat([everything(part) for part in x.split(size, dim=1)]), together)


@needs_native
def test_the_same_bits_on_any_number_of_threads():
    x = torch.randn(2, 9, 33, 31, 21)
    alone = everything(x)
    torch.set_num_threads(2)
    try:
        assert torch.equal(everything(x), alone)
    finally:
        torch.set_num_threads(1)


@needs_native
def test_the_same_bits_with_any_instruction_set_that_fuses():
    library = native.library()
    best = library.sddpm_instruction_set(-1)
    first = native.instruction_sets().index("AVX2") if "AVX2" in native.instruction_sets() else best
    if best <= first:
        pytest.skip("this machine has one instruction set with fused multiply-adds at most")
    x = torch.randn(2, 3, 13, 11, 21)
    expected = everything(x)
    try:
        for instruction_set in range(first, best):
            assert library.sddpm_instruction_set(instruction_set) == instruction_set
            assert torch.equal(everything(x), expected)
    finally:
        library.sddpm_instruction_set(best)


@needs_native
def test_every_instruction_set_convolves_and_reads_out():
    library = native.library()
    best = library.sddpm_instruction_set(-1)
    try:
        for instruction_set in range(best + 1):
            library.sddpm_instruction_set(instruction_set)
            for out_channels, in_channels, size in SHAPES:
                test_convolution(Dense(), torch.float32, out_channels, in_channels, size, 3)
            test_readout(Dense(), torch.float32)
    finally:
        library.sddpm_instruction_set(best)
