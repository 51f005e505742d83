// Spike convolution by tables in registers, for AVX-512.
//
// A table of 32 sums of five weights of one output channel fills two registers, and one permutation (vpermi2d) looks
// up the sums of 16 pixels: 80 multiplications and additions of a float32 convolution become two instructions. With
// 16-bit sums ("fast") it is six weights and 32 pixels.

#include "spike_conv.h"

#if defined(__GNUC__) && defined(__x86_64__)

#include "spike_conv_avx512.h"

namespace spike_conv {
namespace {

// A register tile is four channels by four vectors (of pixels at one time step); a step of its loop takes four groups
// of spikes, whose patterns are bytes.
const int TILE = 4, STEP = 4;
const int STEPS = 12;  // of a chunk, whose tables (24 KiB) stay in the first-level cache
const int TABLE = 128, STEP_TABLES = STEP * TILE * TABLE;

struct Exact {
    typedef int32_t Sum;
    static const int BITS = 5, PIXELS = 16;
};
struct Fast {
    typedef int16_t Sum;
    static const int BITS = 6, PIXELS = 32;
};

template <class P>
INLINE int64_t steps(const Call &c) {
    return (inputs(c) + STEP * P::BITS - 1) / (STEP * P::BITS);
}
template <class P>
INLINE int64_t chunk_steps(const Call &c) {
    int64_t all = steps<P>(c), chunks = (all + STEPS - 1) / STEPS;
    return (all + chunks - 1) / chunks;
}
// Bytes of a vector's patterns in a step, and in all.
template <class P>
INLINE int64_t step_bytes() {
    return STEP * P::PIXELS;
}
template <class P>
INLINE int64_t pattern_bytes(const Call &c) {
    return steps<P>(c) * step_bytes<P>();
}

struct Scratch {
    int64_t vectors;
    Planes planes;
    Tap *taps;
    __m512i *stream;
    uint8_t *patterns;  // [vectors][pattern_bytes]
    int32_t *sums;      // [vectors / TILE][SLAB / TILE][TILE channels][TILE vectors][PIXELS]
    int32_t *rows;      // [T][PIXELS][SLAB]
    char *tables;       // [chunk][STEP][TILE][TABLE]
    size_t size;

