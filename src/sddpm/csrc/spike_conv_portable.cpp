// Spike convolution by tables in the first-level cache, for any instruction set.
//
// Five inputs have 32 patterns, and a table holds the sum of weights for each, 16 output channels side by side: a load
// and an addition of such a row do the work of 80 multiplications and additions.

#include "spike_conv.h"

#if defined(__GNUC__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__

namespace spike_conv {
namespace {

const int BITS = 5, PATTERNS = 1 << BITS, ROW_BYTES = 4 * SLAB;
const int STEP = 4;    // groups of inputs whose patterns are made together
const int CHUNK = 12;  // groups whose tables (24 KiB) are used together
const int PIXELS = 16;

INLINE int64_t groups(const Call &c) { return round_up((inputs(c) + BITS - 1) / BITS, STEP); }
INLINE int64_t chunks(const Call &c) { return (groups(c) + CHUNK - 1) / CHUNK; }
INLINE int64_t stream_words(const Call &c) { return inputs(c) / 64 + 2; }

struct Scratch {
    uint16_t *patterns;  // [chunks][T][pixels][CHUNK], in bytes from the start of a table
    int32_t *sums;       // [T][pixels][SLAB]
    char *tables;        // [CHUNK][PATTERNS][SLAB]
    uint64_t *packed;    // [T][input pixels][words]: the spikes that are seen, one bit each
    uint64_t *stream;
    size_t size;

    Scratch(const Call &c, int64_t count, char *memory) : size(0) {
        take(memory, patterns, size_t(chunks(c) * c.T * count * CHUNK) * 2);
        take(memory, sums, size_t(c.T * count) * ROW_BYTES);
        take(memory, tables, CHUNK * PATTERNS * ROW_BYTES);
        take(memory, packed, size_t(c.T * most_reach(c, count) * ((c.in_channels + 63) / 64)) * 8);
        take(memory, stream, size_t(stream_words(c)) * 8);
    }
    template <class T>
    void take(char *memory, T *&start, size_t bytes) {
        start = memory ? reinterpret_cast<T *>(memory + size) : nullptr;
        size += size_t(round_up(int64_t(bytes), 64));
    }
};

// The bits of n <= 64 spikes, the first lowest.
INLINE uint64_t pack(const uint8_t *spikes, int64_t n) {
    uint64_t bits = 0;
    for (int64_t i = 0; i < n; i += 8) {
        uint64_t eight = 0;
        std::memcpy(&eight, spikes + i, n - i < 8 ? size_t(n - i) : 8);
        bits |= (eight * 0x0102040810204080ull >> 56) << i;  // byte j times 2^(56 - 7 j) comes to lie at bit 56 + j
    }
    return bits;
}

INLINE void pack_all(const Call &c, const Reach &reach, uint64_t *packed) {
    for (int64_t t = 0; t < c.T; t++) {
        const uint8_t *spikes = c.spikes + (t * c.B * c.H * c.W + reach.first) * c.in_channels;
        for (int64_t pixel = 0; pixel < reach.count; pixel++, spikes += c.in_channels)
            for (int64_t i = 0; i < c.in_channels; i += 64)
                *packed++ = c.in_channels - i < 64 ? pack(spikes + i, c.in_channels - i) : pack(spikes + i, 64);
    }
}

// Where an output pixel's filter lies: its top left corner, and the image's first pixel among those that were packed.
struct Place {
    int64_t x, y, image;

    Place(const Call &c, const Reach &reach, int64_t pixel) {
        const int64_t row = pixel / c.out_W;
        x = pixel % c.out_W * c.stride - c.size / 2;
        y = row % c.out_H * c.stride - c.size / 2;
        image = row / c.out_H * c.H * c.W - reach.first;
    }
};

// The spikes under the filter at one time step, tap after tap, as a string of bits.
INLINE void gather_bits(const Call &c, const Place &at, const uint64_t *packed, uint64_t *stream) {
    const int64_t words = (c.in_channels + 63) / 64, shift = c.upsample ? 1 : 0;
    uint64_t open = 0;   // the word that is being filled, and how much of it is
    int64_t filled = 0;
    for (int64_t v = at.y; v < at.y + c.size; v++)
        for (int64_t u = at.x; u < at.x + c.size; u++) {
            const bool inside = v >= 0 && v < c.H << shift && u >= 0 && u < c.W << shift;
            const uint64_t *tap = packed + (inside ? at.image + (v >> shift) * c.W + (u >> shift) : 0) * words;
            for (int64_t w = 0; w < words; w++) {
                const int64_t n = c.in_channels - 64 * w < 64 ? c.in_channels - 64 * w : 64;
                const uint64_t word = inside ? tap[w] : 0;
                open |= word << filled;
                filled += n;
                if (filled < 64) continue;
                *stream++ = open;
                filled -= 64;
                open = filled ? word >> (n - filled) : 0;
            }
        }
    stream[0] = open;
    stream[1] = 0;
}

// Four patterns of five bits each, 16 bits apart.
INLINE uint64_t spread(uint64_t bits) {
    bits = (bits & 0x3ff) | (bits & 0xffc00) << 22;
    return (bits & 0x1f0000001full) | (bits & 0x3e0000003e0ull) << 11;
}

// Patterns of one pixel: those of a chunk follow each other, those of the next are `to_next` further.
INLINE void make_patterns(const uint64_t *stream, int64_t count, uint16_t *patterns, int64_t to_next) {
    const char *from = reinterpret_cast<const char *>(stream);
    int64_t left = CHUNK;
    for (int64_t g = 0; g < count; from += BITS) {
        uint64_t eight;
        std::memcpy(&eight, from, 8);
        for (int half = 0; half < 2 && g < count; half++, g += STEP, eight >>= STEP * BITS) {
            const uint64_t four = spread(eight) * ROW_BYTES;
            std::memcpy(patterns, &four, 8);
            patterns += STEP;
            if ((left -= STEP) == 0) patterns += to_next - CHUNK, left = CHUNK;
        }
    }
}

// Registers of WIDTH bytes; PARTS of them are a row.
template <int WIDTH>
struct Vectors {
    typedef int32_t Vector __attribute__((vector_size(WIDTH), may_alias));
    static const int PARTS = ROW_BYTES / WIDTH;

