// Fused multi-step neurons for the CPU: one pass over memory forward, one backward that recomputes the membranes.
//
// Every line of arithmetic repeats ../functional.py and ../surrogates.py, or what PyTorch's autograd makes of them, in
// the same order and in the same precision, so it must be compiled without contraction into fused multiply-adds
// (-ffp-contract=off). A plain C interface: no header of torch or Python, so one build serves every version of torch.
// Threads are torch's own: the caller passes GOMP_parallel of the OpenMP library that torch has loaded, because a
// second pool of threads would spin against the first.

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#if defined(_MSC_VER)
#define EXPORT extern "C" __declspec(dllexport)
#define INLINE __forceinline
#define LANES
#else
#define EXPORT extern "C" __attribute__((visibility("default")))
#define INLINE inline __attribute__((always_inline))
#if defined(__clang__)
#define LANES _Pragma("clang loop vectorize(assume_safety)")
#else
#define LANES _Pragma("GCC ivdep")
#endif
#endif
#define RESTRICT __restrict

namespace {

enum Type { FLOAT32, FLOAT64, BFLOAT16 };
enum Charge { IF, LIF_DECAYED, LIF_UNDECAYED, PLIF_DECAYED, PLIF_UNDECAYED };
enum Surrogate { ATAN, SIGMOID, RECTANGLE, TRIANGLE, PIECEWISE_QUADRATIC };

// Neurons that are taken through all time steps together, so that their membranes stay in cache. Backward reads and
// writes more streams of memory, and was measured to be a quarter faster in smaller blocks.
const int FORWARD_BLOCK = 512, BACKWARD_BLOCK = 128;

struct BFloat16 {
    uint16_t bits;
};

}  // namespace

// What a call computes. Mirrored by `Call` in cpu.py.
struct Call {
    int32_t type, charge, surrogate, hard, detach, threads;
    int64_t T, size, x_stride, grad_stride;  // time steps, neurons, elements from one time step to the next
    double v_threshold, v_reset, leak, alpha;  // leak: tau for LIF, sigmoid(w) for PLIF
    const void *x;      // currents [T, size]
    void *spikes;       // forward: spikes [T, size]
    const void *grad;   // backward: gradient of the spikes [T, size]
    void *grad_x;       // backward: gradient of the currents [T, size]
    double *grad_leak;  // backward of PLIF: gradient of leak, one partial sum for each block, or null
};

