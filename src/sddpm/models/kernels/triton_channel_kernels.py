"""Neurons after a per-channel affine map (such as batch norm), in Triton.

Currents are (x - centre) gain + offset for x [T, images, pixels, C], channels innermost: centre [C], gain [T or 1, C],
offset [T or 1, images or 1, C]. Where a dimension is 1 the stride is 0, and any of them may be None. A program
processes BC channels of TILES times BP pixels of one image through all time steps. The rest is as in triton_kernels.py.
"""

# ruff: noqa: RUF005  Triton has no starred tuples
# pyright: reportGeneralTypeIssues=false
import triton
import triton.language as tl

from sddpm.neurons.kernels.triton_kernels import fire, leak_factor, membranes, reset, through_charge, through_reset


@triton.jit
def affine(
    x_ptr, centre_ptr, gain_ptr, offset_ptr, at, inside, channel, image, channels,
    x_stride, gain_stride, offset_stride, offset_image_stride, T: tl.constexpr,
):  # fmt: skip
    """Currents at all time steps: a tuple of T tiles."""
    ys = ()
    within = channel < channels
    for t in tl.static_range(T):
        y = tl.load(x_ptr + t * x_stride + at, mask=inside, other=0.0).to(tl.float32)
        if centre_ptr is not None:
            y = y - tl.load(centre_ptr + channel, mask=within, other=0.0)[None, :]
        if gain_ptr is not None:
            y = y * tl.load(gain_ptr + t * gain_stride + channel, mask=within, other=0.0)[None, :]
        if offset_ptr is not None:
            offset_at = t * offset_stride + image * offset_image_stride + channel
            y = y + tl.load(offset_ptr + offset_at, mask=within, other=0.0)[None, :]
        ys = ys + (y,)
    return ys


@triton.jit
def channel_forward_kernel(
    x_ptr, centre_ptr, gain_ptr, offset_ptr, spikes_ptr, leak,
    pixels, channels, x_stride, spikes_stride, spikes_pixel_stride,
    gain_stride, offset_stride, offset_image_stride, v_threshold, rest, start,
    T: tl.constexpr, CHARGE: tl.constexpr, HARD: tl.constexpr,
    BP: tl.constexpr, BC: tl.constexpr, TILES: tl.constexpr,
):  # fmt: skip
    """Spikes [T, images, pixels, C], whose pixels may be further apart than C elements."""
    image = tl.program_id(1).to(tl.int64)
    channel = tl.program_id(2) * BC + tl.arange(0, BC)
    if CHARGE >= 3:
        leak = tl.load(leak)
    for tile in range(TILES):
        pixel = (tl.program_id(0) * TILES + tile) * BP + tl.arange(0, BP)
        inside = (pixel < pixels)[:, None] & (channel < channels)[None, :]
        row = image * pixels + pixel
        ys = affine(
            x_ptr, centre_ptr, gain_ptr, offset_ptr, row[:, None] * channels + channel[None, :], inside, channel, image,
            channels, x_stride, gain_stride, offset_stride, offset_image_stride, T,
        )  # fmt: skip
        hs = membranes(ys, v_threshold, rest, start, leak, T, CHARGE, HARD)
        out = row[:, None] * spikes_pixel_stride + channel[None, :]
        for t in tl.static_range(T):
            s = fire(hs[t], v_threshold).to(spikes_ptr.dtype.element_ty)
            tl.store(spikes_ptr + t * spikes_stride + out, s, mask=inside)


@triton.jit
def channel_add_kernel(
    x_ptr, gain_ptr, offset_ptr, add_ptr, out_ptr,
    pixels, channels, x_stride, add_stride, gain_stride, offset_stride, offset_image_stride,
    T: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr, TILES: tl.constexpr,
):  # fmt: skip
    """x gain + offset + add, all [T, images, pixels, C], without neurons."""
    image = tl.program_id(1).to(tl.int64)
    channel = tl.program_id(2) * BC + tl.arange(0, BC)
    for tile in range(TILES):
        pixel = (tl.program_id(0) * TILES + tile) * BP + tl.arange(0, BP)
        inside = (pixel < pixels)[:, None] & (channel < channels)[None, :]
        at = (image * pixels + pixel)[:, None] * channels + channel[None, :]
        ys = affine(
            x_ptr, None, gain_ptr, offset_ptr, at, inside, channel, image,
            channels, x_stride, gain_stride, offset_stride, offset_image_stride, T,
        )  # fmt: skip
        for t in tl.static_range(T):
            y = ys[t]
            if add_ptr is not None:
                y = y + tl.load(add_ptr + t * add_stride + at, mask=inside, other=0.0).to(tl.float32)
            tl.store(out_ptr + t * x_stride + at, y.to(out_ptr.dtype.element_ty), mask=inside)


