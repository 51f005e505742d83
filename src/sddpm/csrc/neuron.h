// The arithmetic of neurons, on rows of them at one time step.
//
// Every line repeats neurons/functional.py and surrogates.py, or what PyTorch's autograd makes of them, in the same order
// and in the same precision, so it must be compiled without contraction into fused multiply-adds (-ffp-contract=off).

#pragma once

#include "platform.h"

// As fast as with -O3, which takes three times as long to compile these many loops.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("O2", "tree-vectorize", "vect-cost-model=dynamic")
#endif

enum Charge { IF, LIF_DECAYED, LIF_UNDECAYED, PLIF_DECAYED, PLIF_UNDECAYED };
enum Surrogate { ATAN, SIGMOID, RECTANGLE, TRIANGLE, PIECEWISE_QUADRATIC };

// What neuron. Mirrored by `Neuron` in neuron_struct.py.
struct Neuron {
    int32_t charge, surrogate, hard, detach;
    double v_threshold, v_reset, leak, alpha;  // leak: tau for LIF, sigmoid(w) for PLIF
    double start;                              // the membrane before the first time step
};

namespace {

// The numbers of a neuron in the precision of the membranes, as PyTorch casts them.
template <class R>
struct Numbers {
    R v_threshold, v_reset, rest, start, leak, alpha, pi_half_alpha, half_alpha, half_width, width, minus_alpha_squared;
    explicit Numbers(const Neuron &c)
        : v_threshold(R(c.v_threshold)), v_reset(R(c.v_reset)), rest(c.hard ? R(c.v_reset) : R(0)),
          start(R(c.start)), leak(R(c.leak)), alpha(R(c.alpha)), pi_half_alpha(R(3.14159265358979323846 * (c.alpha / 2))), half_alpha(R(c.alpha / 2)),
          half_width(R(0.5 / c.alpha)), width(R(1 / c.alpha)), minus_alpha_squared(R(-(c.alpha * c.alpha))) {}
};

template <class R>
INLINE R magnitude(R x) {
    return x < 0 ? -x : x;
}

// exp by range reduction to |r| <= ln(2)/2 and the Taylor series; the loops over lanes vectorise, std::exp would not.
INLINE float exponential(float x) {
    x = x < -87.0f ? -87.0f : x > 87.0f ? 87.0f : x;
    float shifted = x * 1.44269504f + 12582912.0f;  // 1.5 * 2^23: the sum's low bits are the nearest integer
    float n = shifted - 12582912.0f;
    float r = (x - n * 0.693145752f) - n * 1.42860677e-6f;
    float p = 1.0f / 5040;
    p = p * r + 1.0f / 720, p = p * r + 1.0f / 120, p = p * r + 1.0f / 24, p = p * r + 1.0f / 6;
    p = p * r + 0.5f, p = p * r + 1.0f, p = p * r + 1.0f;
    uint32_t bits = uint32_t(int32_t(n) + 127) << 23;
    float power;
    std::memcpy(&power, &bits, 4);
    return p * power;
}
INLINE double exponential(double x) {
    x = x < -708.0 ? -708.0 : x > 708.0 ? 708.0 : x;
    double shifted = x * 1.4426950408889634 + 6755399441055744.0;  // 1.5 * 2^52
    double n = shifted - 6755399441055744.0;
    double r = (x - n * 0.693147180369123816490) - n * 1.90821492927058770002e-10;
    double p = 1.0 / 6227020800;
    p = p * r + 1.0 / 479001600, p = p * r + 1.0 / 39916800, p = p * r + 1.0 / 3628800, p = p * r + 1.0 / 362880;
    p = p * r + 1.0 / 40320, p = p * r + 1.0 / 5040, p = p * r + 1.0 / 720, p = p * r + 1.0 / 120;
    p = p * r + 1.0 / 24, p = p * r + 1.0 / 6, p = p * r + 0.5, p = p * r + 1.0, p = p * r + 1.0;
    uint64_t bits;
    std::memcpy(&bits, &shifted, 8);
    bits = (bits + 1023) << 52;  // the low bits of the shifted sum are n; what is above them is shifted out
    double power;
    std::memcpy(&power, &bits, 8);
    return p * power;
}

template <int CHARGE, class R>
INLINE R charge(R x, R v, const Numbers<R> &k) {
    switch (CHARGE) {
        case IF: return v + x;
        case LIF_DECAYED: return v + (x - (v - k.rest)) / k.leak;
        case LIF_UNDECAYED: return v - (v - k.rest) / k.leak + x;
        case PLIF_DECAYED: return v + (x - (v - k.rest)) * k.leak;
        default: return v - (v - k.rest) * k.leak + x;
    }
}

template <class R>
INLINE R fire(R h, const Numbers<R> &k) {
    return h - k.v_threshold >= 0 ? R(1) : R(0);
}

template <bool HARD, class R>
INLINE R reset(R h, R s, const Numbers<R> &k) {
    return HARD ? s * k.v_reset + (R(1) - s) * h : h - s * k.v_threshold;
}

// The gradient g multiplied with the surrogate derivative at u = h - v_threshold.

template <int SURROGATE, class R>
INLINE R vjp(R g, R u, const Numbers<R> &k) {
    switch (SURROGATE) {
        case ATAN: {
            R scaled = k.pi_half_alpha * u;
            return (R(1) / (R(1) + scaled * scaled)) * k.half_alpha * g;
        }
        case SIGMOID: {
            R s = R(1) / (R(1) + exponential(-(u * k.alpha)));
            return g * ((R(1) - s) * s * k.alpha);
        }
        case RECTANGLE: return (k.alpha * (magnitude(u) < k.half_width ? R(1) : R(0))) * g;
        case TRIANGLE: {
            R d = R(1) - k.alpha * magnitude(u);
            return (d < 0 ? R(0) : d) * g;
        }
        default: {
            R size = magnitude(u);
            R d = g * (k.minus_alpha_squared * size + k.alpha);
            return size > k.width ? R(0) : d;
        }
    }
}

// One time step of n neurons: from the membranes v and the currents x to the new v, in its place. Writes the spikes, and
// the membranes h before the reset where they are wanted.
template <int CHARGE, bool HARD, class IN, class OUT, class R>
INLINE void charge_row(int n, const IN *RESTRICT x, R *RESTRICT v, OUT *RESTRICT spikes, R *RESTRICT h,
                       const Numbers<R> &k) {
    LANES for (int i = 0; i < n; i++) {
        R before = charge<CHARGE>(R(load(x[i])), v[i], k);
        R s = fire(before, k);
        v[i] = reset<HARD>(before, s, k);
        store_spike(spikes[i], s);
        if (h) h[i] = before;
    }
}

// From `carry`, the gradient of the membrane after the reset (none at the last step), to that of h, in its place.
template <int SURROGATE, bool HARD, bool DETACH, bool LAST, class IO, class R>
INLINE void reset_gradient_row(int n, const IO *RESTRICT grad, const R *RESTRICT h, R *RESTRICT carry,
                               const Numbers<R> &k) {
    LANES for (int i = 0; i < n; i++) {
        R u = h[i] - k.v_threshold;
        R g = R(load(grad[i])), c = carry[i];
        if (!LAST && !DETACH) g = HARD ? (g - c * h[i]) + c * k.v_reset : g - c * k.v_threshold;
        R through = vjp<SURROGATE>(g, u, k);
        if (!LAST) through += HARD ? c * (R(1) - (u >= 0 ? R(1) : R(0))) : c;
        carry[i] = through;
    }
}

// From the gradient of h in `carry` to that of the current, and in its place that of the membrane one step earlier.
template <int CHARGE, class OUT, class R>
INLINE void charge_gradient_row(int n, OUT *RESTRICT grad_x, R *RESTRICT carry, const Numbers<R> &k) {
    LANES for (int i = 0; i < n; i++) {
        R g = carry[i];
        R leaked = CHARGE == IF ? R(0) : CHARGE <= LIF_UNDECAYED ? g / k.leak : g * k.leak;
        store(grad_x[i], CHARGE == LIF_DECAYED || CHARGE == PLIF_DECAYED ? leaked : g);
        carry[i] = CHARGE == IF ? g : g - leaked;
    }
}

// The gradient of PLIF's leak: the sum over neurons of the gradient of h times what the leak multiplies.
template <int CHARGE, bool HARD, class IN, class R>
INLINE double leak_gradient_row(int n, const IN *x, const R *h_before, const R *carry, const Numbers<R> &k) {
    double sum = 0;
    for (int i = 0; i < n; i++) {
        R v = h_before ? reset<HARD>(h_before[i], fire(h_before[i], k), k) : k.start;
        R factor = CHARGE == PLIF_DECAYED ? R(load(x[i])) - (v - k.rest) : -(v - k.rest);
        sum += double(carry[i]) * double(factor);
    }
    return sum;
}

// Compile-time choices from run-time ones.
#define BY_CHARGE(neuron, ROW)                            \
    switch (neuron.charge) {                              \
        case IF: ROW(IF); break;                          \
        case LIF_DECAYED: ROW(LIF_DECAYED); break;        \
        case LIF_UNDECAYED: ROW(LIF_UNDECAYED); break;    \
        case PLIF_DECAYED: ROW(PLIF_DECAYED); break;      \
        default: ROW(PLIF_UNDECAYED);                     \
    }

template <bool HARD, bool DETACH, bool LAST, class IO, class R>
INLINE void reset_gradient(const Neuron &neuron, const Numbers<R> &k, int n, const IO *grad, const R *h, R *carry) {
    switch (neuron.surrogate) {
        case ATAN: reset_gradient_row<ATAN, HARD, DETACH, LAST>(n, grad, h, carry, k); break;
        case SIGMOID: reset_gradient_row<SIGMOID, HARD, DETACH, LAST>(n, grad, h, carry, k); break;
        case RECTANGLE: reset_gradient_row<RECTANGLE, HARD, DETACH, LAST>(n, grad, h, carry, k); break;
        case TRIANGLE: reset_gradient_row<TRIANGLE, HARD, DETACH, LAST>(n, grad, h, carry, k); break;
        default: reset_gradient_row<PIECEWISE_QUADRATIC, HARD, DETACH, LAST>(n, grad, h, carry, k);
    }
}

// n neurons over all time steps. `currents.row(t)` are theirs at time step t, `spikes.row(t)` (and in the backward pass
// `h`, one row of `stride` after another) is where theirs go; h may be null.
template <bool HARD, class Currents, class Spikes, class R>
INLINE void charge_steps(const Neuron &neuron, const Numbers<R> &k, int64_t T, int n, Currents currents, R *v,
                         Spikes spikes, R *h, int stride) {
    for (int i = 0; i < n; i++) v[i] = k.start;
    for (int64_t t = 0; t < T; t++) {
        auto *x = currents.row(t);
        auto *out = spikes.row(t);
        R *before = h ? h + t * stride : nullptr;
#define ROW(CHARGE) charge_row<CHARGE, HARD>(n, x, v, out, before, k)
        BY_CHARGE(neuron, ROW)
#undef ROW
    }
}

// From the gradient of the spikes, `grad.row(t)`, to that of the currents: written to `out.row(t)`, then `out.done(t)`.
// h holds the membranes before the reset. Returns the gradient of PLIF's leak if that is wanted.
template <bool HARD, class Currents, class Grad, class Out, class R>
INLINE double backward_steps(const Neuron &neuron, const Numbers<R> &k, int64_t T, int n, Currents currents, Grad grad,
                             Out out, const R *h, R *carry, int stride, bool want_leak) {
    double leak_sum = 0;
    for (int64_t t = T - 1; t >= 0; t--) {
        auto *g = grad.row(t);
        const R *before = h + t * stride;
        if (t == T - 1)
            reset_gradient<HARD, false, true>(neuron, k, n, g, before, carry);
        else if (neuron.detach)
            reset_gradient<HARD, true, false>(neuron, k, n, g, before, carry);
        else
            reset_gradient<HARD, false, false>(neuron, k, n, g, before, carry);
        if (want_leak) {
            auto *current = currents.row(t);
            const R *earlier = t ? before - stride : nullptr;
            if (neuron.charge == PLIF_DECAYED)
                leak_sum += leak_gradient_row<PLIF_DECAYED, HARD>(n, current, earlier, carry, k);
            else
                leak_sum += leak_gradient_row<PLIF_UNDECAYED, HARD>(n, current, earlier, carry, k);
        }
        auto *gx = out.row(t);
#define ROW(CHARGE) charge_gradient_row<CHARGE>(n, gx, carry, k)
        BY_CHARGE(neuron, ROW)
#undef ROW
        out.done(t);
    }
    return leak_sum;
}

// Rows that lie in memory, one time step after another.
template <class IO>
struct Stored {
    IO *first;
    int64_t stride;
    INLINE IO *row(int64_t t) const { return first + t * stride; }
    INLINE void done(int64_t) const {}
};

// The same, or nowhere: then all go to one row that nobody reads, which spares the loops a condition.
template <class IO>
struct Wanted {
    IO *first;
    int64_t stride;
    IO *nowhere;
    INLINE IO *row(int64_t t) const { return first ? first + t * stride : nowhere; }
};

}  // namespace
