// What the kernels of the spike convolution share: the call, the bits under a filter, and the neurons behind it.
//
// All of them replace the multiplications by tables: the sums of a few weights for every pattern of as many spikes.
// Weights are integers, one scale an output channel, so a sum does not depend on its order. A plain C interface: no
// header of torch or Python, so one build serves every version of torch.

#pragma once

#include <cstdint>
#include <cstring>

#if defined(_MSC_VER)
#define INLINE __forceinline
#else
#define INLINE inline __attribute__((always_inline))
#endif
#define RESTRICT __restrict

enum Charge { SILENT = -1, IF, LIF_DECAYED, LIF_UNDECAYED, PLIF_DECAYED, PLIF_UNDECAYED };

// Output channels that are finished together: one row of sums. Scales and biases are padded to a multiple.
const int SLAB = 16;

// What a call computes. Mirrored by `Call` in native.py.
struct Call {
    int32_t kernel, threads, charge, hard;
    int64_t T, B, H, W, in_channels, out_H, out_W, out_channels;
    int64_t size, stride, upsample;            // of the filter, k x k; upsample: spikes are repeated 2 x 2 first
    int64_t scale_stride, bias_stride;         // from one time step to the next, or 0
    int64_t fired_stride;                      // from one pixel to the next
    double v_threshold, v_reset, leak;         // leak: tau for LIF, sigmoid(w) for PLIF
    const uint8_t *spikes;                     // [T, B, H, W, in_channels]
    const void *weights;                       // integers in the order of the kernel
    const float *scale, *bias;                 // [1 or T, out_channels]
    const float *add;                          // [T, B, out_H, out_W, out_channels], or null
    float *currents;                           // the same, or null
    uint8_t *fired;                            // [T, B, out_H, out_W, .], or null (and charge is SILENT)
};

INLINE int64_t pixels(const Call &c) { return c.B * c.out_H * c.out_W; }
INLINE int64_t tap_bytes(const Call &c) { return (c.in_channels + 7) / 8; }
INLINE int64_t bit_bytes(const Call &c) { return c.size * c.size * tap_bytes(c); }
INLINE int64_t round_up(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

// The spikes under the filter at one output pixel and time step as a string of bits: taps in the order of rows and
// columns, each tap's channels padded to whole bytes. `Pack` writes a tap's bits, and up to 7 bytes that follow them.
template <class Pack>
INLINE void gather_bits(const Call &c, int64_t pixel, int64_t t, uint8_t *bits, Pack pack) {
    int64_t x = pixel % c.out_W, row = pixel / c.out_W;
    int64_t y = row % c.out_H, image = t * c.B + row / c.out_H;
    int64_t n = tap_bytes(c), first_y = y * c.stride - c.size / 2, first_x = x * c.stride - c.size / 2;
    int shift = c.upsample ? 1 : 0;
    const uint8_t *spikes = c.spikes + image * c.H * c.W * c.in_channels;
    for (int64_t v = first_y; v < first_y + c.size; v++)
        for (int64_t u = first_x; u < first_x + c.size; u++, bits += n) {
            if (v >= 0 && v < c.H << shift && u >= 0 && u < c.W << shift)
                pack(spikes + ((v >> shift) * c.W + (u >> shift)) * c.in_channels, c.in_channels, bits);
            else
                std::memset(bits, 0, size_t(n));
        }
}

// The numbers of a layer of neurons in float32, as PyTorch casts them.
struct Neuron {
    float v_threshold, v_reset, rest, leak;
    explicit Neuron(const Call &c)
        : v_threshold(float(c.v_threshold)), v_reset(float(c.v_reset)), rest(c.hard ? float(c.v_reset) : 0.0f),
          leak(float(c.leak)) {}
};

// One time step, as ../../neurons/functional.py has it, to the bit: returns whether v fires, and resets it.
template <int CHARGE, bool HARD>
INLINE bool step(float current, float &v, const Neuron &k) {
    float h = CHARGE == IF              ? v + current
              : CHARGE == LIF_DECAYED   ? v + (current - (v - k.rest)) / k.leak
              : CHARGE == LIF_UNDECAYED ? v - (v - k.rest) / k.leak + current
              : CHARGE == PLIF_DECAYED  ? v + (current - (v - k.rest)) * k.leak
                                        : v - (v - k.rest) * k.leak + current;
    bool fires = h - k.v_threshold >= 0;
    float s = fires ? 1.0f : 0.0f;
    v = HARD ? s * k.v_reset + (1.0f - s) * h : h - s * k.v_threshold;
    return fires;
}

// Sums to currents, and currents to spikes, for `count` pixels and n <= SLAB channels. sums: [T][lanes][SLAB].
template <int CHARGE, bool HARD>
INLINE void finish_slab(const Call &c, const int32_t *sums, int64_t lanes, int64_t pixel, int count, int channel, int n) {
    const Neuron k(c);
    for (int i = 0; i < count; i++) {
        float v[SLAB], current[SLAB];
        uint8_t fires[SLAB];
        for (int j = 0; j < SLAB; j++) v[j] = k.rest;
        for (int64_t t = 0; t < c.T; t++) {
            const int32_t *RESTRICT sum = sums + (t * lanes + i) * SLAB;
            const float *RESTRICT scale = c.scale + t * c.scale_stride + channel;
            const float *RESTRICT bias = c.bias + t * c.bias_stride + channel;
            for (int j = 0; j < SLAB; j++) current[j] = float(sum[j]) * scale[j] + bias[j];
            int64_t place = t * pixels(c) + pixel + i, first = place * c.out_channels + channel;
            if (c.add)
                for (int j = 0; j < n; j++) current[j] += c.add[first + j];
            if (c.currents) std::memcpy(c.currents + first, current, sizeof(float) * size_t(n));
            if (CHARGE == SILENT) continue;
            for (int j = 0; j < SLAB; j++) fires[j] = step<CHARGE, HARD>(current[j], v[j], k);
            std::memcpy(c.fired + place * c.fired_stride + channel, fires, size_t(n));
        }
    }
}

template <int CHARGE>
INLINE void finish_reset(const Call &c, const int32_t *sums, int64_t lanes, int64_t pixel, int count, int channel, int n) {
    if (c.hard)
        finish_slab<CHARGE, true>(c, sums, lanes, pixel, count, channel, n);
    else
        finish_slab<CHARGE, false>(c, sums, lanes, pixel, count, channel, n);
}

INLINE void finish(const Call &c, const int32_t *sums, int64_t lanes, int64_t pixel, int count, int channel) {
    int n = int(c.out_channels - channel < SLAB ? c.out_channels - channel : SLAB);
#define FINISH(CHARGE) \
    case CHARGE: return finish_reset<CHARGE>(c, sums, lanes, pixel, count, channel, n == SLAB ? SLAB : n)
    switch (c.charge) {
        FINISH(IF);
        FINISH(LIF_DECAYED);
        FINISH(LIF_UNDECAYED);
        FINISH(PLIF_DECAYED);
        FINISH(PLIF_UNDECAYED);
        default: return finish_slab<SILENT, false>(c, sums, lanes, pixel, count, channel, n == SLAB ? SLAB : n);
    }
#undef FINISH
}

// A kernel: computes the output pixels [first, last) for the channels [channel, last_channel) in `scratch`.
struct Block {
    int64_t first, last;
    int channel, last_channel;
};

struct Kernel {
    size_t (*scratch)(const Call &c, int64_t pixels);
    void (*run)(const Call &c, const Block &block, char *scratch);
    int lanes;  // pixels that are computed together
};
