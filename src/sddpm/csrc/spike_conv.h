// What the kernels of the spike convolution share: the call, the bits under a filter, and the neurons behind it.
//
// Weights are integers, one scale an output channel, so a sum does not depend on its order. All kernels but spike_conv_amx.cpp
// replace the multiplications by tables: the sums of a few weights for every pattern of as many spikes.

#pragma once

#include "neuron.h"

namespace spike_conv {

// Output channels that are finished together: one row of sums. Scales and biases are padded to a multiple.
const int SLAB = 16;

// What a call computes. Mirrored by `Call` in native_conv.py.
struct Call {
    int32_t kernel, threads;                   // kernel: its place in the table of spike_conv.cpp
    int64_t T, B, H, W, in_channels, out_H, out_W, out_channels;
    int64_t size, stride, upsample;            // of the filter, k x k; upsample: spikes are repeated 2 x 2 first
    int64_t scale_stride, bias_stride;         // from one time step to the next, or 0
    int64_t fired_stride;                      // from one pixel to the next
    int64_t steps;                             // of spike_conv_amx.cpp; see `pack_tiles` in packing.py
    Neuron neuron;
    const uint8_t *spikes;                     // [T, B, H, W, in_channels]
    const void *weights;                       // integers in the order of the kernel
    const int32_t *step_places;                // [steps, 3]
    const float *scale, *bias;                 // [1 or T, out_channels]
    const float *add;                          // [T, B, out_H, out_W, out_channels], or null
    float *currents;                           // the same, or null
    uint8_t *fired;                            // [T, B, out_H, out_W, .], or null
};

INLINE int64_t pixels(const Call &c) { return c.B * c.out_H * c.out_W; }
INLINE int64_t inputs(const Call &c) { return c.size * c.size * c.in_channels; }
INLINE int64_t round_up(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

// The input pixels that the output pixels [from, to) see; both are numbered [B, H, W].
struct Reach {
    int64_t first, count;

    Reach(const Call &c, int64_t from, int64_t to) {
        const int64_t image = c.out_H * c.out_W, shift = c.upsample ? 1 : 0, radius = c.size / 2;
        int64_t top = (from % image / c.out_W * c.stride - radius) >> shift;
        int64_t bottom = ((to - 1) % image / c.out_W * c.stride + radius) >> shift;
        top = from / image * c.H + (top > 0 ? top : 0);
        bottom = (to - 1) / image * c.H + (bottom < c.H ? bottom : c.H - 1);
        first = top * c.W;
        count = (bottom - top + 1) * c.W;
    }
};

// The most that so many output pixels can see: they may start in the last column of an image, and end in a first.
INLINE int64_t most_reach(const Call &c, int64_t pixels) {
    return ((pixels / c.out_W + 2) * c.stride + c.size + 1) * c.W;
}

#if defined(__GNUC__)
#if !defined(__clang__)
#pragma GCC diagnostic ignored "-Wpsabi"  // rows are passed to nothing but inlined functions
#endif

// A slab of channels of one pixel. Compilers make of it what the instruction set has.
typedef float Row __attribute__((vector_size(4 * SLAB)));
typedef int32_t IntRow __attribute__((vector_size(4 * SLAB)));
typedef uint8_t ByteRow __attribute__((vector_size(SLAB)));

template <class T>
INLINE T load_row(const void *from, size_t bytes = sizeof(T)) {
    T row = {};
    std::memcpy(&row, from, bytes);
    return row;
}
#endif

// Writes n <= SLAB of SLAB spikes as bytes.
INLINE void store_spikes(uint8_t *to, const float *spikes, size_t n) {
#if defined(__GNUC__)
    ByteRow bytes = __builtin_convertvector(__builtin_convertvector(load_row<Row>(spikes), IntRow), ByteRow);
    std::memcpy(to, &bytes, n);
#else
    for (size_t i = 0; i < n; i++) to[i] = uint8_t(spikes[i]);
#endif
}

#if defined(__GNUC__)

const int MOST_LANES = 32;

// Sums to currents, and currents to spikes, of `count` pixels and a slab of channels. Rows of sums lie `to_step` apart
// from one time step to the next, and `to_pixel` from one pixel to the next.
template <bool HARD, bool WHOLE>
INLINE void finish_slab(const Call &c, const int32_t *sums, int64_t to_step, int64_t to_pixel, int64_t pixel, int count,
                        int channel) {
    const Numbers<float> k(c.neuron);
    const size_t n = WHOLE ? SLAB : size_t(c.out_channels - channel);
    float v[MOST_LANES * SLAB], currents[MOST_LANES * SLAB], spikes[MOST_LANES * SLAB], *const no_membranes = nullptr;
    for (int i = 0; i < count * SLAB; i++) v[i] = k.start;
    for (int64_t t = 0; t < c.T; t++, sums += to_step) {
        const Row scale = load_row<Row>(c.scale + t * c.scale_stride + channel);
        const Row bias = load_row<Row>(c.bias + t * c.bias_stride + channel);
        const int64_t place = t * pixels(c) + pixel, first = place * c.out_channels + channel;
        for (int i = 0; i < count; i++) {
            const int64_t at = first + i * c.out_channels;
            Row current = __builtin_convertvector(load_row<IntRow>(sums + i * to_pixel), Row) * scale + bias;
            if (c.add) current += load_row<Row>(c.add + at, sizeof(float) * n);
            if (c.currents) std::memcpy(c.currents + at, &current, sizeof(float) * n);
            std::memcpy(currents + i * SLAB, &current, sizeof current);
        }
        if (!c.fired) continue;
#define ROW(CHARGE) charge_row<CHARGE, HARD>(count * SLAB, currents, v, spikes, no_membranes, k)
        BY_CHARGE(c.neuron, ROW)
#undef ROW
        uint8_t *fired = c.fired + place * c.fired_stride + channel;
        for (int i = 0; i < count; i++) store_spikes(fired + i * c.fired_stride, spikes + i * SLAB, n);
    }
}

INLINE void finish(const Call &c, const int32_t *sums, int64_t to_step, int64_t to_pixel, int64_t pixel, int count,
                   int channel) {
    const bool whole = c.out_channels - channel >= SLAB;
    if (c.neuron.hard)
        whole ? finish_slab<true, true>(c, sums, to_step, to_pixel, pixel, count, channel)
              : finish_slab<true, false>(c, sums, to_step, to_pixel, pixel, count, channel);
    else
        whole ? finish_slab<false, true>(c, sums, to_step, to_pixel, pixel, count, channel)
              : finish_slab<false, false>(c, sums, to_step, to_pixel, pixel, count, channel);
}

#endif

// A part of the output: the pixels [first, last) for the channels [channel, last_channel).
struct Block {
    int64_t first, last;
    int channel, last_channel;
};

// A way to convolve spikes, which spike_conv.cpp has in a table.
struct Kernel {
    const char *name;     // of its choice in the environment
    const char *fast;     // the kernel that takes its place in fast mode, or null
    const char *packing;  // how weights are packed for it: a name of `PACKINGS` in packing.py
    bool (*available)();  // whether the processor has the instructions
    bool (*convolve)(const Kernel &kernel, const Call &c, Parallel parallel);  // false: no memory
    // For `in_blocks`: scratch for so many pixels, the computation of a block, and how many pixels are computed together.
    size_t (*scratch)(const Call &c, int64_t pixels);
    void (*run)(const Call &c, const Block &block, char *scratch);
    int lanes;
};

// Convolves block by block.
bool in_blocks(const Kernel &kernel, const Call &c, Parallel parallel);

// A thread's own memory, kept from call to call: the system takes long to hand out new pages.
struct Memory {
    char *start = nullptr;
    size_t size = 0;
    ~Memory() { std::free(start); }
    char *get(size_t wanted) {
        if (wanted + 64 > size) {
            std::free(start);
            start = static_cast<char *>(std::malloc(size = wanted + 64));
            if (!start) size = 0;
        }
        return start ? start + (64 - reinterpret_cast<uintptr_t>(start) % 64) % 64 : nullptr;
    }
};

}  // namespace spike_conv
