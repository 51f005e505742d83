// 1x1 convolutions over real values in bfloat16, by the matrix units of AMX; sums are float32. For fast mode.
//
// Each output is one sum whatever pixels it is computed beside, so nothing depends on the size of a batch or on threads.

#include "amx.h"
#include "dense_conv.h"

#if AMX

#include <immintrin.h>

namespace {

const int PIXELS = 2 * TILE_ROWS, CHANNELS = 32;  // of a unit; of a step, as many bfloat16 as a tile's row holds
const int64_t CLAIM = 8;

// Steps of the sum over channels: each input's are filled up with zeros.
INLINE int64_t steps_of(const ConvCall &c) {
    int64_t steps = 0;
    for (int i = 0; i < c.inputs; i++) steps += (c.channels[i] + CHANNELS - 1) / CHANNELS;
    return steps;
}

AMX_TARGET INLINE __m512 some(const float *from, int64_t count) {
    return _mm512_maskz_loadu_ps(count >= 16 ? __mmask16(0xffff) : count > 0 ? __mmask16((1 << count) - 1) : 0, from);
}

// [steps][PIXELS][CHANNELS], rounded to bfloat16.
AMX_TARGET void convert(const ConvCall &c, int64_t pixel, int64_t count, char *to) {
    for (int i = 0; i < c.inputs; i++)
        for (int64_t at = 0; at < c.channels[i]; at += CHANNELS, to += PIXELS * TILE_ROW_BYTES) {
            const float *from = c.x[i] + pixel * c.channels[i] + at;
            const int64_t left = c.channels[i] - at;
            for (int64_t row = 0; row < count; row++, from += c.channels[i]) {
                const __m512bh both = _mm512_cvtne2ps_pbh(some(from + 16, left - 16), some(from, left));
                std::memcpy(to + row * TILE_ROW_BYTES, &both, sizeof both);
            }
        }
}

// Sums [N][2 tiles] of N panels of 16 output channels.
template <int N>
AMX_TARGET INLINE void multiply(const char *x, const char *weights, int64_t steps, float *sums) {
    ZERO_TILE(0);
    ZERO_TILE(1);
    ZERO_TILE(2);
    ZERO_TILE(3);
    for (int64_t i = 0; i < steps; i++, x += PIXELS * TILE_ROW_BYTES, weights += TILE_BYTES) {
        LOAD_TILE(6, weights, TILE_ROW_BYTES);
        LOAD_TILE(4, x, TILE_ROW_BYTES);
        MULTIPLY_BF16_TILES(0, 4, 6);
        LOAD_TILE(5, x + TILE_BYTES, TILE_ROW_BYTES);
        MULTIPLY_BF16_TILES(1, 5, 6);
        if (N > 1) {
            LOAD_TILE(7, weights + steps * TILE_BYTES, TILE_ROW_BYTES);
            MULTIPLY_BF16_TILES(2, 4, 7);
            MULTIPLY_BF16_TILES(3, 5, 7);
        }
    }
    STORE_TILE(0, sums);
    STORE_TILE(1, sums + TILE_SUMS);
    if (N > 1) {
        STORE_TILE(2, sums + 2 * TILE_SUMS);
        STORE_TILE(3, sums + 3 * TILE_SUMS);
    }
}

// A panel of outputs of `count` pixels. Products and sums are rounded apart, as wherever this library adds a bias.
AMX_TARGET INLINE void finish(const ConvCall &c, const float *sums, int64_t pixel, int64_t count, int64_t channel) {
    const int64_t per_step = c.images * c.H * c.W, left = c.out_channels - channel;
    const __mmask16 mask = left >= 16 ? __mmask16(0xffff) : __mmask16((1 << left) - 1);
    for (int64_t i = 0; i < count; i++) {
        const int64_t t = (pixel + i) / per_step;
        __m512 out = _mm512_mul_ps(_mm512_loadu_ps(sums + 16 * i), _mm512_set1_ps(c.scale[t * c.scale_stride]));
        out = _mm512_add_ps(out, _mm512_loadu_ps(c.bias + t * c.bias_stride + channel));
        _mm512_mask_storeu_ps(c.out + (pixel + i) * c.out_channels + channel, mask, out);
    }
}

AMX_TARGET void convolve(const void *call, int64_t first, int64_t end, void *scratch) {
    const ConvCall &c = *static_cast<const ConvCall *>(call);
    const int64_t steps = steps_of(c), pixels = c.steps * c.images * c.H * c.W;
    alignas(64) float sums[4 * TILE_SUMS];
    char *x = static_cast<char *>(scratch);
    x += (64 - reinterpret_cast<uintptr_t>(x) % 64) % 64;
    const char *weights = reinterpret_cast<const char *>(c.weight);
    const TileConfig config;
    LOAD_CONFIG(config);
    for (int64_t unit = first; unit < end; unit++) {
        const int64_t pixel = unit * PIXELS, count = pixels - pixel < PIXELS ? pixels - pixel : PIXELS;
        convert(c, pixel, count, x);
        for (int64_t channel = 0; channel < c.out_channels; channel += 32) {
            const char *panel = weights + channel / 16 * steps * TILE_BYTES;
            if (channel + 16 < c.out_channels) {
                multiply<2>(x, panel, steps, sums);
                finish(c, sums + 2 * TILE_SUMS, pixel, count, channel + 16);
            } else {
                multiply<1>(x, panel, steps, sums);
            }
            finish(c, sums, pixel, count, channel);
        }
    }
    RELEASE_TILES();
}

}  // namespace

#endif

// Whether 1x1 convolutions in bfloat16 are to be had.
EXPORT int sddpm_dense_amx_has() {
#if AMX
    return amx_available();
#else
    return 0;
#endif
}

// Call it only where they are. The weights are tiles, see `DenseConv` in dense.py. Returns 0, or 1 when memory ran out.
EXPORT int sddpm_dense_amx(const ConvCall *call, Parallel parallel) {
#if AMX
    const int64_t pixels = call->steps * call->images * call->H * call->W;
    const size_t scratch = size_t(steps_of(*call)) * PIXELS * TILE_ROW_BYTES + 64;
    return !run(convolve, call, (pixels + PIXELS - 1) / PIXELS, CLAIM, scratch, call->threads, parallel);
#else
    (void)call, (void)parallel;
    return 1;
#endif
}
