"""The arithmetic of neuron.cpp in Triton: what one program computes for a block of neurons over all time steps.

Every line repeats ../functional.py and ../surrogates.py, or what PyTorch's autograd makes of them, in the same order
and in float32, so kernels must be launched with `enable_fp_fusion=False` and must divide with `div_rn`. Loops over time
are unrolled: membranes live in registers, and the loads of all time steps are in flight together.

    CHARGE     0 IF, 1 LIF, 2 LIF with undecayed input, 3 PLIF, 4 PLIF with undecayed input
    SURROGATE  0 atan, 1 sigmoid, 2 rectangle, 3 triangle, 4 piecewise quadratic; `a`, `b`, `c` are its constants
    HARD       whether the reset is hard;  DETACH  whether it is kept out of the gradient
"""

# ruff: noqa: RUF005, SIM108  Triton has no starred tuples and no conditional expressions
# pyright: reportGeneralTypeIssues=false
import triton
import triton.language as tl


@triton.jit
def charge(x, v, rest, leak, CHARGE: tl.constexpr):
    if CHARGE == 0:
        h = v + x
    elif CHARGE == 1:
        h = v + tl.div_rn(x - (v - rest), leak)
    elif CHARGE == 2:
        h = v - tl.div_rn(v - rest, leak) + x
    elif CHARGE == 3:
        h = v + (x - (v - rest)) * leak
    else:
        h = v - (v - rest) * leak + x
    return h


@triton.jit
def fire(h, v_threshold):
    return tl.where(h - v_threshold >= 0, 1.0, 0.0)


@triton.jit
def reset(h, v_threshold, rest, HARD: tl.constexpr):
    s = fire(h, v_threshold)
    if HARD:
        v = s * rest + (1.0 - s) * h
    else:
        v = h - s * v_threshold
    return v


@triton.jit
def surrogate_vjp(g, u, a, b, c, SURROGATE: tl.constexpr):
    """The gradient g times the surrogate derivative at u = h - v_threshold."""
    if SURROGATE == 0:
        scaled = a * u
        d = tl.div_rn(1.0, 1.0 + scaled * scaled) * b * g
    elif SURROGATE == 1:
        s = tl.div_rn(1.0, 1.0 + tl.exp(-(u * a)))
        d = g * ((1.0 - s) * s * a)
    elif SURROGATE == 2:
        d = a * tl.where(tl.abs(u) < b, 1.0, 0.0) * g
    elif SURROGATE == 3:
        bump = 1.0 - a * tl.abs(u)
        d = tl.where(bump < 0, 0.0, bump) * g
    else:
        size = tl.abs(u)
        d = tl.where(size > b, 0.0, g * (c * size + a))
    return d


@triton.jit
def membranes(xs, v_threshold, rest, start, leak, T: tl.constexpr, CHARGE: tl.constexpr, HARD: tl.constexpr):
    """The membranes before firing at all time steps, from the currents at all time steps: tuples of T blocks."""
    v = tl.full(xs[0].shape, 0.0, tl.float32) + start
    hs = ()
    for t in tl.static_range(T):
        h = charge(xs[t], v, rest, leak, CHARGE)
        v = reset(h, v_threshold, rest, HARD)
        hs = hs + (h,)
    return hs


@triton.jit
def through_reset(
    g, carry, h, v_threshold, rest, a, b, c,
    LAST: tl.constexpr, SURROGATE: tl.constexpr, HARD: tl.constexpr, DETACH: tl.constexpr,
):  # fmt: skip
    """The gradient of h, from the gradients g of the spikes and `carry` of the membrane after the reset (0 if LAST)."""
    u = h - v_threshold
    if not LAST and not DETACH:
        if HARD:
            g = (g - carry * h) + carry * rest
        else:
            g = g - carry * v_threshold
    d = surrogate_vjp(g, u, a, b, c, SURROGATE)
    if not LAST:
        if HARD:
            d = d + carry * (1.0 - tl.where(u >= 0, 1.0, 0.0))
        else:
            d = d + carry
    return d


@triton.jit
def through_charge(d, leak, CHARGE: tl.constexpr):
    """The gradients of the current and of the previous step's membrane, from the gradient of h."""
    if CHARGE == 0:
        return d, d
    elif CHARGE == 1:
        leaked = tl.div_rn(d, leak)
        return leaked, d - leaked
    elif CHARGE == 2:
        return d, d - tl.div_rn(d, leak)
    elif CHARGE == 3:
        leaked = d * leak
        return leaked, d - leaked
    else:
        return d, d - d * leak


@triton.jit
def leak_factor(x, v, rest, CHARGE: tl.constexpr):
    """The factor that the leak of a PLIF neuron multiplies."""
    if CHARGE == 3:
        return x - (v - rest)
    else:
        return -(v - rest)


@triton.jit
def forward_kernel(
    x_ptr, spikes_ptr, leak, size, x_stride, v_threshold, rest, start,
    T: tl.constexpr, CHARGE: tl.constexpr, HARD: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Spikes [T, size] of currents [T, size]."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < size
    if CHARGE >= 3:
        leak = tl.load(leak)
    xs = ()
    for t in tl.static_range(T):
        xs = xs + (tl.load(x_ptr + t * x_stride + at, mask=inside, other=0.0).to(tl.float32),)
    hs = membranes(xs, v_threshold, rest, start, leak, T, CHARGE, HARD)
    for t in tl.static_range(T):
        s = fire(hs[t], v_threshold).to(spikes_ptr.dtype.element_ty)
        tl.store(spikes_ptr + t * size + at, s, mask=inside)


@triton.jit
def backward_kernel(
    x_ptr, grad_ptr, grad_x_ptr, leak, grad_leak_ptr, size, x_stride, grad_stride,
    v_threshold, rest, start, a, b, c,
    T: tl.constexpr, CHARGE: tl.constexpr, SURROGATE: tl.constexpr, HARD: tl.constexpr, DETACH: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """The gradient of the currents [T, size], and one partial sum of the leak's gradient for each program."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < size
    if CHARGE >= 3:
        leak = tl.load(leak)
    xs = ()
    for t in tl.static_range(T):
        xs = xs + (tl.load(x_ptr + t * x_stride + at, mask=inside, other=0.0).to(tl.float32),)
    hs = membranes(xs, v_threshold, rest, start, leak, T, CHARGE, HARD)
    carry = tl.full([BLOCK], 0.0, tl.float32)
    leak_sum = tl.full([BLOCK], 0.0, tl.float32)
    for t in tl.static_range(T - 1, -1, -1):
        g = tl.load(grad_ptr + t * grad_stride + at, mask=inside, other=0.0).to(tl.float32)
        d = through_reset(g, carry, hs[t], v_threshold, rest, a, b, c, t == T - 1, SURROGATE, HARD, DETACH)
        if CHARGE >= 3:
            if t > 0:
                v = reset(hs[t - 1], v_threshold, rest, HARD)
            else:
                v = tl.full([BLOCK], 0.0, tl.float32) + start
            leak_sum += d * leak_factor(xs[t], v, rest, CHARGE)
        grad_x, carry = through_charge(d, leak, CHARGE)
        tl.store(grad_x_ptr + t * size + at, grad_x.to(grad_x_ptr.dtype.element_ty), mask=inside)
    if CHARGE >= 3:
        tl.store(grad_leak_ptr + tl.program_id(0), tl.sum(tl.where(inside, leak_sum, 0.0)))
