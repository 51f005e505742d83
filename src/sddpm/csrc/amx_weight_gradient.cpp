// Gradients of weights on matrix units. Per product of the grid (amx_conv.h) and block of positions, the gradient of
// [in channels][out channels] is a matrix product: channels of the input, each with its positions next to each other,
// times the gradient of the output, whose positions are interleaved in pairs. Positions of zeros add nothing.
//
// Sums are float32, over at most CHUNKS chunks of positions apart; nothing depends on the number of threads.

#include "amx_conv.h"

#if AMX

namespace {

using namespace amx;

const int CHUNKS = 16;

const int64_t K = 256;  // positions that are packed and multiplied together: 32 channels of both stay in the first cache
inline int64_t share(const Grid &grid) {
    int64_t most = (grid.positions + CHUNKS - 1) / CHUNKS;
    return (most + K - 1) / K * K;
}
inline int64_t chunks(const Grid &grid) { return (grid.positions + share(grid) - 1) / share(grid); }
inline int64_t gradients(const ConvCall &c, const Grid &grid) {  // of weights, in whole blocks
    return grid.products * blocks(c.in_channels) * blocks(c.out_channels) * BLOCK * BLOCK;
}
inline int64_t partial_size(const ConvCall &c, const Grid &grid) {
    return gradients(c, grid) + blocks(c.out_channels) * BLOCK;
}
// Of a row of positions; an odd number of cache lines, so that rows do not share a few sets of the cache.
inline int64_t row_stride(const Grid &grid) { return ((K + 2 * grid.margin) / 32 | 1) * 32; }
inline size_t scratch_size(const ConvCall &c, const Grid &grid) {
    int64_t input = grid.in_planes * blocks(c.in_channels) * BLOCK * row_stride(grid);
    int64_t grad = grid.out_planes * blocks(c.out_channels) * BLOCK * K;
    int64_t zeros = (blocks(c.in_channels) + blocks(c.out_channels)) * BLOCK;
    return size_t(input + grad + zeros) * 2 + 64;
}

// 8 channels of 32 pixels, turned: to[channel][pixel].
INLINE_AMX void transpose_pixels(const uint16_t *const pixels[BLOCK], int64_t channel, uint16_t *to, int64_t stride) {
    __m512i a[8], b[8];
    for (int i = 0; i < 8; i++) {
        __m512i v = _mm512_castsi128_si512(_mm_loadu_si128((const __m128i *)(pixels[i] + channel)));
        v = _mm512_inserti32x4(v, _mm_loadu_si128((const __m128i *)(pixels[8 + i] + channel)), 1);
        v = _mm512_inserti32x4(v, _mm_loadu_si128((const __m128i *)(pixels[16 + i] + channel)), 2);
        a[i] = _mm512_inserti32x4(v, _mm_loadu_si128((const __m128i *)(pixels[24 + i] + channel)), 3);
    }
    for (int i = 0; i < 8; i += 2)
        b[i] = _mm512_unpacklo_epi16(a[i], a[i + 1]), b[i + 1] = _mm512_unpackhi_epi16(a[i], a[i + 1]);
    for (int i = 0; i < 8; i += 4)
        for (int j = 0; j < 2; j++) {
            a[i + 2 * j] = _mm512_unpacklo_epi32(b[i + j], b[i + j + 2]);
            a[i + 2 * j + 1] = _mm512_unpackhi_epi32(b[i + j], b[i + j + 2]);
        }
    for (int i = 0; i < 4; i++) {
        _mm512_store_si512(to + 2 * i * stride, _mm512_unpacklo_epi64(a[i], a[i + 4]));
        _mm512_store_si512(to + (2 * i + 1) * stride, _mm512_unpackhi_epi64(a[i], a[i + 4]));
    }
}

// 32 channels of 32 pixels, as two tiles of 16 channels whose rows are pairs of pixels; adds them to `sums`.
INLINE_AMX void interleave_pixels(const uint16_t *const pixels[BLOCK], int64_t channel, __mmask32 inside, uint16_t *to,
                                  __m512 sums[2]) {
    const __m512i low = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11), high = _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15);
    const __m512bh ones = (__m512bh)_mm512_set1_epi16(0x3f80);
    for (int i = 0; i < BLOCK / 2; i++) {
        __m512i a = _mm512_maskz_loadu_epi16(inside, pixels[2 * i] + channel);
        __m512i b = _mm512_maskz_loadu_epi16(inside, pixels[2 * i + 1] + channel);
        __m512i even = _mm512_unpacklo_epi16(a, b), odd = _mm512_unpackhi_epi16(a, b);
        __m512i first = _mm512_permutex2var_epi64(even, low, odd), second = _mm512_permutex2var_epi64(even, high, odd);
        _mm512_store_si512(to + i * BLOCK, first);
        _mm512_store_si512(to + TILE + i * BLOCK, second);
        sums[0] = _mm512_dpbf16_ps(sums[0], (__m512bh)first, ones);
        sums[1] = _mm512_dpbf16_ps(sums[1], (__m512bh)second, ones);
    }
}

