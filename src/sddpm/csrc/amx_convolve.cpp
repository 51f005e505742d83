// Convolutions on matrix units, forward and of gradients to the input; and whether this machine has such units.
//
// Per product of the grid (amx_conv.h) the pixels of some positions, copied with the zeros between images, are
// multiplied by weights of two channels at a time. Products with one plane of the result are summed in the registers.

#include "amx_conv.h"

#if AMX

namespace {

using namespace amx;

// A convolution of `from` to `to`, whichever of them is the input.
struct Direction {
    Grid grid;
    Images from, to;
    int from_planes, to_planes;
    bool backward;
    int64_t ins, outs;  // blocks of channels

    explicit Direction(const ConvCall &c) : grid(c), backward(c.backward) {
        from = backward ? output_images(c, grid, c.grad) : input_images(c, grid, c.x);
        to = backward ? input_images(c, grid, c.out) : output_images(c, grid, c.out);
        from_planes = backward ? grid.out_planes : grid.in_planes;
        to_planes = backward ? grid.in_factor * grid.in_factor : grid.out_planes;
        ins = blocks(from.channels), outs = blocks(to.channels);
    }
    int plane_of(const Product &p) const { return backward ? p.in_plane : p.out_plane; }
    // Positions that are copied and multiplied together.
    int64_t count() const { return from_planes * ins > 8 ? 256 : 512; }
    int64_t copied() const { return count() + 2 * grid.margin; }
    size_t scratch_size() const {
        return size_t(from_planes * copied() * ins * BLOCK + from.channels) * 2 + BLOCK * BLOCK * 4 + 128;
    }
};

// Weights lie as [block of channels that result][product][block of channels summed over][2] tiles, the products sorted
// by the plane of the result. A unit is a block.
AMX_TARGET void pack_weights(const void *call, int64_t block, int64_t end, void *) {
    const ConvCall &c = *static_cast<const ConvCall *>(call);
    const Direction d(c);
    const __m512i order = _mm512_setr_epi32(0x100000, 0x110001, 0x120002, 0x130003, 0x140004, 0x150005, 0x160006,
                                            0x170007, 0x180008, 0x190009, 0x1a000a, 0x1b000b, 0x1c000c, 0x1d000d,
                                            0x1e000e, 0x1f000f);
    const int64_t taps = d.grid.taps, C = c.in_channels;
    for (; block < end; block++) {
        uint16_t *to = c.packed + block * d.grid.products * d.ins * 2 * TILE;
        for (int plane = 0; plane < d.to_planes; plane++)
            for (int i = 0; i < d.grid.products; i++) {
                const Product &p = d.grid.product[i];
                if (d.plane_of(p) != plane) continue;
                for (int64_t in = 0; in < d.ins; in++)
                    for (int half = 0; half < 2; half++, to += TILE) {
                        const int64_t column = block * BLOCK + half * 16, row = in * BLOCK;
                        __m512i words[16];
                        for (int k = 0; k < 16; k++) {  // forward a column of the tile, backward a row
                            __m512 sums[2] = {_mm512_setzero_ps(), _mm512_setzero_ps()};
                            for (int tap = 0; tap < taps; tap++) {
                                if (!(p.taps >> tap & 1)) continue;
                                for (int part = 0; part < 2; part++) {
                                    const int64_t o = d.backward ? row + 2 * k + part : column + k;
                                    const int64_t i = d.backward ? column : row + part * 16;
                                    if (o < c.out_channels && i < C)
                                        sums[part] = sums[part] + _mm512_loadu_ps(c.weight + (o * taps + tap) * C + i);
                                }
                            }
                            words[k] = (__m512i)_mm512_cvtne2ps_pbh(sums[1], sums[0]);
                            if (d.backward) words[k] = _mm512_permutexvar_epi16(order, words[k]);
                        }
                        if (!d.backward) transpose_words(words);
                        for (int k = 0; k < 16; k++) _mm512_storeu_si512(to + k * BLOCK, words[k]);
                    }
            }
    }
}

// tiles 0 to 3 (+)= left [32 rows][32 * steps] * right [steps] pairs of tiles.
INLINE_AMX void multiply(const uint16_t *left, int64_t stride, const uint16_t *right, int64_t steps) {
    for (int64_t k = 0; k < steps; k++, left += BLOCK, right += 2 * TILE) {
        _tile_loadd(6, right, 64);
        _tile_loadd(4, left, stride * 2);
        _tile_dpbf16ps(0, 4, 6);
        _tile_loadd(7, right + TILE, 64);
        _tile_dpbf16ps(1, 4, 7);
        _tile_loadd(5, left + LANES_IN_TILE * stride, stride * 2);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
}

// A unit is some positions.
AMX_TARGET void convolve(const void *call, int64_t unit, int64_t end, void *scratch) {
    const ConvCall &c = *static_cast<const ConvCall *>(call);
    const Direction d(c);
    const Grid &grid = d.grid;
    const int64_t stride = d.ins * BLOCK, copied = d.copied(), margin = grid.margin;
    float *sums = aligned<float>(scratch);                                // [32][32]
    uint16_t *left = reinterpret_cast<uint16_t *>(sums + BLOCK * BLOCK);  // [plane][position][channel]
    uint16_t *zeros = left + d.from_planes * copied * stride;
    std::memset(left, 0, d.scratch_size() - BLOCK * BLOCK * 4 - 128);
    const uint16_t *pixels[BLOCK];
    const Tiles tiles;
    for (; unit < end; unit++) {
        const int64_t first = unit * d.count(), last = least(first + d.count(), grid.positions);
        for (int plane = 0; plane < d.from_planes; plane++)
            for (int64_t at = 0; at < copied; at += BLOCK) {
                d.from.place(grid, plane, first - margin + at, BLOCK, zeros, pixels);
                uint16_t *to = left + (plane * copied + at) * stride;
                for (int i = 0; i < BLOCK; i++, to += stride)
                    for (int64_t channel = 0; channel < d.from.channels; channel += 16)
                        _mm256_store_si256((__m256i *)(to + channel),
                                           _mm256_loadu_si256((const __m256i *)(pixels[i] + channel)));
            }
        Tiles::flush();
        for (int64_t block = 0; block < d.outs; block++) {
            const uint16_t *weights = c.packed + block * grid.products * d.ins * 2 * TILE;
            const int64_t channel = block * BLOCK;
            const bool whole = d.to.channels - channel >= BLOCK;
            __m512 bias[2] = {_mm512_setzero_ps(), _mm512_setzero_ps()};
            if (c.bias) {
                bias[0] = _mm512_loadu_ps(c.bias + channel);
                if (whole) bias[1] = _mm512_loadu_ps(c.bias + channel + 16);
            }
            for (int plane = 0; plane < d.to_planes; plane++) {
                int64_t used = 0;
                for (int64_t at = first; at < last; at += BLOCK) {
                    _tile_zero(0);
                    _tile_zero(1);
                    _tile_zero(2);
                    _tile_zero(3);
                    used = 0;
                    for (int i = 0; i < grid.products; i++) {
                        const Product &p = grid.product[i];
                        if (d.plane_of(p) != plane) continue;
                        const int64_t offset = d.backward ? -p.offset : p.offset;
                        const int64_t row = (d.backward ? p.out_plane : p.in_plane) * copied + margin + at - first;
                        multiply(left + (row + offset) * stride, stride, weights + used, d.ins);
                        used += d.ins * 2 * TILE;
                    }
                    _tile_stored(0, sums, 128);
                    _tile_stored(1, sums + 16, 128);
                    _tile_stored(2, sums + 16 * BLOCK, 128);
                    _tile_stored(3, sums + 16 * BLOCK + 16, 128);
                    d.to.place(grid, plane, at, BLOCK, nullptr, pixels);
                    for (int i = 0; i < BLOCK; i++) {
                        if (!pixels[i]) continue;
                        uint16_t *to = const_cast<uint16_t *>(pixels[i]) + channel;
                        __m512 a = _mm512_load_ps(sums + i * BLOCK) + bias[0];
                        __m512 b = _mm512_load_ps(sums + i * BLOCK + 16) + bias[1];
                        _mm256_storeu_si256((__m256i *)to, (__m256i)_mm512_cvtneps_pbh(a));
                        if (whole) _mm256_storeu_si256((__m256i *)(to + 16), (__m256i)_mm512_cvtneps_pbh(b));
                    }
                }
                weights += used;
            }
        }
    }
}

}  // namespace

EXPORT int sddpm_amx_supported(void) { return instruction_set >= SET_avx512 && amx_available(); }

EXPORT int64_t sddpm_amx_packed(const ConvCall *call) {
    const Direction d(*call);
    return d.outs * d.grid.products * d.ins * 2 * TILE;
}

// out: the convolution of x, or with `backward` the gradient of x from that of the output.
EXPORT int sddpm_amx_convolve(const ConvCall *call, Parallel parallel) {
    const ConvCall &c = *call;
    const Direction d(c);
    const int64_t units = (d.grid.positions + d.count() - 1) / d.count();
    return !run(pack_weights, call, d.outs, 1, 0, c.threads, parallel) ||
           !run(convolve, call, units, 1, d.scratch_size(), c.threads, parallel);
}

#else

EXPORT int sddpm_amx_supported(void) { return 0; }

#endif
