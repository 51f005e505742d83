// The spikes under the filter as patterns of a few bits, for 16 pixels at a time: what the tables are looked up with.

#pragma once

#include <immintrin.h>

#if !defined(__clang__)
#pragma GCC diagnostic ignored "-Wuninitialized"  // in the compiler's own header
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

#include "spike_conv.h"

namespace spike_conv {

// The spikes that a run of output pixels needs, one bit each. Pixels are numbered [B, H, W].
struct Planes {
    int64_t first, count, words;  // first pixel; pixels; words of 32 channels
    uint32_t *bits;               // [T][words][count]

    Planes(const Call &c, int64_t from, int64_t to) : words((c.in_channels + 31) / 32), bits(nullptr) {
        const int64_t image = c.out_H * c.out_W, shift = c.upsample ? 1 : 0, reach = c.size / 2;
        int64_t top = (from % image / c.out_W * c.stride - reach) >> shift;
        int64_t bottom = ((to - 1) % image / c.out_W * c.stride + reach) >> shift;
        top = from / image * c.H + (top > 0 ? top : 0);
        bottom = (to - 1) / image * c.H + (bottom < c.H ? bottom : c.H - 1);
        first = top * c.W;
        count = (bottom - top + 1) * c.W;
    }
    size_t bytes(const Call &c) const { return size_t(c.T * words * count) * 4; }

    AVX512_TARGET void fill(const Call &c) const {
        for (int64_t t = 0; t < c.T; t++)
            for (int64_t pixel = 0; pixel < count; pixel++) {
                const uint8_t *spikes = c.spikes + (t * c.B * c.H * c.W + first + pixel) * c.in_channels;
                uint32_t *to = bits + t * words * count + pixel;
                for (int64_t i = 0; i < c.in_channels; i += 64, to += 2 * count) {
                    const int64_t left = c.in_channels - i;
                    __m512i some = _mm512_maskz_loadu_epi8(left < 64 ? (1ull << left) - 1 : ~0ull, spikes + i);
                    const uint64_t packed = _mm512_test_epi8_mask(some, some);
                    to[0] = uint32_t(packed);
                    if (left > 32) to[count] = uint32_t(packed >> 32);
                }
            }
    }
};

// Where 16 consecutive output pixels find their spikes.
struct Lanes {
    const Planes &planes;
    int32_t y[16], x[16], image[16];  // top left corner of the filter; first pixel of the image
    __mmask16 used;
    bool consecutive;

    Lanes(const Call &c, const Planes &planes, int64_t pixel, int64_t last)
        : planes(planes), used(0), consecutive(c.stride == 1 && !c.upsample) {
        int64_t row = pixel / c.out_W, u = pixel % c.out_W, v = row % c.out_H, b = row / c.out_H;
        for (int l = 0; l < 16; l++) {
            y[l] = int32_t(v * c.stride - c.size / 2), x[l] = int32_t(u * c.stride - c.size / 2);
            image[l] = int32_t(b * c.H * c.W - planes.first);
            if (pixel + l < last) used = __mmask16(used | 1u << l);
            if (++u == c.out_W) u = 0, v++;
            if (v == c.out_H) v = 0, b++;
        }
    }