// Fetches the K positions that will be packed next, a few cache lines at a time, while others are multiplied.
struct Ahead {
    const char *at, *end;
    int64_t bytes;  // at a time

    Ahead(const Images &images, const Grid &grid, int64_t count, int64_t position, int64_t times) {
        const double size = 2.0 * double(count * images.H * images.W * images.channels) / double(grid.positions);
        at = (const char *)images.first + int64_t(size * double(least(position, grid.positions)));
        end = (const char *)images.first + int64_t(size * double(least(position + K, grid.positions)));
        bytes = ((end - at) / times + 64) / 64 * 64;
    }
    INLINE_AMX void next() {
        const char *stop = end - at < bytes ? end : at + bytes;
        for (; at < stop; at += 64) _mm_prefetch(at, _MM_HINT_T1);
    }
};

// out [2][2] tiles (+)= left [32 rows][32 * steps] * right [steps] pairs of tiles.
INLINE_AMX void multiply(const uint16_t *left, int64_t stride, const uint16_t *right, int64_t steps, float *out,
                         bool add, Ahead ahead[2]) {
    if (add) {
        _tile_loadd(0, out, 64);
        _tile_loadd(1, out + 256, 64);
        _tile_loadd(2, out + 512, 64);
        _tile_loadd(3, out + 768, 64);
    } else {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    }
    for (int64_t k = 0; k < steps; k++, left += BLOCK, right += 2 * TILE) {
        ahead[0].next();
        ahead[1].next();
        _tile_loadd(6, right, 64);
        _tile_loadd(4, left, stride * 2);
        _tile_dpbf16ps(0, 4, 6);
        _tile_loadd(7, right + TILE, 64);
        _tile_dpbf16ps(1, 4, 7);
        _tile_loadd(5, left + LANES_IN_TILE * stride, stride * 2);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, out, 64);
    _tile_stored(1, out + 256, 64);
    _tile_stored(2, out + 512, 64);
    _tile_stored(3, out + 768, 64);
}

// A unit is a chunk. partial[chunk]: [product][block of in channels][block of out channels][2][2] tiles, and the bias.
AMX_TARGET void weight_gradient(const void *call, int64_t chunk, int64_t end, void *scratch) {
    const ConvCall &c = *static_cast<const ConvCall *>(call);
    const Grid grid(c);
    const int64_t stride = row_stride(grid);
    const int64_t ins = blocks(c.in_channels), outs = blocks(c.out_channels), steps = K / BLOCK;
    uint16_t *left = aligned<uint16_t>(scratch);                        // [plane][channel][position]
    uint16_t *right = left + grid.in_planes * ins * BLOCK * stride;     // [plane][block][position / 32][2] tiles
    uint16_t *zeros = right + grid.out_planes * outs * steps * 2 * TILE;
    std::memset(left, 0, size_t((char *)(zeros + (ins + outs) * BLOCK) - (char *)left));
    const Images x = input_images(c, grid, c.x), grad = output_images(c, grid, c.grad);
    const uint16_t *pixels[BLOCK];
    const Tiles tiles;
    for (; chunk < end; chunk++) {
        const int64_t first = chunk * share(grid), last = least(first + share(grid), grid.positions);
        float *partial = c.partial + chunk * partial_size(c, grid), *bias = partial + gradients(c, grid);
        std::memset(bias, 0, size_t(outs * BLOCK) * sizeof(float));
        for (int64_t at = first; at < last; at += K) {
            for (int plane = 0; plane < grid.in_planes; plane++)
                for (int64_t block = 0; block < K + 2 * grid.margin; block += BLOCK) {
                    x.place(grid, plane, at - grid.margin + block, BLOCK, zeros, pixels);
                    uint16_t *to = left + plane * ins * BLOCK * stride + block;
                    for (int64_t channel = 0; channel < c.in_channels; channel += 8)
                        transpose_pixels(pixels, channel, to + channel * stride, stride);
                }
            for (int plane = 0; plane < grid.out_planes; plane++)
                for (int64_t step = 0; step < steps; step++) {
                    grad.place(grid, plane, at + step * BLOCK, BLOCK, zeros, pixels);
                    for (int64_t out = 0; out < outs; out++) {
                        __mmask32 inside = c.out_channels - out * BLOCK < BLOCK ? 0xffff : 0xffffffff;
                        float *sum = bias + out * BLOCK;
                        __m512 sums[2] = {_mm512_loadu_ps(sum), _mm512_loadu_ps(sum + 16)};
                        interleave_pixels(pixels, out * BLOCK, inside,
                                          right + ((plane * outs + out) * steps + step) * 2 * TILE, sums);
                        _mm512_storeu_ps(sum, sums[0]), _mm512_storeu_ps(sum + 16, sums[1]);
                    }
                }
            Tiles::flush();
            const int64_t times = ins * outs * grid.products * steps;
            Ahead ahead[2] = {Ahead(x, grid, c.images, at + K + grid.margin, times), Ahead(grad, grid, c.images, at + K, times)};
            for (int64_t in = 0; in < ins; in++)
                for (int64_t out = 0; out < outs; out++)
                    for (int i = 0; i < grid.products; i++) {
                        const Product &p = grid.product[i];
                        multiply(left + (p.in_plane * ins + in) * BLOCK * stride + grid.margin + p.offset, stride,
                                 right + (p.out_plane * outs + out) * steps * 2 * TILE, steps,
                                 partial + ((i * ins + in) * outs + out) * BLOCK * BLOCK, at > first, ahead);
                    }
        }
        Tiles::flush();
    }
}