    // Tables of `count` groups from weights [count][BITS][SLAB].
    static INLINE void make_tables(const int32_t *weights, int64_t count, char *tables) {
        for (int64_t g = 0; g < count; g++, weights += BITS * SLAB, tables += PATTERNS * ROW_BYTES) {
            const Vector *w = reinterpret_cast<const Vector *>(weights);
            Vector *table = reinterpret_cast<Vector *>(tables);
            for (int part = 0; part < PARTS; part++) table[part] = Vector{};
            for (int bit = 0; bit < BITS; bit++)
                for (int row = 0; row < 1 << bit; row++)
                    for (int part = 0; part < PARTS; part++)
                        table[((1 << bit) + row) * PARTS + part] = table[row * PARTS + part] + w[bit * PARTS + part];
        }
    }

    static INLINE void add_rows(int64_t rows, const uint16_t *patterns, const char *tables, int64_t count,
                                int32_t *sums, bool fresh) {
        for (int64_t i = 0; i < rows; i++, patterns += CHUNK) {
            Vector *sum = reinterpret_cast<Vector *>(sums) + i * PARTS;
            Vector s[PARTS];
            for (int part = 0; part < PARTS; part++) s[part] = fresh ? Vector{} : sum[part];
            for (int64_t g = 0; g < count; g += STEP)
                for (int j = 0; j < STEP; j++) {
                    const char *row = tables + (g + j) * (PATTERNS * ROW_BYTES) + patterns[g + j];
                    for (int part = 0; part < PARTS; part++) s[part] += reinterpret_cast<const Vector *>(row)[part];
                }
            for (int part = 0; part < PARTS; part++) sum[part] = s[part];
        }
    }
};

template <int WIDTH>
INLINE void run_block(const Call &c, const Block &block, char *memory) {
    const int64_t count = block.last - block.first, rows = c.T * count, all = groups(c);
    const Reach reach(c, block.first, block.last);
    const Scratch s(c, count, memory);
    pack_all(c, reach, s.packed);
    for (int64_t i = 0; i < count; i++) {
        const Place at(c, reach, block.first + i);
        for (int64_t t = 0; t < c.T; t++) {
            gather_bits(c, at, s.packed + t * reach.count * ((c.in_channels + 63) / 64), s.stream);
            make_patterns(s.stream, all, s.patterns + (t * count + i) * CHUNK, rows * CHUNK);
        }
    }
    for (int channel = block.channel; channel < block.last_channel; channel += SLAB) {
        for (int64_t g = 0; g < all; g += CHUNK) {
            const int64_t some = all - g < CHUNK ? all - g : CHUNK;
            const int32_t *weights = static_cast<const int32_t *>(c.weights) + (channel / SLAB * all + g) * BITS * SLAB;
            Vectors<WIDTH>::make_tables(weights, some, s.tables);
            Vectors<WIDTH>::add_rows(rows, s.patterns + g * rows, s.tables, some, s.sums, g == 0);
        }
        for (int64_t i = 0; i < count; i += MOST_LANES)
            finish(c, s.sums + i * SLAB, count * SLAB, SLAB, block.first + i,
                   int(count - i < MOST_LANES ? count - i : MOST_LANES), channel);
    }
}

size_t scratch(const Call &c, int64_t count) { return Scratch(c, count, nullptr).size; }

void run_baseline(const Call &c, const Block &block, char *memory) { run_block<16>(c, block, memory); }
#if defined(__x86_64__)
__attribute__((target("avx2"))) void run_avx2(const Call &c, const Block &block, char *memory) {
    run_block<32>(c, block, memory);
}
#endif

bool everywhere() { return true; }
#if defined(__x86_64__)
bool has_avx2() {
    __builtin_cpu_init();
    return HAS("avx2");
}
#endif

}  // namespace

extern const Kernel PORTABLE = {"portable", nullptr, "rows of 5 by slabs", everywhere, in_blocks, scratch, run_baseline, PIXELS};
#if defined(__x86_64__)
extern const Kernel PORTABLE_AVX2 = {"avx2", nullptr, "rows of 5 by slabs", has_avx2, in_blocks, scratch, run_avx2, PIXELS};
#endif

}  // namespace spike_conv

#endif