@triton.jit
def channel_backward_kernel(
    x_ptr, centre_ptr, gain_ptr, offset_ptr, grad_ptr, leak,
    grad_x_ptr, constant_ptr, slope_ptr, sum_ptr, moment_ptr, grad_leak_ptr,
    pixels, channels, x_stride, grad_stride, grad_x_stride,
    offset_image_stride, v_threshold, rest, start, a, b, c,
    T: tl.constexpr, CHARGE: tl.constexpr, SURROGATE: tl.constexpr, HARD: tl.constexpr, DETACH: tl.constexpr,
    SUMS: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr, TILES: tl.constexpr,
):  # fmt: skip
    """One of the two passes of batch norm's backward. With d the gradient of the currents, for every program and
    channel the sums of d and of d (x - centre) (SUMS), and for PLIF what sums up to the gradient of the leak; or else
    the gradient of x, which is gain d + constant + slope (x - centre). Neither gain nor offset depends on time."""
    image = tl.program_id(1).to(tl.int64)
    channel = tl.program_id(2) * BC + tl.arange(0, BC)
    within = channel < channels
    centre = tl.load(centre_ptr + channel, mask=within, other=0.0)
    gain = tl.load(gain_ptr + channel, mask=within, other=0.0)
    if CHARGE >= 3:
        leak = tl.load(leak)
    if SUMS:
        total = tl.full([BP, BC], 0.0, tl.float32)
        moment = tl.full([BP, BC], 0.0, tl.float32)
        leak_sum = tl.full([BP, BC], 0.0, tl.float32)
    else:
        constant = tl.load(constant_ptr + channel, mask=within, other=0.0)
        slope = tl.load(slope_ptr + channel, mask=within, other=0.0)
    for tile in range(TILES):
        pixel = (tl.program_id(0) * TILES + tile) * BP + tl.arange(0, BP)
        inside = (pixel < pixels)[:, None] & within[None, :]
        at = (image * pixels + pixel)[:, None] * channels + channel[None, :]
        ys = affine(
            x_ptr, centre_ptr, gain_ptr, offset_ptr, at, inside, channel, image,
            channels, x_stride, 0, 0, offset_image_stride, T,
        )  # fmt: skip
        hs = membranes(ys, v_threshold, rest, start, leak, T, CHARGE, HARD)
        carry = tl.full([BP, BC], 0.0, tl.float32)
        for t in tl.static_range(T - 1, -1, -1):
            g = tl.load(grad_ptr + t * grad_stride + at, mask=inside, other=0.0).to(tl.float32)
            h_grad = through_reset(g, carry, hs[t], v_threshold, rest, a, b, c, t == T - 1, SURROGATE, HARD, DETACH)
            d, carry = through_charge(h_grad, leak, CHARGE)
            centred = tl.load(x_ptr + t * x_stride + at, mask=inside, other=0.0).to(tl.float32) - centre[None, :]
            if SUMS:
                total += tl.where(inside, d, 0.0)
                moment += tl.where(inside, d * centred, 0.0)
                if CHARGE >= 3:
                    if t > 0:
                        v = reset(hs[t - 1], v_threshold, rest, HARD)
                    else:
                        v = tl.full([BP, BC], 0.0, tl.float32) + start
                    leak_sum += tl.where(inside, h_grad * leak_factor(ys[t], v, rest, CHARGE), 0.0)
            else:
                grad_x = gain[None, :] * d + constant[None, :] + slope[None, :] * centred
                tl.store(grad_x_ptr + t * grad_x_stride + at, grad_x.to(grad_x_ptr.dtype.element_ty), mask=inside)
    if SUMS:
        program = image * tl.num_programs(0) + tl.program_id(0)
        tl.store(sum_ptr + program * channels + channel, tl.sum(total, axis=0), mask=within)
        tl.store(moment_ptr + program * channels + channel, tl.sum(moment, axis=0), mask=within)
        if CHARGE >= 3:
            tl.store(grad_leak_ptr + program * channels + channel, tl.sum(leak_sum, axis=0), mask=within)
