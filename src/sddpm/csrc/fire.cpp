// Layers of neurons whose spikes are bytes: currents, plus a bias, in; spikes out, one pass over memory.

#include "spike_conv.h"

namespace spike_conv {

// What a call computes. Mirrored by `FireCall` in firing.py.
struct FireCall {
    int32_t threads;
    int64_t T, pixels, channels, x_stride, fired_stride;  // x: from one time step to the next; fired: of pixels
    int64_t scale_stride, bias_stride;                    // from one time step to the next, or 0
    Neuron neuron;
    const float *x;            // [T, pixels, channels]
    const float *scale, *bias; // [1 or T], [1 or T, channels]; null for 1 and 0
    uint8_t *fired;            // [T, pixels, .]
};

namespace {

const int BLOCK = 512, CLAIM = 16;  // neurons that are taken through all time steps together; blocks a thread claims

template <bool HARD>
INLINE void fire_block(const FireCall &c, const Numbers<float> &k, int64_t pixel, int64_t channel, int n) {
    float v[BLOCK], currents[BLOCK], spikes[BLOCK], *const no_membranes = nullptr;
    for (int i = 0; i < n; i++) v[i] = k.start;
    for (int64_t t = 0; t < c.T; t++) {
        const float *x = c.x + t * c.x_stride + pixel * c.channels + channel;
        if (c.scale || c.bias) {
            const float *RESTRICT bias = c.bias ? c.bias + t * c.bias_stride + channel : nullptr;
            const float scale = c.scale ? c.scale[t * c.scale_stride] : 1.0f;
            LANES for (int i = 0; i < n; i++) currents[i] = x[i] * scale + (bias ? bias[i] : 0.0f);
            x = currents;
        }
#define ROW(CHARGE) charge_row<CHARGE, HARD>(n, x, v, spikes, no_membranes, k)
        BY_CHARGE(c.neuron, ROW)
#undef ROW
        uint8_t *fired = c.fired + (t * c.pixels + pixel) * c.fired_stride + channel;
        for (int i = 0; i < n; i += SLAB) store_spikes(fired + i, spikes + i, n - i < SLAB ? size_t(n - i) : SLAB);
    }
}

INLINE int64_t blocks_of_pixel(const FireCall &c) { return (c.channels + BLOCK - 1) / BLOCK; }

INLINE void fire_blocks(const FireCall &c, int64_t block, int64_t end) {
    const Numbers<float> k(c.neuron);
    for (; block < end; block++) {
        const int64_t pixel = block / blocks_of_pixel(c), channel = block % blocks_of_pixel(c) * BLOCK;
        const int n = int(c.channels - channel < BLOCK ? c.channels - channel : BLOCK);
        if (c.neuron.hard)
            fire_block<true>(c, k, pixel, channel, n);
        else
            fire_block<false>(c, k, pixel, channel, n);
    }
}

#define TASKS(NAME, TARGET)                                                            \
    template <class, class>                                                            \
    TARGET void fire_##NAME(const void *call, int64_t first, int64_t end, void *) {    \
        fire_blocks(*static_cast<const FireCall *>(call), first, end);                 \
    }
FOR_EVERY_INSTRUCTION_SET(TASKS)

}  // namespace
}  // namespace spike_conv

// Returns 0. `parallel` is GOMP_parallel, or null to run in the calling thread.
EXPORT int sddpm_fire(const spike_conv::FireCall *call, Parallel parallel) {
    using namespace spike_conv;
    // Where rows of channels follow each other without a gap or a bias, they are as good as one.
    FireCall c = *call;
    if (!c.scale && !c.bias && c.fired_stride == c.channels) c.fired_stride = c.channels *= c.pixels, c.pixels = 1;
    run(BY_INSTRUCTION_SET(fire, float, float), &c, c.pixels * blocks_of_pixel(c), CLAIM, 0, c.threads, parallel);
    return 0;
}
