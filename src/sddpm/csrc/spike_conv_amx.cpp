// Spike convolution by the matrix units of AMX: weights as signed 8-bit digits, whose products with spikes are summed in
// 32-bit integers.
//
// The spikes under the filters are read in place, from a padded copy of some rows of the images: [image][row][column]
// [time step][cell], a cell being the channels in blocks of 64 bytes. So the time steps of 16 / T neighbouring pixels
// are the rows of one matrix tile, which the filter's taps shift by a constant, and neurons find all their time steps
// in one tile of sums. A step of the sum over inputs is one block of one tap.

#include "amx.h"

#if AMX

#include <immintrin.h>

#include "spike_conv.h"

namespace spike_conv {
namespace {

// Two tiles of spikes are multiplied with two of weights at once.
const int BLOCK_BYTES = TILE_ROW_BYTES, PAIR = 2;
const int AHEAD = 2;  // steps by which weights are fetched into the first-level cache before they are used
const int64_t MOST_COPY = 512 << 10;  // bytes of the copy of spikes: it should stay in the second-level cache

// How a layer is laid out and divided. An item is the pixels that share tiles: `pixels` of a row, in `tiles` tiles.
struct Plan {
    int64_t blocks, cell, pixel_bytes, columns, parity_columns, row_bytes;
    int64_t pixels, tiles, items_in_row;
    int64_t slabs, slab_pairs, planes, weight_bytes;  // of a pair of slabs
    int64_t images_each, rows_each, bands, splits, pairs_each;
    bool paired;  // the last block of a cell holds a neighbour's too