// The sum over chunks and products. A unit is a tap and a block of in channels.
AMX_TARGET void weight_gradient_sum(const void *call, int64_t unit, int64_t end, void *) {
    const ConvCall &c = *static_cast<const ConvCall *>(call);
    const Grid grid(c);
    const int64_t ins = blocks(c.in_channels), outs = blocks(c.out_channels), count = chunks(grid);
    const int64_t size = partial_size(c, grid);
    for (; unit < end; unit++) {
        const int64_t tap = unit / ins, in = unit % ins;
        for (int64_t out = 0; out < outs; out++)
            for (int tile = 0; tile < 4; tile++) {
                const int64_t row = in * BLOCK + tile / 2 * 16, column = out * BLOCK + tile % 2 * 16;
                if (row >= c.in_channels || column >= c.out_channels) continue;
                __m512 sums[16];
                for (int i = 0; i < 16; i++) sums[i] = _mm512_setzero_ps();
                for (int64_t chunk = 0; chunk < count; chunk++)
                    for (int p = 0; p < grid.products; p++) {
                        if (!(grid.product[p].taps >> tap & 1)) continue;
                        const float *from = c.partial + chunk * size;
                        from += ((p * ins + in) * outs + out) * BLOCK * BLOCK + tile * 256;
                        for (int i = 0; i < 16; i++) sums[i] = sums[i] + _mm512_loadu_ps(from + i * 16);
                    }
                __m512i turned[16];
                for (int i = 0; i < 16; i++) turned[i] = _mm512_castps_si512(sums[i]);
                transpose_words(turned);
                for (int i = 0; i < 16; i++)
                    _mm512_storeu_si512(c.grad_weight + ((column + i) * grid.taps + tap) * c.in_channels + row, turned[i]);
            }
    }
}

}  // namespace

EXPORT int64_t sddpm_amx_partial(const ConvCall *call) {
    const Grid grid(*call);
    return chunks(grid) * partial_size(*call, grid);
}

// grad_weight, grad_bias: from x and the gradient of its convolution.
EXPORT int sddpm_amx_weight_gradient(const ConvCall *call, Parallel parallel) {
    const ConvCall &c = *call;
    const Grid grid(c);
    if (!run(weight_gradient, call, chunks(grid), 1, scratch_size(c, grid), c.threads, parallel)) return 1;
    run(weight_gradient_sum, call, grid.taps * blocks(c.in_channels), 1, 0, c.threads, parallel);
    for (int64_t i = 0; i < c.out_channels; i++) {
        double sum = 0;
        for (int64_t chunk = 0; chunk < chunks(grid); chunk++)
            sum += c.partial[chunk * partial_size(c, grid) + gradients(c, grid) + i];
        c.grad_bias[i] = float(sum);
    }
    return 0;
}

#endif
