// What convolutions on matrix units (AMX) share: which positions, pixels and taps there are.
//
// Convolutions of 3x3 (padding 1) or 1x1 pixels, of stride 1 or 2, or after upsampling by two (nearest neighbour), of
// bfloat16 images whose channels are innermost. All are sums of matrix products over one grid of positions: that of the
// smaller images, with a column and a row of zeros between neighbours, so that a tap is a constant distance and
// positions can be counted through, from one image to the next. The larger images, if there are any, are four planes on
// that grid: even and odd rows, even and odd columns. Where the input is upsampled, taps that see the same pixel are
// one product with the sum of their weights.

#pragma once

#include "amx.h"
#include "platform.h"

#if AMX
#include <immintrin.h>
#define INLINE_AMX inline __attribute__((always_inline)) AMX_TARGET
#endif

// Mirrored by `ConvCall` in amx.py.
struct ConvCall {
    int32_t threads, kernel, stride, upsampled;
    int32_t backward;  // `out` is the gradient of the input, from `grad`
    int64_t images, H, W, out_H, out_W, in_channels, out_channels;
    const uint16_t *x;    // [images, H, W, in_channels]
    const uint16_t *grad;  // [images, out_H, out_W, out_channels]
    const float *weight;  // [out_channels, kernel, kernel, in_channels]
    const float *bias;    // [out_channels], or null
    uint16_t *packed;     // scratch: `sddpm_amx_packed` numbers
    uint16_t *out;        // like x or grad
    float *partial;       // scratch: `sddpm_amx_partial` numbers
    float *grad_weight, *grad_bias;
};

#if AMX

namespace amx {

const int LANES_IN_TILE = 16, BLOCK = 32;  // a product is of 2 x 2 tiles: 32 rows, 32 columns, 32 deep at a time
const int TILE = 512;                      // bfloat16 numbers in a tile

inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t blocks(int64_t n) { return (n + BLOCK - 1) / BLOCK; }
inline int64_t floor_half(int64_t n) { return (n + 2) / 2 - 1; }  // n >= -2

// A product: positions of a plane of the output, and of a plane of the input `offset` further on.
struct Product {
    int in_plane, out_plane;
    int64_t offset;
    unsigned taps;  // the sum of whose weights it takes: bits
};

struct Grid {
    int64_t height, width, positions;  // of an image with its zeros, and in all
    int64_t margin;                    // how far a tap reaches, in whole blocks
    int in_factor, out_factor, in_planes, out_planes, taps, products;
    Product product[16];

    explicit Grid(const ConvCall &c) {
        const int pad = c.kernel / 2;
        height = (c.upsampled ? c.H : c.out_H) + pad, width = (c.upsampled ? c.W : c.out_W) + pad;
        positions = c.images * height * width;
        margin = pad ? blocks(width + 1) * BLOCK : 0;
        in_factor = c.stride, out_factor = c.upsampled ? 2 : 1;
        in_planes = pad ? in_factor * in_factor : 1, out_planes = out_factor * out_factor;
        taps = c.kernel * c.kernel, products = 0;
        for (int plane = 0; plane < out_planes; plane++)
            for (int tap = 0; tap < taps; tap++) {
                int64_t y = tap / c.kernel - pad, x = tap % c.kernel - pad;
                if (c.upsampled) y = floor_half(y + plane / 2), x = floor_half(x + plane % 2);
                Product wanted = {0, plane, y * width + x, 1u << tap};
                if (c.stride == 2 && pad) {
                    wanted.in_plane = int((y & 1) * 2 + (x & 1));
                    wanted.offset = floor_half(y) * width + floor_half(x);
                }
                int i = 0;
                while (i < products && !same(product[i], wanted)) i++;
                if (i == products) product[products++] = wanted;
                product[i].taps |= wanted.taps;
            }
    }

    static bool same(const Product &a, const Product &b) {
        return a.in_plane == b.in_plane && a.out_plane == b.out_plane && a.offset == b.offset;
    }
};

// Images on the grid.
struct Images {
    const uint16_t *first;
    int64_t H, W, channels, factor;

    // Where the pixels of a plane at `count` positions lie, or `zeros`.
    void place(const Grid &grid, int plane, int64_t position, int64_t count, const uint16_t *zeros,
               const uint16_t **to) const {
        for (; count > 0 && position < 0; position++, count--) *to++ = zeros;
        int64_t column = position % grid.width, rows = position / grid.width;
        for (; count > 0 && position < grid.positions; rows++, column = 0) {
            const int64_t y = rows % grid.height * factor + plane / factor, image = rows / grid.height;
            const uint16_t *row = first + (image * H + y) * W * channels;
            for (; count > 0 && column < grid.width; column++, position++, count--) {
                const int64_t x = column * factor + plane % factor;
                *to++ = y < H && x < W ? row + x * channels : zeros;
            }
        }
        for (; count > 0; count--) *to++ = zeros;
    }
};

inline Images input_images(const ConvCall &c, const Grid &grid, const uint16_t *first) {
    return {first, c.H, c.W, c.in_channels, grid.in_factor};
}
inline Images output_images(const ConvCall &c, const Grid &grid, const uint16_t *first) {
    return {first, c.out_H, c.out_W, c.out_channels, grid.out_factor};
}

template <class T>
inline T *aligned(void *scratch) {
    return reinterpret_cast<T *>((reinterpret_cast<uintptr_t>(scratch) + 63) / 64 * 64);
}

// Tiles of a thread while this lives: eight of 16 x 64 bytes. The compiler does not know that tiles are read from
// memory, hence `flush` between what writes it and what loads tiles.
struct Tiles {
    INLINE_AMX Tiles() {
        const TileConfig config;
        flush();
        _tile_loadconfig(&config);
    }
    INLINE_AMX ~Tiles() { _tile_release(); }
    static INLINE_AMX void flush() { __asm__ volatile("" ::: "memory"); }
};

// 16 x 16 words, turned.
INLINE_AMX void transpose_words(__m512i v[16]) {
    __m512i t[16];
    for (int i = 0; i < 16; i += 2)
        t[i] = _mm512_unpacklo_epi32(v[i], v[i + 1]), t[i + 1] = _mm512_unpackhi_epi32(v[i], v[i + 1]);
    for (int i = 0; i < 16; i += 4)
        for (int j = 0; j < 2; j++) {
            v[i + 2 * j] = _mm512_unpacklo_epi64(t[i + j], t[i + j + 2]);
            v[i + 2 * j + 1] = _mm512_unpackhi_epi64(t[i + j], t[i + j + 2]);
        }
    for (int j = 0; j < 4; j++) {  // v[4 g + j]: quarter q is column 4 q + j, rows 4 g and on
        __m512i a = _mm512_shuffle_i32x4(v[j], v[4 + j], 0x88), b = _mm512_shuffle_i32x4(v[j], v[4 + j], 0xdd);
        __m512i c = _mm512_shuffle_i32x4(v[8 + j], v[12 + j], 0x88), d = _mm512_shuffle_i32x4(v[8 + j], v[12 + j], 0xdd);
        t[j] = _mm512_shuffle_i32x4(a, c, 0x88), t[8 + j] = _mm512_shuffle_i32x4(a, c, 0xdd);
        t[4 + j] = _mm512_shuffle_i32x4(b, d, 0x88), t[12 + j] = _mm512_shuffle_i32x4(b, d, 0xdd);
    }
    for (int i = 0; i < 16; i++) v[i] = t[i];
}

}  // namespace amx

#endif
