"""Spike convolutions by every kernel against a float64 convolution, and the neurons behind them to the bit."""

import itertools
import logging
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from sddpm.errors import UserError
from sddpm.inference.kernels import native_conv, onednn, spike_conv
from sddpm.inference.kernels.native_conv import NativeSpikeConv2d
from sddpm.inference.kernels.packing import balance, digits, most_of
from sddpm.inference.kernels.spike_conv import VARIABLE, choices, make_spike_conv, spike_conv_kernel, unsupported
from sddpm.neurons import Dynamics, SpikingNeuron, functional

HERE = [kernel for kernel in choices() if unsupported(kernel) is None]
OURS = [kernel for kernel in choices() if kernel not in ("onednn", "float32")]  # that were built
NATIVE = [kernel for kernel in OURS if kernel in HERE]


def every(*kernels):
    """Parameters of a test: those that this machine has, the others skipped with the reason."""
    reasons = {kernel: unsupported(kernel) for kernel in kernels}
    return [
        pytest.param(kernel, marks=pytest.mark.skipif(reason is not None, reason=f"{kernel}: {reason}"))
        for kernel, reason in reasons.items()
    ]


def made(kernel, *args, **kwargs):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, kernel)
        return make_spike_conv(*args, **kwargs)


def layer(outputs, inputs, k=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(outputs, inputs, k, k, generator=generator, dtype=torch.float64) / math.sqrt(inputs * k * k)
    return weight, torch.randn(outputs, generator=generator, dtype=torch.float64)


def random_spikes(*shape, rate=0.3, seed=1):
    return (torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < rate).to(torch.uint8)


def definition(spikes, weight, bias, *, stride=1, upsample=False, dtype=torch.float64):
    images = spikes.flatten(0, 1).permute(0, 3, 1, 2).to(dtype)
    if upsample:
        images = images.repeat_interleave(2, 2).repeat_interleave(2, 3)
    out = F.conv2d(images, weight.to(dtype), bias.to(dtype), stride, weight.shape[-1] // 2)
    return out.permute(0, 2, 3, 1).unflatten(0, spikes.shape[:2])


def errors(found, expected):
    """Largest and root mean square error in units of the deviation."""
    error = (found.double() - expected) / expected.std()
    return error.abs().max().item(), error.square().mean().sqrt().item()


GEOMETRIES = {  # spikes [T, B, H, W, I], O, k, stride, upsample
    "one pixel": ((1, 1, 1, 1, 8), 4, 3, 1, False),
    "odd sizes": ((3, 2, 7, 5, 13), 19, 3, 1, False),
    "less than a vector": ((4, 1, 2, 3, 32), 32, 3, 1, False),
    "pixels of several images in a vector": ((2, 5, 3, 3, 40), 16, 3, 1, False),
    "more than a chunk of tables": ((4, 1, 8, 8, 128), 48, 3, 1, False),
    "stride": ((2, 3, 8, 8, 33), 20, 3, 2, False),
    "stride, odd": ((5, 1, 9, 7, 64), 40, 3, 2, False),
    "upsampled": ((8, 2, 3, 5, 24), 33, 3, 1, True),
    "1 x 1": ((6, 1, 6, 6, 20), 7, 1, 1, False),
    "5 x 5": ((7, 1, 5, 6, 10), 8, 5, 1, False),
    "many inputs": ((4, 1, 4, 4, 768), 32, 3, 1, False),
    "more time steps than a tile has rows": ((19, 2, 5, 6, 20), 24, 3, 1, False),
    "more rows than one copy of the spikes": ((4, 2, 24, 24, 300), 18, 3, 1, False),
    "stride, whole and half blocks of channels": ((4, 2, 10, 11, 160), 20, 3, 2, False),
    "upsampled, less than half a block of channels": ((2, 2, 5, 9, 30), 50, 3, 1, True),
    "a large filter, half a block of channels": ((4, 1, 9, 9, 96), 16, 5, 1, False),
}


@pytest.mark.parametrize("kernel", every(*choices()))
@pytest.mark.parametrize("name", GEOMETRIES)
def test_currents_equal_those_of_a_float64_convolution(name, kernel):
    shape, outputs, k, stride, upsample = GEOMETRIES[name]
    weight, bias = layer(outputs, shape[-1], k)
    conv = made(kernel, weight, bias, stride=stride, upsample=upsample)
    for rate in (0.0, 0.25, 1.0):
        spikes = random_spikes(*shape, rate=rate)
        expected = definition(spikes, weight, bias, stride=stride, upsample=upsample)
        found = conv(spikes)
        assert found.dtype == torch.float32 and found.shape == expected.shape and found.is_contiguous()
        # In units of what all inputs together can do, since silence and noise alone have other deviations.
        assert (found - expected).abs().max() <= 4e-7 * definition(
            torch.ones_like(spikes), weight.abs(), bias.abs()
        ).max()
        if rate == 0.0:
            assert torch.equal(found, bias.float().expand(found.shape))


@settings(deadline=None, max_examples=60)
@given(
    T=st.integers(1, 8),
    B=st.integers(1, 3),
    H=st.integers(1, 9),
    W=st.integers(1, 19),
    channels=st.integers(1, 70),
    outputs=st.integers(1, 40),
    k=st.sampled_from([1, 3]),
    resample=st.sampled_from([(1, False), (2, False), (1, True)]),
    rate=st.floats(0, 1),
    seed=st.integers(0, 2**31),
)
def test_native_kernels_agree_to_the_bit(T, B, H, W, channels, outputs, k, resample, rate, seed):
    weight, bias = layer(outputs, channels, k, seed)
    spikes = random_spikes(T, B, H, W, channels, rate=rate, seed=seed)
    stride, upsample = resample
    expected = definition(spikes, weight, bias, stride=stride, upsample=upsample)
    found = [NativeSpikeConv2d(weight, bias, stride=stride, upsample=upsample, kernel=name)(spikes) for name in NATIVE]
    for other in found:
        assert torch.equal(other, found[0])
        assert (other - expected).abs().max() <= 1e-5


@pytest.mark.parametrize("kernel", every(*choices()[:-1]))
@pytest.mark.parametrize("channels", [32, 128, 512])
def test_exact_is_more_exact_than_float32(channels, kernel):
    weight, bias = layer(48, channels)
    spikes = random_spikes(2, 2, 12, 12, channels, rate=0.2)
    expected = definition(spikes, weight, bias)
    largest, rms = errors(made(kernel, weight, bias)(spikes), expected)
    largest_f32, rms_f32 = errors(definition(spikes, weight, bias, dtype=torch.float32), expected)
    assert largest < largest_f32 and rms < rms_f32


@pytest.mark.parametrize(
    "kernel", every("onednn", *(name for name, kernel in native_conv.kernels().items() if kernel.fast))
)
def test_fast_is_coarser_but_close(kernel):
    weight, bias = layer(48, 128)
    spikes = random_spikes(2, 2, 12, 12, 128)
    largest, rms = errors(made(kernel, weight, bias, precision="fast")(spikes), definition(spikes, weight, bias))
    bound = {"avx512": 0.01}.get(kernel, 0.05)
    assert 1e-5 < rms < largest < bound


@pytest.mark.skipif("onednn" not in HERE, reason="this PyTorch has no integer convolution")
@pytest.mark.parametrize("planes", onednn.PLANES.values())
def test_filters_of_one_pixel_by_onednn(planes):
    weight, bias = layer(16, 20, k=1)
    spikes = random_spikes(2, 2, 5, 5, 20)
    found = onednn.OnednnSpikeConv2d(weight, bias, planes=planes)(spikes)
    assert errors(found, definition(spikes, weight, bias))[0] < (0.05 if planes == 1 else 1e-5)


@pytest.mark.parametrize("kernel", [name for name, kernel in native_conv.kernels().items() if kernel.available])
def test_sums_that_use_the_whole_word(kernel):
    """Weights of one sign, where all inputs together reach the largest integer; and of which one outweighs the rest."""
    weight, _ = layer(16, 96)
    single = torch.full_like(weight, 1e-9)
    single[:, 5, 1, 1] = 1.0
    for weights in (weight.abs(), -weight.abs(), torch.ones_like(weight), single, torch.zeros_like(weight)):
        conv = NativeSpikeConv2d(weights, kernel=kernel)
        for spikes in (torch.ones(2, 1, 6, 6, 96, dtype=torch.uint8), random_spikes(2, 1, 6, 6, 96)):
            expected = definition(spikes, weights, torch.zeros(16))
            tolerance = 4e-3 if kernel.endswith("-fast") else 1e-6
            assert (conv(spikes) - expected).abs().max() <= tolerance * weights.abs().sum((1, 2, 3)).max()


@pytest.mark.parametrize("kernel", every(*OURS))
def test_nothing_depends_on_batch_or_threads(kernel):
    weight, bias = layer(72, 64)
    spikes = random_spikes(4, 7, 6, 7, 64)
    neuron = SpikingNeuron(Dynamics(), 0.5)
    for precision in ("exact", "fast"):
        conv = made(kernel, weight, bias, precision=precision)
        whole, fired = conv(spikes), conv.fire(spikes, neuron)
        before = torch.get_num_threads()
        try:
            for threads in (1, 2, 5):
                torch.set_num_threads(threads)
                assert torch.equal(conv(spikes), whole) and torch.equal(conv.fire(spikes, neuron), fired)
                for first, last in ((0, 1), (1, 4), (4, 7)):
                    assert torch.equal(conv(spikes[:, first:last]), whole[:, first:last])
                    assert torch.equal(conv.fire(spikes[:, first:last], neuron), fired[:, first:last])
        finally:
            torch.set_num_threads(before)


@pytest.mark.parametrize("kernel", every(*choices()))
def test_neurons_fire_as_the_definition_does_on_the_same_currents(kernel):
    for neuron, v_reset, decay_input, T in itertools.product(
        ("if", "lif", "plif"), (0.0, None, -0.3), (True, False), (1, 2, 4, 7)
    ):
        weight, bias = layer(20, 12)
        conv = made(kernel, weight, bias)
        dynamics = Dynamics(neuron=neuron, v_reset=v_reset, tau=1.7, decay_input=decay_input)
        module = SpikingNeuron(dynamics, 0.6)
        spikes, shift = random_spikes(T, 2, 5, 4, 12), torch.linspace(-0.5, 1.0, T * 20).view(T, 20)
        for channel_bias in (None, shift, shift[:1]):
            currents = conv(spikes, channel_bias=channel_bias)
            expected = functional.multi_step(currents, dynamics, v_threshold=0.6, w=module.w)
            fired = conv.fire(spikes, module, channel_bias=channel_bias)
            assert fired.dtype == torch.uint8 and 0.02 < expected.mean() < 0.98
            assert torch.equal(fired, expected.to(torch.uint8))


@pytest.mark.parametrize("kernel", every(*choices()))
def test_scales_biases_and_sums(kernel):
    T, outputs = 3, 20
    weight, _ = layer(outputs, 16)
    scale, bias = torch.tensor([0.5, 1.0, -2.0]).double(), torch.randn(T, outputs).double()
    shift, spikes = torch.randn(1, outputs), random_spikes(T, 2, 6, 6, 16)
    add = torch.randn(T, 2, 6, 6, outputs)
    expected = definition(spikes, weight, torch.zeros(outputs)) * scale.view(T, 1, 1, 1, 1) + bias[:, None, None, None]
    conv = made(kernel, weight, bias, scale=scale)
    torch.testing.assert_close(conv(spikes).double(), expected, rtol=0, atol=1e-5)
    kept = add.clone()
    found = conv(spikes, channel_bias=shift, add=add)
    torch.testing.assert_close(found.double(), expected + shift.double() + add.double(), rtol=0, atol=1e-5)
    assert torch.equal(add, kept) and found.data_ptr() != add.data_ptr()
    transposed = add.transpose(2, 3).contiguous().transpose(2, 3)
    assert torch.equal(conv(spikes, channel_bias=shift, add=transposed), found)


@pytest.mark.parametrize("kernel", every(*OURS))
def test_wrong_spikes_are_refused(kernel):
    weight, bias = layer(4, 8)
    conv = made(kernel, weight, bias)
    for wrong in (torch.zeros(1, 1, 2, 2, 8), torch.zeros(1, 1, 2, 2, 9, dtype=torch.uint8)):
        with pytest.raises(UserError, match="expected spikes as bytes"):
            conv(wrong)


def test_the_choice(monkeypatch, caplog):
    spike_conv._best.cache_clear()
    monkeypatch.setenv(VARIABLE, "auto")
    best = spike_conv_kernel()
    assert best in HERE and (best != "float32" or not NATIVE)
    for kernel in HERE:
        monkeypatch.setenv(VARIABLE, kernel)
        assert spike_conv_kernel() == kernel
    monkeypatch.setenv(VARIABLE, "fpga")
    with pytest.raises(UserError, match="must be one of auto, "):
        spike_conv_kernel()

    monkeypatch.setattr(native_conv, "available", lambda kernel: kernel == "portable")
    monkeypatch.setenv(VARIABLE, "avx512")
    with pytest.raises(UserError, match="the CPU lacks the instructions"):
        spike_conv_kernel()
    monkeypatch.setattr(native_conv, "available", lambda kernel: False)
    with pytest.raises(UserError, match="it was not built"):
        spike_conv_kernel()
    monkeypatch.setenv(VARIABLE, "auto")
    spike_conv._best.cache_clear()
    monkeypatch.setattr(spike_conv, "_has_amx", lambda: False)
    with caplog.at_level(logging.WARNING):
        assert spike_conv_kernel() == spike_conv_kernel() == "float32"
    assert len(caplog.records) == 1
    spike_conv._best.cache_clear()


@pytest.mark.skipif("onednn" not in HERE, reason="this PyTorch has no integer convolution")
def test_onednn_where_there_is_amx_but_our_kernel_for_it_was_not_built(monkeypatch):
    monkeypatch.setenv(VARIABLE, "auto")
    monkeypatch.setattr(spike_conv, "_has_amx", lambda: True)
    built = native_conv.available
    monkeypatch.setattr(native_conv, "available", lambda kernel: kernel != "amx" and built(kernel))
    spike_conv._best.cache_clear()
    assert spike_conv_kernel() == "onednn"
    onednn.available.cache_clear()
    spike_conv._best.cache_clear()
    monkeypatch.setattr(torch.ops.onednn, "qconv_prepack", None)
    assert spike_conv_kernel() != "onednn"
    onednn.available.cache_clear()
    spike_conv._best.cache_clear()


@pytest.mark.skipif("amx" not in HERE, reason=f"amx: {unsupported('amx')}")
def test_amx_where_it_can_be(monkeypatch):
    monkeypatch.setenv(VARIABLE, "auto")
    spike_conv._best.cache_clear()
    assert spike_conv_kernel() == "amx"


def test_digits_add_up_to_the_weights():
    for planes in (1, 2, 3):
        most = most_of(planes)
        q = torch.linspace(-most, most, 10_001, dtype=torch.float64).to(torch.int32)
        found = digits(q, planes)
        total = sum(digit.long() * 256 ** (planes - 1 - place) for place, digit in enumerate(found))
        assert all(digit.dtype == torch.int8 for digit in found) and torch.equal(total, q.long())


@given(outputs=st.integers(1, 5), channels=st.integers(1, 40), k=st.sampled_from([1, 3]), seed=st.integers(0, 2**31))
def test_balanced_weights_are_neighbouring_integers_whose_errors_cancel(outputs, channels, k, seed):
    weight = 20 * torch.randn(outputs, k * k, channels, generator=torch.Generator().manual_seed(seed)).double()
    q = balance(weight.round(), weight)
    assert torch.all((q == weight.floor()) | (q == weight.ceil()))
    assert (q - weight).sum((1, 2)).abs().max() <= 0.5 + 1e-9


def test_balancing_cancels_errors_within_kernels():
    """Nearly all err by at most half a unit; the few that err by more make up for what their filter erred by."""
    weight = 20 * torch.randn(8, 9, 400, generator=torch.Generator().manual_seed(0)).double()
    found = (balance(weight.round(), weight) - weight).sum(1)
    assert (found.abs() <= 0.5).float().mean() > 0.95
    assert found.square().mean() < 0.2 * (weight.round() - weight).sum(1).square().mean()


@pytest.mark.parametrize(
    "kernel", every("onednn", *(name for name, kernel in native_conv.kernels().items() if kernel.fast))
)
def test_fast_shifts_no_channel(kernel):
    """Where all inputs fire, only rounding's sum over a filter is left, which is at most half a unit."""
    weight, bias = layer(48, 128)
    spikes = torch.ones(1, 1, 5, 5, 128, dtype=torch.uint8)
    found = made(kernel, weight, bias, precision="fast")(spikes)[0, 0, 2, 2]
    expected = definition(spikes, weight, bias)[0, 0, 2, 2]
    size = weight.abs().flatten(1)
    unit = size.sum(1) / 2**16 if kernel == "avx512" else size.amax(1) / 127  # the finest that could be needed
    assert torch.all((found - expected).abs() <= 0.51 * unit + 1e-6)