namespace {

// The numbers of a call in the precision of the membranes, as PyTorch casts them.
template <class R>
struct Numbers {
    R v_threshold, v_reset, rest, leak, alpha, pi_half_alpha, half_alpha, half_width, width, minus_alpha_squared;
    explicit Numbers(const Call &c)
        : v_threshold(R(c.v_threshold)), v_reset(R(c.v_reset)), rest(c.hard ? R(c.v_reset) : R(0)), leak(R(c.leak)),
          alpha(R(c.alpha)), pi_half_alpha(R(3.14159265358979323846 * (c.alpha / 2))), half_alpha(R(c.alpha / 2)),
          half_width(R(0.5 / c.alpha)), width(R(1 / c.alpha)), minus_alpha_squared(R(-(c.alpha * c.alpha))) {}
};

INLINE float load(float x) { return x; }
INLINE double load(double x) { return x; }
INLINE float load(BFloat16 x) {
    uint32_t bits = uint32_t(x.bits) << 16;
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
}
INLINE void store(float &to, float x) { to = x; }
INLINE void store(double &to, double x) { to = x; }
INLINE void store(BFloat16 &to, float x) {  // round to nearest, ties to even
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    to.bits = uint16_t(x == x ? rounded : 0x7fc0u);
}

INLINE void store_spike(float &to, float s) { to = s; }
INLINE void store_spike(double &to, double s) { to = s; }
INLINE void store_spike(BFloat16 &to, float s) { to.bits = s != 0 ? 0x3f80u : 0u; }

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

// One time step of n neurons. Forward writes spikes; the recomputation writes the membranes h before the reset.
template <int CHARGE, bool HARD, bool FORWARD, class IO, class R>
INLINE void charge_row(int n, const IO *RESTRICT x, R *RESTRICT v, IO *RESTRICT spikes, R *RESTRICT h,
                       const Numbers<R> &k) {
    LANES for (int i = 0; i < n; i++) {
        R before = charge<CHARGE>(R(load(x[i])), v[i], k);
        R s = fire(before, k);
        v[i] = reset<HARD>(before, s, k);
        if (FORWARD)
            store_spike(spikes[i], s);
        else
            h[i] = before;
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
template <int CHARGE, class IO, class R>
INLINE void charge_gradient_row(int n, IO *RESTRICT grad_x, R *RESTRICT carry, const Numbers<R> &k) {
    LANES for (int i = 0; i < n; i++) {
        R g = carry[i];
        R leaked = CHARGE == IF ? R(0) : CHARGE <= LIF_UNDECAYED ? g / k.leak : g * k.leak;
        store(grad_x[i], CHARGE == LIF_DECAYED || CHARGE == PLIF_DECAYED ? leaked : g);
        carry[i] = CHARGE == IF ? g : g - leaked;
    }
}

// The gradient of PLIF's leak: the sum over neurons of the gradient of h times what the leak multiplies.
template <int CHARGE, bool HARD, class IO, class R>
INLINE double leak_gradient_row(int n, const IO *x, const R *h_before, const R *carry, const Numbers<R> &k) {
    double sum = 0;
    for (int i = 0; i < n; i++) {
        R v = h_before ? reset<HARD>(h_before[i], fire(h_before[i], k), k) : k.rest;
        R factor = CHARGE == PLIF_DECAYED ? R(load(x[i])) - (v - k.rest) : -(v - k.rest);
        sum += double(carry[i]) * double(factor);
    }
    return sum;
}

// Compile-time choices from run-time ones.
#define BY_CHARGE(ROW)                                    \
    switch (c.charge) {                                   \
        case IF: ROW(IF); break;                          \
        case LIF_DECAYED: ROW(LIF_DECAYED); break;        \
        case LIF_UNDECAYED: ROW(LIF_UNDECAYED); break;    \
        case PLIF_DECAYED: ROW(PLIF_DECAYED); break;      \
        default: ROW(PLIF_UNDECAYED);                     \
    }

template <bool HARD, bool FORWARD, class IO, class R>
INLINE void charge_rows(const Call &c, const Numbers<R> &k, int n, const IO *x, R *v, IO *spikes, R *h) {
    for (int i = 0; i < n; i++) v[i] = k.rest;
    for (int64_t t = 0; t < c.T; t++) {
        const IO *current = x + t * c.x_stride;
        IO *out = FORWARD ? spikes + t * c.size : nullptr;
        R *before = FORWARD ? nullptr : h + t * BACKWARD_BLOCK;
#define ROW(CHARGE) charge_row<CHARGE, HARD, FORWARD>(n, current, v, out, before, k)
        BY_CHARGE(ROW)
#undef ROW
    }
}

template <bool HARD, bool DETACH, bool LAST, class IO, class R>
INLINE void reset_gradient(const Call &c, const Numbers<R> &k, int n, const IO *grad, const R *h, R *carry) {
    switch (c.surrogate) {
        case ATAN: reset_gradient_row<ATAN, HARD, DETACH, LAST>(n, grad, h, carry, k); break;
        case SIGMOID: reset_gradient_row<SIGMOID, HARD, DETACH, LAST>(n, grad, h, carry, k); break;
        case RECTANGLE: reset_gradient_row<RECTANGLE, HARD, DETACH, LAST>(n, grad, h, carry, k); break;
        case TRIANGLE: reset_gradient_row<TRIANGLE, HARD, DETACH, LAST>(n, grad, h, carry, k); break;
        default: reset_gradient_row<PIECEWISE_QUADRATIC, HARD, DETACH, LAST>(n, grad, h, carry, k);
    }
}

template <class IO, class R>
INLINE void forward_block(const Call &c, const Numbers<R> &k, int64_t first, int n) {
    R v[FORWARD_BLOCK];
    const IO *x = static_cast<const IO *>(c.x) + first;
    IO *spikes = static_cast<IO *>(c.spikes) + first;
    if (c.hard)
        charge_rows<true, true>(c, k, n, x, v, spikes, static_cast<R *>(nullptr));
    else
        charge_rows<false, true>(c, k, n, x, v, spikes, static_cast<R *>(nullptr));
}

template <bool HARD, class IO, class R>
INLINE void backward_block(const Call &c, const Numbers<R> &k, int64_t first, int n, R *h) {
    R carry[BACKWARD_BLOCK];
    const IO *x = static_cast<const IO *>(c.x) + first;
    const IO *grad = static_cast<const IO *>(c.grad) + first;
    IO *grad_x = static_cast<IO *>(c.grad_x) + first;
    charge_rows<HARD, false>(c, k, n, x, carry, static_cast<IO *>(nullptr), h);  // `carry` holds the membrane meanwhile
    double leak_sum = 0;
    for (int64_t t = c.T - 1; t >= 0; t--) {
        const IO *g = grad + t * c.grad_stride;
        const R *before = h + t * BACKWARD_BLOCK;
        if (t == c.T - 1)
            reset_gradient<HARD, false, true>(c, k, n, g, before, carry);
        else if (c.detach)
            reset_gradient<HARD, true, false>(c, k, n, g, before, carry);
        else
            reset_gradient<HARD, false, false>(c, k, n, g, before, carry);
        if (c.grad_leak) {
            const IO *current = x + t * c.x_stride;
            const R *earlier = t ? before - BACKWARD_BLOCK : nullptr;
            if (c.charge == PLIF_DECAYED)
                leak_sum += leak_gradient_row<PLIF_DECAYED, HARD>(n, current, earlier, carry, k);
            else
                leak_sum += leak_gradient_row<PLIF_UNDECAYED, HARD>(n, current, earlier, carry, k);
        }
        IO *out = grad_x + t * c.size;
#define ROW(CHARGE) charge_gradient_row<CHARGE>(n, out, carry, k)
        BY_CHARGE(ROW)
#undef ROW
    }
    if (c.grad_leak) c.grad_leak[first / BACKWARD_BLOCK] = leak_sum;
}

// A block of neurons in one precision, compiled once for each instruction set.
typedef void (*BlockFunction)(const Call &c, int64_t first, int n, void *scratch);

#define BLOCKS(NAME, TARGET)                                                                                      \
    template <class IO, class R>                                                                                  \
    TARGET void forward_##NAME(const Call &c, int64_t first, int n, void *) {                                     \
        forward_block<IO, R>(c, Numbers<R>(c), first, n);                                                         \
    }                                                                                                             \
    template <class IO, class R>                                                                                  \
    TARGET void backward_##NAME(const Call &c, int64_t first, int n, void *h) {                                   \
        if (c.hard)                                                                                               \
            backward_block<true, IO, R>(c, Numbers<R>(c), first, n, static_cast<R *>(h));                         \
        else                                                                                                      \
            backward_block<false, IO, R>(c, Numbers<R>(c), first, n, static_cast<R *>(h));                        \
    }                                                                                                             \
    BlockFunction choose_##NAME(int32_t type, bool forward) {                                                     \
        if (type == FLOAT32) return forward ? forward_##NAME<float, float> : backward_##NAME<float, float>;       \
        if (type == FLOAT64) return forward ? forward_##NAME<double, double> : backward_##NAME<double, double>;   \
        return forward ? forward_##NAME<BFloat16, float> : backward_##NAME<BFloat16, float>;                      \
    }

