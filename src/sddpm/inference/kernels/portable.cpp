// Spike convolution by tables in the first-level cache, for any instruction set.
//
// Five inputs have 32 patterns, and a table holds the sum of weights for each, 16 output channels side by side: a load
// and an addition of such a row do the work of 80 multiplications and additions.

#include "spike_conv.h"

#if defined(__GNUC__)

namespace spike_conv {
namespace {

const int BITS = 5, PATTERNS = 1 << BITS, ROW_BYTES = 4 * SLAB;
const int STEP = 4;    // groups of inputs whose patterns are made together
const int CHUNK = 12;  // groups whose tables (24 KiB) are used together
const int PIXELS = 16;

INLINE int64_t groups(const Call &c) { return round_up((inputs(c) + BITS - 1) / BITS, STEP); }
INLINE int64_t stream_words(const Call &c) { return inputs(c) / 64 + 2; }

struct Scratch {
    uint16_t *patterns;  // [T][pixels][groups], in bytes from the start of a table
    int32_t *sums;       // [T][pixels][SLAB]
    char *tables;        // [CHUNK][PATTERNS][SLAB]
    uint64_t *stream;
    size_t size;

    Scratch(const Call &c, int64_t count, char *memory) : size(0) {
        take(memory, patterns, size_t(c.T * count * groups(c)) * 2);
        take(memory, sums, size_t(c.T * count) * ROW_BYTES);
        take(memory, tables, CHUNK * PATTERNS * ROW_BYTES);
        take(memory, stream, size_t(stream_words(c)) * 8);
    }
    template <class T>
    void take(char *memory, T *&start, size_t bytes) {
        start = memory ? reinterpret_cast<T *>(memory + size) : nullptr;
        size += size_t(round_up(int64_t(bytes), 64));
    }
};

// Appends n <= 64 bits to a stream, of which `at` are there, and zeros above them.
INLINE void append(uint64_t *stream, int64_t at, uint64_t bits, int64_t n) {
    const int64_t shift = at % 64;
    stream += at / 64;
    stream[0] |= bits << shift;
    if (shift + n >= 64) stream[1] = shift ? bits >> (64 - shift) : 0;
}

// The bits of up to 64 spikes, the first lowest.
INLINE uint64_t pack(const uint8_t *spikes, int64_t n) {
    uint64_t bits = 0;
    for (int64_t i = 0; i < n; i += 8) {
        uint64_t eight = 0;
        std::memcpy(&eight, spikes + i, size_t(n - i < 8 ? n - i : 8));
        bits |= (eight * 0x0102040810204080ull >> 56) << i;  // byte j times 2^(56 - 7 j) comes to lie at bit 56 + j
    }
    return bits;
}

// The spikes under the filter at one output pixel and time step, tap after tap.
INLINE void gather_bits(const Call &c, int64_t pixel, int64_t t, uint64_t *stream) {
    const int64_t row = pixel / c.out_W, y = row % c.out_H * c.stride - c.size / 2;
    const int64_t x = pixel % c.out_W * c.stride - c.size / 2;
    const int shift = c.upsample ? 1 : 0;
    const uint8_t *image = c.spikes + (t * c.B + row / c.out_H) * c.H * c.W * c.in_channels;
    std::memset(stream, 0, size_t(stream_words(c)) * 8);
    int64_t at = 0;
    for (int64_t v = y; v < y + c.size; v++)
        for (int64_t u = x; u < x + c.size; u++) {
            const bool inside = v >= 0 && v < c.H << shift && u >= 0 && u < c.W << shift;
            const uint8_t *spikes = inside ? image + ((v >> shift) * c.W + (u >> shift)) * c.in_channels : nullptr;
            for (int64_t i = 0; i < c.in_channels; i += 64) {
                const int64_t n = c.in_channels - i < 64 ? c.in_channels - i : 64;
                append(stream, at, inside ? pack(spikes + i, n) : 0, n);
                at += n;
            }
        }
}

INLINE void make_patterns(const Call &c, const uint64_t *stream, uint16_t *patterns) {
    for (int64_t g = 0; g < groups(c); g += STEP) {
        const int64_t at = g * BITS, shift = at % 64;
        uint64_t four = stream[at / 64] >> shift;
        if (shift > 64 - STEP * BITS) four |= stream[at / 64 + 1] << (64 - shift);
        for (int i = 0; i < STEP; i++) patterns[g + i] = uint16_t((four >> (BITS * i) & (PATTERNS - 1)) * ROW_BYTES);
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

    static INLINE void add_rows(int64_t rows, const uint16_t *patterns, int64_t stride, const char *tables,
                                int64_t count, int32_t *sums, bool fresh) {
        for (int64_t i = 0; i < rows; i++, patterns += stride) {
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
    const int64_t count = block.last - block.first, all = groups(c);
    const Scratch s(c, count, memory);
    for (int64_t t = 0; t < c.T; t++)
        for (int64_t i = 0; i < count; i++) {
            gather_bits(c, block.first + i, t, s.stream);
            make_patterns(c, s.stream, s.patterns + (t * count + i) * all);
        }
    for (int channel = block.channel; channel < block.last_channel; channel += SLAB) {
        for (int64_t g = 0; g < all; g += CHUNK) {
            const int64_t some = all - g < CHUNK ? all - g : CHUNK;
            const int32_t *weights = static_cast<const int32_t *>(c.weights) + (channel / SLAB * all + g) * BITS * SLAB;
            Vectors<WIDTH>::make_tables(weights, some, s.tables);
            Vectors<WIDTH>::add_rows(c.T * count, s.patterns + g, all, s.tables, some, s.sums, g == 0);
        }
        for (int64_t i = 0; i < count; i += MOST_LANES)
            finish(c, s.sums + i * SLAB, count, block.first + i, int(count - i < MOST_LANES ? count - i : MOST_LANES),
                   channel);
    }
}

size_t scratch(const Call &c, int64_t count) { return Scratch(c, count, nullptr).size; }

void run_baseline(const Call &c, const Block &block, char *memory) { run_block<16>(c, block, memory); }
#if defined(__x86_64__)
__attribute__((target("avx2"))) void run_avx2(const Call &c, const Block &block, char *memory) {
    run_block<32>(c, block, memory);
}
#endif

}  // namespace

extern const Kernel PORTABLE = {scratch, run_baseline, PIXELS};
#if defined(__x86_64__)
extern const Kernel PORTABLE_AVX2 = {scratch, run_avx2, PIXELS};
#endif

}  // namespace spike_conv

#endif