    Plan(const Call &c, int digits) {
        blocks = (c.in_channels + BLOCK_BYTES - 1) / BLOCK_BYTES;
        cell = blocks * BLOCK_BYTES;
        const int64_t left = c.in_channels % BLOCK_BYTES;
        paired = c.size > 1 && left > 0 && left <= BLOCK_BYTES / 2;
        pixel_bytes = c.T * cell;
        const int64_t needed = (c.out_W - 1) * c.stride + c.size;
        parity_columns = (needed + c.stride - 1) / c.stride;
        columns = parity_columns * c.stride;
        row_bytes = columns * pixel_bytes;
        pixels = c.T < TILE_ROWS ? TILE_ROWS / c.T : 1;
        tiles = (pixels * c.T + TILE_ROWS - 1) / TILE_ROWS;
        items_in_row = (c.out_W + pixels - 1) / pixels;
        slabs = round_up(c.out_channels, SLAB) / SLAB;
        slab_pairs = (slabs + 1) / 2;
        planes = digits;
        weight_bytes = planes * c.steps * PAIR * TILE_BYTES;

        rows_each = c.out_H, images_each = MOST_COPY / copy_bytes(c, c.out_H);
        const int64_t fair = (c.B + c.threads - 1) / c.threads;
        if (images_each > fair) images_each = fair;
        if (images_each < 1) {
            images_each = 1;
            while (rows_each > 1 && copy_bytes(c, rows_each) > MOST_COPY) rows_each--;
            rows_each = (c.out_H + (c.out_H + rows_each - 1) / rows_each - 1) / ((c.out_H + rows_each - 1) / rows_each);
        }
        bands = (c.out_H + rows_each - 1) / rows_each;
        const int64_t parts = (c.B + images_each - 1) / images_each * bands;
        splits = (c.threads + parts - 1) / parts;
        if (splits > slab_pairs) splits = slab_pairs;
        pairs_each = (slab_pairs + splits - 1) / splits;
        splits = (slab_pairs + pairs_each - 1) / pairs_each;
    }
    int64_t units(const Call &c) const { return (c.B + images_each - 1) / images_each * bands * splits; }
    int64_t copy_rows(const Call &c, int64_t rows) const { return (rows - 1) * c.stride + c.size; }
    int64_t copy_bytes(const Call &c, int64_t rows) const { return copy_rows(c, rows) * row_bytes; }
    // Where column `at` of the copy lies: those that a stride of 2 reads one after another are neighbours.
    int64_t column(const Call &c, int64_t at) const {
        return (at % c.stride * parity_columns + at / c.stride) * pixel_bytes;
    }
    int64_t sums_bytes() const { return planes * PAIR * PAIR * tiles * TILE_BYTES; }
    int64_t slack() const { return tiles * TILE_ROWS * cell; }  // that tiles with unused rows read beyond the copy
};

// Some rows of some images.
struct Part {
    int64_t image, images, row, rows;
};

// The first `bytes` of a block, the rest zero.
AMX_TARGET INLINE __m512i load_bytes(const uint8_t *from, int64_t bytes) {
    return _mm512_maskz_loadu_epi8(bytes >= 64 ? ~__mmask64(0) : (__mmask64(1) << bytes) - 1, from);
}

AMX_TARGET INLINE void zero(char *to, int64_t blocks) {
    for (int64_t i = 0; i < blocks; i++) _mm512_store_si512(to + i * BLOCK_BYTES, _mm512_setzero_si512());
}

// A pixel's cells at all time steps.
AMX_TARGET INLINE void copy_pixel(const Call &c, const Plan &p, const uint8_t *from, char *to) {
    const int64_t step = c.B * c.H * c.W * c.in_channels;
    for (int64_t t = 0; t < c.T; t++, from += step)
        for (int64_t i = 0; i < c.in_channels; i += BLOCK_BYTES, to += BLOCK_BYTES)
            _mm512_store_si512(to, load_bytes(from + i, c.in_channels - i));
}

// Puts into the free half of each pixel's last block what its right neighbour has in the other half.
AMX_TARGET INLINE void pair_neighbours(const Call &c, const Plan &p, char *row) {
    for (int64_t j = 0; j + 1 < p.columns; j++) {
        char *to = row + p.column(c, j) + p.cell - BLOCK_BYTES / 2;
        const char *from = row + p.column(c, j + 1) + p.cell - BLOCK_BYTES;
        for (int64_t t = 0; t < c.T; t++, to += p.cell, from += p.cell)
            _mm256_store_si256(reinterpret_cast<__m256i *>(to),
                               _mm256_load_si256(reinterpret_cast<const __m256i *>(from)));
    }
}

AMX_TARGET void copy_spikes(const Call &c, const Plan &p, const Part &part, char *to) {
    const int64_t radius = c.size / 2, shift = c.upsample ? 1 : 0, H = c.H << shift, W = c.W << shift;
    for (int64_t image = part.image; image < part.image + part.images; image++)
        for (int64_t i = 0; i < p.copy_rows(c, part.rows); i++, to += p.row_bytes) {
            const int64_t y = part.row * c.stride + i - radius;
            if (y < 0 || y >= H) {
                zero(to, p.row_bytes / BLOCK_BYTES);
                continue;
            }
            const uint8_t *row = c.spikes + (image * c.H + (y >> shift)) * c.W * c.in_channels;
            for (int64_t j = 0; j < p.columns; j++) {
                const int64_t x = j - radius;
                if (x < 0 || x >= W)
                    zero(to + p.column(c, j), c.T * p.blocks);
                else
                    copy_pixel(c, p, row + (x >> shift) * c.in_channels, to + p.column(c, j));
            }
            if (p.paired) pair_neighbours(c, p, to);
        }
}

// Sums of two tiles of spikes with N of weights, from one of which to the next it is `to_next`. `offsets`: of the steps.
template <int N>
AMX_TARGET INLINE void multiply(const char *spikes0, const char *spikes1, int64_t cell, const int64_t *offsets,
                                int64_t steps, const char *weights, int32_t *sums0, int32_t *sums1, int64_t to_next) {
    ZERO_TILE(0);
    ZERO_TILE(1);
    if (N > 1) {
        ZERO_TILE(2);
        ZERO_TILE(3);
    }
    for (int64_t i = 0; i < steps; i++, weights += N * TILE_BYTES) {
        for (int j = 0; j < N * TILE_BYTES; j += 64) _mm_prefetch(weights + N * TILE_BYTES * AHEAD + j, _MM_HINT_T0);
        LOAD_TILE(6, weights, BLOCK_BYTES);
        LOAD_TILE(4, spikes0 + offsets[i], cell);
        MULTIPLY_TILES(0, 4, 6);
        LOAD_TILE(5, spikes1 + offsets[i], cell);
        MULTIPLY_TILES(1, 5, 6);
        if (N > 1) {
            LOAD_TILE(7, weights + TILE_BYTES, BLOCK_BYTES);
            MULTIPLY_TILES(2, 4, 7);
            MULTIPLY_TILES(3, 5, 7);
        }
    }
    STORE_TILE(0, sums0);
    STORE_TILE(1, sums1);
    if (N > 1) {
        STORE_TILE(2, sums0 + to_next);
        STORE_TILE(3, sums1 + to_next);
    }
}

// Adds up the planes of digits, the highest first; the total fits 32 bits, see `quantize` in packing.py.
AMX_TARGET INLINE void add_planes(int32_t *sums, int64_t count, int64_t planes) {
    for (int64_t i = 0; i < count; i += SLAB) {
        IntRow total = load_row<IntRow>(sums + i);
        for (int64_t plane = 1; plane < planes; plane++)
            total = (total << 8) + load_row<IntRow>(sums + plane * count + i);
        std::memcpy(sums + i, &total, sizeof total);
    }
}

// The items of a part, one after another.
struct Item {
    int64_t image, row, x;  // of the first pixel, counted within the part