    // For one tap and time step, up to 32 channels of each lane: word 0, 1, ... of its bits.
    struct Tap {
        __mmask16 inside;
        __m512i index;
        int64_t start;
    };
    AVX512_TARGET Tap tap(const Call &c, int64_t dy, int64_t dx) const {
        const int shift = c.upsample ? 1 : 0;
        __m512i v = _mm512_add_epi32(_mm512_loadu_si512(y), _mm512_set1_epi32(int32_t(dy)));
        __m512i u = _mm512_add_epi32(_mm512_loadu_si512(x), _mm512_set1_epi32(int32_t(dx)));
        __mmask16 inside = _mm512_mask_cmplt_epu32_mask(used, v, _mm512_set1_epi32(int32_t(c.H << shift)));
        inside = _mm512_mask_cmplt_epu32_mask(inside, u, _mm512_set1_epi32(int32_t(c.W << shift)));
        v = _mm512_mullo_epi32(_mm512_srai_epi32(v, unsigned(shift)), _mm512_set1_epi32(int32_t(c.W)));
        __m512i index = _mm512_add_epi32(_mm512_add_epi32(v, _mm512_srai_epi32(u, unsigned(shift))), _mm512_loadu_si512(image));
        return {inside, index, image[0] + (y[0] + dy) * c.W + x[0] + dx};
    }
    AVX512_TARGET __m512i word(const Tap &tap, const uint32_t *plane) const {
        if (consecutive) return _mm512_maskz_loadu_epi32(tap.inside, plane + tap.start);
        return _mm512_mask_i32gather_epi32(_mm512_setzero_si512(), tap.inside, tap.index, plane, 4);
    }
};

// Room for the bits under the filter of 16 lanes: words, and one that is read beyond them in vain.
INLINE int64_t stream_words(const Call &c) { return (inputs(c) + 31) / 32 + 8; }

// The bits under the filter of every lane, [word][lane], channels of a tap following those of the one before.
AVX512_TARGET inline void gather_bits(const Call &c, const Lanes &lanes, int64_t t, __m512i *stream) {
    const Planes &p = lanes.planes;
    int64_t at = 0;
    __m512i open = _mm512_setzero_si512();  // the word that is being filled
    for (int64_t dy = 0; dy < c.size; dy++)
        for (int64_t dx = 0; dx < c.size; dx++) {
            const Lanes::Tap tap = lanes.tap(c, dy, dx);
            const uint32_t *plane = p.bits + t * p.words * p.count;
            for (int64_t i = 0; i < c.in_channels; i += 32, plane += p.count) {
                const int64_t n = c.in_channels - i < 32 ? c.in_channels - i : 32, filled = at % 32;
                const __m512i word = lanes.word(tap, plane);
                open = _mm512_or_si512(open, _mm512_sll_epi32(word, _mm_cvtsi64_si128(filled)));
                if (filled + n >= 32) {
                    _mm512_store_si512(stream + at / 32, open);
                    open = _mm512_srl_epi32(word, _mm_cvtsi64_si128(32 - filled));
                }
                at += n;
            }
        }
    _mm512_store_si512(stream + at / 32, open);
    for (int i = 1; i < 8; i++) _mm512_store_si512(stream + at / 32 + i, _mm512_setzero_si512());
}

// Four patterns of BITS bits, from bit `at` of the stream on, each in a byte of its own (whose other bits are ignored).
template <int BITS>
AVX512_TARGET inline __m512i four_patterns(const __m512i *stream, int64_t at) {
    __m512i low = _mm512_srl_epi32(_mm512_load_si512(stream + at / 32), _mm_cvtsi64_si128(at % 32));
    __m512i high = _mm512_sll_epi32(_mm512_load_si512(stream + at / 32 + 1), _mm_cvtsi64_si128(32 - at % 32));
    __m512i all = _mm512_or_si512(low, high);
    const int pair = (1 << 2 * BITS) - 1, one = (1 << BITS) - 1;
    __m512i pairs = _mm512_or_si512(_mm512_and_si512(all, _mm512_set1_epi32(pair)),
                                    _mm512_andnot_si512(_mm512_set1_epi32(0xffff), _mm512_slli_epi32(all, 16 - 2 * BITS)));
    __m512i shifted = _mm512_slli_epi32(pairs, 8 - BITS);
    return _mm512_or_si512(_mm512_and_si512(pairs, _mm512_set1_epi32(one << 16 | one)),
                           _mm512_and_si512(shifted, _mm512_set1_epi32(int(0xff00ff00u))));
}

}  // namespace spike_conv
