// The spikes under the filter as patterns of a few bits, for 16 pixels at a time: what the tables are looked up with.

#pragma once

#include <immintrin.h>

#if !defined(__clang__)
#pragma GCC diagnostic ignored "-Wuninitialized"  // in the compiler's own header
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

#include "spike_conv.h"

namespace spike_conv {

// The spikes that a run of output pixels sees, one bit each, 32 channels a word.
struct Planes {
    Reach reach;
    int64_t words;
    uint32_t *bits;  // [T][words][reach.count]

    Planes(const Call &c, int64_t from, int64_t to) : reach(c, from, to), words((c.in_channels + 31) / 32) {}

    AVX512_TARGET void fill(const Call &c) const {
        for (int64_t t = 0; t < c.T; t++)
            for (int64_t pixel = 0; pixel < reach.count; pixel++) {
                const uint8_t *spikes = c.spikes + (t * c.B * c.H * c.W + reach.first + pixel) * c.in_channels;
                uint32_t *to = bits + t * words * reach.count + pixel;
                for (int64_t i = 0; i < c.in_channels; i += 64, to += 2 * reach.count) {
                    const int64_t left = c.in_channels - i;
                    __m512i some = _mm512_maskz_loadu_epi8(left < 64 ? (1ull << left) - 1 : ~0ull, spikes + i);
                    const uint64_t packed = _mm512_test_epi8_mask(some, some);
                    to[0] = uint32_t(packed);
                    if (left > 32) to[reach.count] = uint32_t(packed >> 32);
                }
            }
    }
};

// Where 16 consecutive output pixels find the spikes under one tap of the filter.
struct Tap {
    int32_t index[16];  // pixels in a plane
    __mmask16 inside;   // lanes whose tap lies within the image; the others see no spikes
    bool consecutive;

    // Channels 32 w to 32 w + 31 of each lane, from the plane of that word.
    AVX512_TARGET INLINE __m512i word(const uint32_t *plane) const {
        if (consecutive) return _mm512_maskz_loadu_epi32(inside, plane + index[0]);
        return _mm512_mask_i32gather_epi32(_mm512_setzero_si512(), inside, _mm512_loadu_si512(index), plane, 4);
    }
};

// All taps, by rows and columns, of 16 output pixels from `pixel` on; lanes of pixels from `last` on see no spikes.
AVX512_TARGET inline void find_taps(const Call &c, const Planes &planes, int64_t pixel, int64_t last, Tap *taps) {
    alignas(64) int32_t ys[16], xs[16], images[16];  // top left corner of the filter, and first pixel of the image
    int64_t row = pixel / c.out_W, x = pixel % c.out_W, y = row % c.out_H, b = row / c.out_H;
    for (int l = 0; l < 16; l++) {
        ys[l] = int32_t(y * c.stride - c.size / 2), xs[l] = int32_t(x * c.stride - c.size / 2);
        images[l] = int32_t(b * c.H * c.W - planes.reach.first);
        if (++x == c.out_W) x = 0, y++;
        if (y == c.out_H) y = 0, b++;
    }
    const unsigned shift = c.upsample ? 1 : 0;
    const __mmask16 used = last - pixel < 16 ? __mmask16((1u << (last - pixel)) - 1) : __mmask16(0xffff);
    for (int dy = 0; dy < c.size; dy++)
        for (int dx = 0; dx < c.size; dx++, taps++) {
            __m512i v = _mm512_add_epi32(_mm512_load_si512(ys), _mm512_set1_epi32(dy));
            __m512i u = _mm512_add_epi32(_mm512_load_si512(xs), _mm512_set1_epi32(dx));
            taps->inside = _mm512_mask_cmplt_epu32_mask(used, v, _mm512_set1_epi32(int32_t(c.H << shift)));
            taps->inside = _mm512_mask_cmplt_epu32_mask(taps->inside, u, _mm512_set1_epi32(int32_t(c.W << shift)));
            taps->consecutive = c.stride == 1 && !c.upsample;
            v = _mm512_mullo_epi32(_mm512_srai_epi32(v, shift), _mm512_set1_epi32(int32_t(c.W)));
            u = _mm512_add_epi32(_mm512_srai_epi32(u, shift), _mm512_load_si512(images));
            _mm512_storeu_si512(taps->index, _mm512_add_epi32(v, u));
        }
}

// Room for the bits under the filter of 16 lanes: words, and zeros that the last patterns reach into.
INLINE int64_t stream_words(const Call &c) { return (inputs(c) + 31) / 32 + 8; }

// The bits under the filter of every lane, [word][lane], channels of a tap following those of the one before.
AVX512_TARGET inline void gather_bits(const Call &c, const Planes &p, const Tap *taps, int64_t t, __m512i *stream) {
    const Tap *end = taps + c.size * c.size;
    const uint32_t *planes = p.bits + t * p.words * p.reach.count;
    if (c.in_channels % 32 == 0) {
        for (; taps < end; taps++)
            for (int64_t w = 0; w < p.words; w++) _mm512_store_si512(stream++, taps->word(planes + w * p.reach.count));
    } else {
        int64_t filled = 0;  // bits of the word that is being filled
        __m512i open = _mm512_setzero_si512();
        for (; taps < end; taps++)
            for (int64_t w = 0; w < p.words; w++) {
                const int64_t n = c.in_channels - 32 * w < 32 ? c.in_channels - 32 * w : 32;
                const __m512i word = taps->word(planes + w * p.reach.count);
                open = _mm512_or_si512(open, _mm512_sll_epi32(word, _mm_cvtsi64_si128(filled)));
                filled += n;
                if (filled < 32) continue;
                _mm512_store_si512(stream++, open);
                filled -= 32;
                open = _mm512_srl_epi32(word, _mm_cvtsi64_si128(n - filled));
            }
        _mm512_store_si512(stream++, open);
    }
    for (int i = 0; i < 7; i++) _mm512_store_si512(stream++, _mm512_setzero_si512());
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