    void next(const Plan &p, const Part &part, int64_t width) {
        if ((x += p.pixels) < width) return;
        x = 0;
        if (++row == part.rows) row = 0, image++;
    }
    int64_t place(const Call &c, const Plan &p, const Part &part) const {  // in the copy
        return (image * p.copy_rows(c, part.rows) + row * c.stride) * p.row_bytes + x * p.pixel_bytes;
    }
    int64_t pixel(const Call &c, const Part &part) const {
        return ((part.image + image) * c.out_H + part.row + row) * c.out_W + x;
    }
    int count(const Call &c, const Plan &p) const { return int(c.out_W - x < p.pixels ? c.out_W - x : p.pixels); }
};

// Begins to fetch what `finish` will read and write: lines too far apart for the processor to foresee.
template <int N>
INLINE void prefetch(const Call &c, int64_t pixel, int count, int channel) {
    for (int64_t t = 0; t < c.T; t++) {
        const int64_t first = (t * pixels(c) + pixel) * c.out_channels + channel;
        for (int64_t i = 0; i < count; i++)
            for (int64_t n = 0; n < N; n++) {
                const int64_t at = first + i * c.out_channels + n * SLAB;
                if (c.add) __builtin_prefetch(c.add + at);
                if (c.currents) __builtin_prefetch(c.currents + at, 1);
            }
    }
}

// N slabs of channels of all pixels of a part.
template <int N>
AMX_TARGET void convolve(const Call &c, const Plan &p, const Part &part, const char *copy, const int64_t *offsets,
                         const char *weights, int32_t *sums, int channel) {
    const int64_t items = part.images * part.rows * p.items_in_row;
    const int64_t to_next = PAIR * p.tiles * TILE_SUMS, plane_sums = N * to_next, tile = TILE_ROWS * p.cell;
    Item item = {0, 0, 0};
    for (int64_t i = 0; i < items; i += PAIR) {
        const Item first = item;
        item.next(p, part, c.out_W);
        const bool alone = i + 1 == items;
        const Item second = alone ? first : item;
        item.next(p, part, c.out_W);
        const char *place0 = copy + first.place(c, p, part), *place1 = copy + second.place(c, p, part);
        const int64_t pixel0 = first.pixel(c, part), pixel1 = second.pixel(c, part);
        const int count0 = first.count(c, p), count1 = alone ? 0 : second.count(c, p);
        if (c.currents) {
            prefetch<N>(c, pixel0, count0, channel);
            prefetch<N>(c, pixel1, count1, channel);
        }
        for (int64_t plane = 0; plane < p.planes; plane++)
            for (int64_t k = 0; k < p.tiles; k++) {
                int32_t *to = sums + plane * plane_sums + k * TILE_SUMS;
                multiply<N>(place0 + k * tile, place1 + k * tile, p.cell, offsets, c.steps,
                            weights + plane * c.steps * N * TILE_BYTES, to, to + p.tiles * TILE_SUMS, to_next);
            }
        if (p.planes > 1) add_planes(sums, plane_sums, p.planes);
        for (int n = 0; n < N; n++) {
            const int32_t *from = sums + n * to_next;
            // Pixels and their sums that follow each other without a gap are finished together.
            if (pixel0 + count0 == pixel1 && count0 * c.T == p.tiles * TILE_ROWS) {
                finish(c, from, SLAB, c.T * SLAB, pixel0, count0 + count1, channel + n * SLAB);
                continue;
            }
            finish(c, from, SLAB, c.T * SLAB, pixel0, count0, channel + n * SLAB);
            if (count1) finish(c, from + p.tiles * TILE_SUMS, SLAB, c.T * SLAB, pixel1, count1, channel + n * SLAB);
        }
    }
}

struct Job {
    const Call &c;
    const Plan p;
    std::atomic<bool> failed;
    Job(const Call &call, int digits) : c(call), p(call, digits), failed(false) {}
};

AMX_TARGET void compute(const void *data, int64_t unit, int64_t, void *) {
    static thread_local Memory memory;
    Job &job = *static_cast<Job *>(const_cast<void *>(data));
    const Call &c = job.c;
    const Plan &p = job.p;
    const int64_t split = unit % p.splits, band = unit / p.splits % p.bands, group = unit / p.splits / p.bands;
    Part part = {group * p.images_each, p.images_each, band * p.rows_each, p.rows_each};
    if (part.image + part.images > c.B) part.images = c.B - part.image;
    if (part.row + part.rows > c.out_H) part.rows = c.out_H - part.row;

    const int64_t sums_bytes = p.sums_bytes(), offset_bytes = round_up(c.steps * 8, 64);
    char *scratch = memory.get(size_t(sums_bytes + offset_bytes +
                                      p.images_each * p.copy_bytes(c, p.rows_each) + p.slack()));
    if (!scratch) {
        job.failed = true;
        return;
    }
    int32_t *sums = reinterpret_cast<int32_t *>(scratch);
    int64_t *offsets = reinterpret_cast<int64_t *>(scratch + sums_bytes);
    char *copy = scratch + sums_bytes + offset_bytes;
    for (int64_t i = 0; i < c.steps; i++) {
        const int32_t *step = c.step_places + 3 * i;  // row and column of the tap, block of channels
        offsets[i] = step[0] * p.row_bytes + p.column(c, step[1]) + step[2] * BLOCK_BYTES;
    }
    copy_spikes(c, p, part, copy);

    const TileConfig config;
    LOAD_CONFIG(config);
    const int64_t last = (split + 1) * p.pairs_each < p.slab_pairs ? (split + 1) * p.pairs_each : p.slab_pairs;
    for (int64_t pair = split * p.pairs_each; pair < last; pair++) {
        const char *weights = static_cast<const char *>(c.weights) + pair * p.weight_bytes;
        const int channel = int(pair) * PAIR * SLAB;
        if (pair * PAIR + 1 < p.slabs)
            convolve<2>(c, p, part, copy, offsets, weights, sums, channel);
        else
            convolve<1>(c, p, part, copy, offsets, weights, sums, channel);
    }
    RELEASE_TILES();
}

template <int DIGITS>
bool by_tiles(const Kernel &, const Call &c, Parallel parallel) {
    Job job(c, DIGITS);
    run(compute, &job, job.p.units(c), 1, 0, c.threads, parallel);
    return !job.failed;
}

}  // namespace

// They divide the output in their own way.
extern const Kernel AMX_EXACT = {"amx", "amx-fast", "tiles of 3 digits", amx_available, by_tiles<3>, nullptr, nullptr, 0};
extern const Kernel AMX_FAST = {"amx-fast", nullptr, "tiles of 1 digit", amx_available, by_tiles<1>, nullptr, nullptr, 0};

}  // namespace spike_conv

#endif
