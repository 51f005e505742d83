// The readout of a compiled network: element by element, so that nothing depends on the size of a batch, on threads or
// on the instruction set. (The exponential is our own: a library's differs between the body of a vector loop and its
// remainder.)

#include "neuron.h"

// SiLU(gain x + offset), and the readout over time of what follows it. Mirrored by `SiluCall` and `ReadoutCall`.
struct SiluCall {
    int32_t threads;
    int64_t rows, channels;
    const float *x, *gain, *offset;  // [rows, channels], [channels], [channels]
    float *out;                      // [rows, channels]
};
struct ReadoutCall {
    int32_t threads;
    int64_t T, size;
    const float *weights, *a, *b;  // [T], [T, size], [T, size]
    float *out;                    // [size]: sum over n of weights[n] (a[n] + SiLU(b[n]))
};

namespace {

INLINE float silu(float x) { return x / (1.0f + exponential(-x)); }

INLINE void silu_rows(const SiluCall &c, int64_t first, int64_t end) {
    for (int64_t row = first; row < end; row++) {
        const float *RESTRICT x = c.x + row * c.channels, *RESTRICT gain = c.gain, *RESTRICT offset = c.offset;
        float *RESTRICT out = c.out + row * c.channels;
        LANES for (int64_t i = 0; i < c.channels; i++) out[i] = silu(x[i] * gain[i] + offset[i]);
    }
}

INLINE void read_out(const ReadoutCall &c, int64_t first, int64_t end) {
    for (int64_t i = first; i < end; i++) c.out[i] = 0;
    for (int64_t t = 0; t < c.T; t++) {
        const float *RESTRICT a = c.a + t * c.size, *RESTRICT b = c.b + t * c.size;
        float *RESTRICT out = c.out;
        float weight = c.weights[t];
        LANES for (int64_t i = first; i < end; i++) out[i] += weight * (a[i] + silu(b[i]));
    }
}

#define READOUT(NAME, TARGET)                                                          \
    template <class IO, class R>                                                       \
    TARGET void silu_##NAME(const void *call, int64_t first, int64_t end, void *) {    \
        silu_rows(*static_cast<const SiluCall *>(call), first, end);                   \
    }                                                                                  \
    template <class IO, class R>                                                       \
    TARGET void read_out_##NAME(const void *call, int64_t first, int64_t end, void *) { \
        read_out(*static_cast<const ReadoutCall *>(call), first, end);                 \
    }
FOR_EVERY_INSTRUCTION_SET(READOUT)

}  // namespace

// Both return 0. `parallel` as in platform.h.
EXPORT int sddpm_dense_silu(const SiluCall *call, Parallel parallel) {
    int64_t claim = 1 + 4096 / call->channels;
    return !run(BY_INSTRUCTION_SET(silu, float, float), call, call->rows, claim, 0, call->threads, parallel);
}
EXPORT int sddpm_dense_readout(const ReadoutCall *call, Parallel parallel) {
    return !run(BY_INSTRUCTION_SET(read_out, float, float), call, call->size, 1024, 0, call->threads, parallel);
}