BLOCKS(base, )

#if defined(__GNUC__) && defined(__x86_64__)
#if defined(__clang__)
BLOCKS(avx512, __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq"))))
#else
BLOCKS(avx512, __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,prefer-vector-width=512"))))
#endif
BLOCKS(avx2, __attribute__((target("avx2"))))
#endif

enum InstructionSet { BASE, AVX2, AVX512 };

int best_instruction_set() {
#if defined(__GNUC__) && defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq"))
        return AVX512;
    if (__builtin_cpu_supports("avx2")) return AVX2;
#endif
    return BASE;
}

int instruction_set = best_instruction_set();

BlockFunction choose(int32_t type, bool forward) {
#if defined(__GNUC__) && defined(__x86_64__)
    if (instruction_set == AVX512) return choose_avx512(type, forward);
    if (instruction_set == AVX2) return choose_avx2(type, forward);
#endif
    return choose_base(type, forward);
}

// Blocks are claimed by whichever thread is free; each is computed alone, so nothing depends on who took it.
struct Job {
    const Call *call;
    BlockFunction function;
    int block;
    size_t scratch_bytes;
    std::atomic<int64_t> next;
    std::atomic<bool> failed;
};

const int CLAIM = 16;

void work(void *data) {
    Job &job = *static_cast<Job *>(data);
    const Call &c = *job.call;
    void *scratch = nullptr;
    if (job.scratch_bytes && !(scratch = std::malloc(job.scratch_bytes))) {
        job.failed = true;
        return;
    }
    const int64_t claim = int64_t(CLAIM) * job.block;
    for (int64_t claimed; (claimed = job.next.fetch_add(claim)) < c.size;)
        for (int64_t first = claimed; first < claimed + claim && first < c.size; first += job.block) {
            int64_t left = c.size - first;
            job.function(c, first, int(left < job.block ? left : job.block), scratch);
        }
    std::free(scratch);
}

typedef void (*Parallel)(void (*function)(void *), void *data, unsigned threads, unsigned flags);

int run(const Call *call, Parallel parallel, bool forward) {
    size_t width = call->type == FLOAT64 ? 8 : 4;
    size_t scratch = forward ? 0 : size_t(call->T) * BACKWARD_BLOCK * width;
    int block = forward ? FORWARD_BLOCK : BACKWARD_BLOCK;
    Job job = {call, choose(call->type, forward), block, scratch, {0}, {false}};
    if (parallel && call->threads > 1)
        parallel(work, &job, unsigned(call->threads), 0);
    else
        work(&job);
    return job.failed ? 1 : 0;
}

}  // namespace

// Both return 0, or 1 when memory ran out. `parallel` is GOMP_parallel, or null to run in the calling thread.
EXPORT int sddpm_neuron_forward(const Call *call, Parallel parallel) { return run(call, parallel, true); }
EXPORT int sddpm_neuron_backward(const Call *call, Parallel parallel) { return run(call, parallel, false); }

// Neurons behind one element of `grad_leak`.
EXPORT int sddpm_neuron_block(void) { return BACKWARD_BLOCK; }

// The instruction set in use (0 baseline, 1 AVX2, 2 AVX-512); `wanted` >= 0 asks for that one if the machine has it.
EXPORT int sddpm_neuron_instruction_set(int wanted) {
    if (wanted >= 0 && wanted <= best_instruction_set()) instruction_set = wanted;
    return instruction_set;
}

// Packaged as an extension module for the sake of the build; it is loaded with ctypes and never imported.
EXPORT void *PyInit__cpu(void) { return nullptr; }