    template <class P>
    Scratch(const Call &c, int64_t first, int64_t last, char *memory, P)
        : vectors(round_up((last - first + P::PIXELS - 1) / P::PIXELS * c.T, TILE)), planes(c, first, last), size(0) {
        take(memory, patterns, size_t(vectors * pattern_bytes<P>(c)) + 64);  // loads reach 3 bytes beyond
        take(memory, sums, size_t(vectors) * SLAB * P::PIXELS * 4);
        take(memory, rows, size_t(c.T) * P::PIXELS * SLAB * 4);
        take(memory, tables, STEPS * STEP_TABLES);
        take(memory, taps, size_t(c.size * c.size) * sizeof(Tap));
        take(memory, stream, size_t(stream_words(c)) * 64);
        take(memory, planes.bits, size_t(c.T * planes.words * most_reach(c, last - first)) * 4);
    }
    template <class T>
    void take(char *memory, T *&start, size_t bytes) {
        start = memory ? reinterpret_cast<T *>(memory + size) : nullptr;
        size += size_t(round_up(int64_t(bytes), 64));
    }
};

// The patterns of one vector of pixels: those of step i in the i-th `step_bytes`, where byte j of lane l is that of
// group j (of the two groups of a half step, if lanes are 16 bits wide).
AVX512_TARGET void make_patterns(const Call &c, const Scratch &s, int64_t first, int64_t last, uint8_t *patterns,
                                 int64_t to_next, Exact) {
    find_taps(c, s.planes, first, last, s.taps);
    for (int64_t t = 0; t < c.T; t++, patterns += to_next) {
        gather_bits(c, s.planes, s.taps, t, s.stream);
        for (int64_t i = 0; i < steps<Exact>(c); i++)
            _mm512_store_si512(patterns + 64 * i, four_patterns<Exact::BITS>(s.stream, i * STEP * Exact::BITS));
    }
}
AVX512_TARGET void make_patterns(const Call &c, const Scratch &s, int64_t first, int64_t last, uint8_t *patterns,
                                 int64_t to_next, Fast) {
    for (int half = 0; half < 2; half++) {
        find_taps(c, s.planes, first + 16 * half, last, s.taps);
        for (int64_t t = 0; t < c.T; t++) {
            gather_bits(c, s.planes, s.taps, t, s.stream);
            uint8_t *to = patterns + t * to_next + 32 * half;
            for (int64_t i = 0; i < steps<Fast>(c); i++, to += 128) {
                __m512i four = four_patterns<Fast::BITS>(s.stream, i * STEP * Fast::BITS);
                __m512i last_two = _mm512_srli_epi32(four, 16);
                _mm256_store_si256(reinterpret_cast<__m256i *>(to), _mm512_cvtepi32_epi16(four));
                _mm256_store_si256(reinterpret_cast<__m256i *>(to + 64), _mm512_cvtepi32_epi16(last_two));
            }
        }
    }
}

// Tables of `count` groups and TILE channels from weights [count][TILE][BITS].
AVX512_TARGET void make_tables(const int32_t *w, int64_t count, char *tables, Exact) {
    for (int64_t i = 0; i < count * TILE; i++, w += 5, tables += TABLE) {
        __m512i low = _mm512_maskz_set1_epi32(0xaaaa, w[0]);
        low = _mm512_mask_add_epi32(low, 0xcccc, low, _mm512_set1_epi32(w[1]));
        low = _mm512_mask_add_epi32(low, 0xf0f0, low, _mm512_set1_epi32(w[2]));
        low = _mm512_mask_add_epi32(low, 0xff00, low, _mm512_set1_epi32(w[3]));
        _mm512_store_si512(tables, low);
        _mm512_store_si512(tables + 64, _mm512_add_epi32(low, _mm512_set1_epi32(w[4])));
    }
}
AVX512_TARGET void make_tables(const int16_t *w, int64_t count, char *tables, Fast) {
    for (int64_t i = 0; i < count * TILE; i++, w += 6, tables += TABLE) {
        __m512i low = _mm512_maskz_set1_epi16(0xaaaaaaaa, w[0]);
        low = _mm512_mask_add_epi16(low, 0xcccccccc, low, _mm512_set1_epi16(w[1]));
        low = _mm512_mask_add_epi16(low, 0xf0f0f0f0, low, _mm512_set1_epi16(w[2]));
        low = _mm512_mask_add_epi16(low, 0xff00ff00, low, _mm512_set1_epi16(w[3]));
        low = _mm512_mask_add_epi16(low, 0xffff0000, low, _mm512_set1_epi16(w[4]));
        _mm512_store_si512(tables, low);
        _mm512_store_si512(tables + 64, _mm512_add_epi16(low, _mm512_set1_epi16(w[5])));
    }
}

// The loop of a tile, in assembly because compilers keep neither the registers nor the order: additions would take the
// ports of permutations, were they not in bunches and behind. zmm0-15: sums of (channel, vector); 16-19: patterns;
// 20-23: tables; 24-31: what was looked up.
#define LOAD(FROM, OFFSET, TO) "vmovdqu64 " #OFFSET FROM ", %%zmm" #TO "\n\t"
#define LOOK_UP(WIDTH, PATTERN, LOW, HIGH, TO)                      \
    "vmovdqa64 %%zmm" #PATTERN ", %%zmm" #TO "\n\t"                 \
    "vpermi2" WIDTH " %%zmm" #HIGH ", %%zmm" #LOW ", %%zmm" #TO "\n\t"
#define ADD(WIDTH, WHAT, TO) "vpadd" WIDTH " %%zmm" #WHAT ", %%zmm" #TO ", %%zmm" #TO "\n\t"
#define CHANNEL(WIDTH, OFFSET, LOW, HIGH, L0, L1, L2, L3)                                                           \
    LOAD("(%[tables])", OFFSET, LOW) LOAD("(%[tables])", OFFSET + 64, HIGH)                                         \
    LOOK_UP(WIDTH, 16, LOW, HIGH, L0) LOOK_UP(WIDTH, 17, LOW, HIGH, L1) LOOK_UP(WIDTH, 18, LOW, HIGH, L2)           \
    LOOK_UP(WIDTH, 19, LOW, HIGH, L3)
#define ADDS(WIDTH, L0, L1, L2, L3, S0, S1, S2, S3)                                                                 \
    ADD(WIDTH, L0, S0) ADD(WIDTH, L1, S1) ADD(WIDTH, L2, S2) ADD(WIDTH, L3, S3)
#define GROUP(WIDTH, BYTE, TABLES)                                                                                  \
    LOAD("(%[patterns])", BYTE, 16) LOAD("(%[patterns], %[stride])", BYTE, 17)                                      \
    LOAD("(%[patterns], %[stride], 2)", BYTE, 18) LOAD("(%[fourth])", BYTE, 19)                                     \
    CHANNEL(WIDTH, TABLES, 20, 21, 24, 25, 26, 27) CHANNEL(WIDTH, TABLES + 128, 22, 23, 28, 29, 30, 31)             \
    ADDS(WIDTH, 24, 25, 26, 27, 0, 1, 2, 3) CHANNEL(WIDTH, TABLES + 256, 20, 21, 24, 25, 26, 27)                    \
    ADDS(WIDTH, 28, 29, 30, 31, 4, 5, 6, 7) CHANNEL(WIDTH, TABLES + 384, 22, 23, 28, 29, 30, 31)                    \
    ADDS(WIDTH, 24, 25, 26, 27, 8, 9, 10, 11) ADDS(WIDTH, 28, 29, 30, 31, 12, 13, 14, 15)
#define ALL_SUMS(DO)                                                                                                \
    DO(0, 0) DO(64, 1) DO(128, 2) DO(192, 3) DO(256, 4) DO(320, 5) DO(384, 6) DO(448, 7) DO(512, 8) DO(576, 9)      \
    DO(640, 10) DO(704, 11) DO(768, 12) DO(832, 13) DO(896, 14) DO(960, 15)
#define LOAD_SUM(OFFSET, REGISTER) LOAD("(%[from])", OFFSET, REGISTER)
#define STORE_SUM(OFFSET, REGISTER) "vmovdqa64 %%zmm" #REGISTER ", " #OFFSET "(%[to])\n\t"
#define TILE_LOOP(WIDTH, BYTE0, BYTE1, BYTE2, BYTE3, ADVANCE)                                                       \
    asm volatile(ALL_SUMS(LOAD_SUM) ".p2align 5\n1:\n\t" GROUP(WIDTH, BYTE0, 0) GROUP(WIDTH, BYTE1, 512)            \
                     GROUP(WIDTH, BYTE2, 1024) GROUP(WIDTH, BYTE3, 1536)                                            \
                 "add $" #ADVANCE ", %[patterns]\n\tadd $" #ADVANCE ", %[fourth]\n\t"                               \
                 "add $2048, %[tables]\n\tdec %[count]\n\tjnz 1b\n\t" ALL_SUMS(STORE_SUM)                           \
                 : [patterns] "+r"(patterns), [fourth] "+r"(fourth), [tables] "+r"(tables), [count] "+r"(count)     \
                 : [stride] "r"(stride), [from] "r"(from), [to] "r"(to)                                             \
                 : "memory", "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9",  \
                   "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15", "xmm16", "xmm17", "xmm18", "xmm19",        \
                   "xmm20", "xmm21", "xmm22", "xmm23", "xmm24", "xmm25", "xmm26", "xmm27", "xmm28", "xmm29",        \
                   "xmm30", "xmm31")

alignas(64) const int32_t ZEROS[TILE * TILE * 16] = {};

AVX512_TARGET void add_tile(const uint8_t *patterns, int64_t stride, const char *tables, int64_t count, int32_t *sums,
                     bool fresh, Exact) {
    const uint8_t *fourth = patterns + 3 * stride;
    const int32_t *from = fresh ? ZEROS : sums;
    int32_t *to = sums;
    TILE_LOOP("d", 0, 1, 2, 3, 64);
}
AVX512_TARGET void add_tile(const uint8_t *patterns, int64_t stride, const char *tables, int64_t count, int32_t *sums,
                     bool fresh, Fast) {
    const uint8_t *fourth = patterns + 3 * stride;
    const int32_t *from = ZEROS;
    alignas(64) int16_t to[TILE * TILE * 32];  // a chunk's sums fit 16 bits; see `quantize` in packing.py
    TILE_LOOP("w", 0, 1, 64, 65, 128);
    if (fresh)
        for (int i = 0; i < TILE * TILE * 32; i++) sums[i] = to[i];
    else
        for (int i = 0; i < TILE * TILE * 32; i++) sums[i] += to[i];
}

// 16 x 16 transposition: rows[l * SLAB + i] = columns[i][l].
AVX512_TARGET void transpose(const int32_t *const *columns, int32_t *rows) {
    __m512i a[16], b[16];
    for (int i = 0; i < 16; i++) a[i] = _mm512_loadu_si512(columns[i]);
    for (int i = 0; i < 16; i += 2) {
        b[i] = _mm512_unpacklo_epi32(a[i], a[i + 1]);
        b[i + 1] = _mm512_unpackhi_epi32(a[i], a[i + 1]);
    }
    for (int i = 0; i < 16; i += 4)
        for (int j = 0; j < 2; j++) {
            a[i + 2 * j] = _mm512_unpacklo_epi64(b[i + j], b[i + j + 2]);
            a[i + 2 * j + 1] = _mm512_unpackhi_epi64(b[i + j], b[i + j + 2]);
        }
    for (int i = 0; i < 4; i++) {  // a[4 g + i] holds, in 128-bit part p, row 4 p + i of columns 4 g to 4 g + 3
        __m512i even0 = _mm512_shuffle_i32x4(a[i], a[i + 4], 0x88), odd0 = _mm512_shuffle_i32x4(a[i], a[i + 4], 0xdd);
        __m512i even1 = _mm512_shuffle_i32x4(a[i + 8], a[i + 12], 0x88);
        __m512i odd1 = _mm512_shuffle_i32x4(a[i + 8], a[i + 12], 0xdd);
        _mm512_storeu_si512(rows + SLAB * i, _mm512_shuffle_i32x4(even0, even1, 0x88));
        _mm512_storeu_si512(rows + SLAB * (i + 4), _mm512_shuffle_i32x4(odd0, odd1, 0x88));
        _mm512_storeu_si512(rows + SLAB * (i + 8), _mm512_shuffle_i32x4(even0, even1, 0xdd));
        _mm512_storeu_si512(rows + SLAB * (i + 12), _mm512_shuffle_i32x4(odd0, odd1, 0xdd));
    }
}

AVX512_TARGET void finish_avx512(const Call &c, const int32_t *rows, int64_t lanes, int64_t pixel, int count, int channel) {
    finish(c, rows, lanes * SLAB, SLAB, pixel, count, channel);
}

template <class P>
AVX512_TARGET void run(const Call &c, const Block &block, char *memory) {
    const Scratch s(c, block.first, block.last, memory, P());
    const int64_t stride = pattern_bytes<P>(c), all = steps<P>(c), chunk = chunk_steps<P>(c);
    const int tile = TILE * TILE * P::PIXELS, quads = SLAB / TILE;
    s.planes.fill(c);
    uint8_t *patterns = s.patterns;
    for (int64_t first = block.first; first < block.last; first += P::PIXELS, patterns += c.T * stride)
        make_patterns(c, s, first, block.last, patterns, stride, P());
    for (int channel = block.channel; channel < block.last_channel; channel += SLAB) {
        for (int quad = 0; quad < quads; quad++)
            for (int64_t at = 0; at < all; at += chunk) {
                int64_t count = all - at < chunk ? all - at : chunk;
                int64_t group = ((channel / TILE + quad) * all + at) * STEP;
                make_tables(static_cast<const typename P::Sum *>(c.weights) + group * TILE * P::BITS, count * STEP,
                            s.tables, P());
                for (int64_t v = 0; v < s.vectors; v += TILE)
                    add_tile(s.patterns + v * stride + at * step_bytes<P>(), stride, s.tables, count,
                             s.sums + (v / TILE * quads + quad) * tile, at == 0, P());
            }
        int64_t v = 0;
        for (int64_t first = block.first; first < block.last; first += P::PIXELS) {
            for (int64_t t = 0; t < c.T; t++, v++)
                for (int part = 0; part < P::PIXELS; part += 16) {
                    const int32_t *columns[16];
                    for (int i = 0; i < 16; i++)
                        columns[i] = s.sums + (v / TILE * quads + i / TILE) * tile +
                                     (i % TILE * TILE + v % TILE) * P::PIXELS + part;
                    transpose(columns, s.rows + (t * P::PIXELS + part) * SLAB);
                }
            int64_t left = block.last - first;
            finish_avx512(c, s.rows, P::PIXELS, first, int(left < P::PIXELS ? left : P::PIXELS), channel);
        }
    }
}

template <class P>
size_t scratch(const Call &c, int64_t count) {
    return Scratch(c, 0, count, nullptr, P()).size;
}

bool available() {
    __builtin_cpu_init();
    return HAS_AVX512;
}

}  // namespace

extern const Kernel AVX512_EXACT = {"avx512",  "avx512-fast",  "groups of 5 by 4 channels", available,
                                    in_blocks, scratch<Exact>, run<Exact>,                  Exact::PIXELS};
extern const Kernel AVX512_FAST = {"avx512-fast", nullptr,       "groups of 6 by 4 channels, 16 bits", available,
                                   in_blocks,     scratch<Fast>, run<Fast>,                            Fast::PIXELS};

}  // namespace spike_conv

#endif
