// 3x3 convolutions of stride 1 and padding 1 with 2.25 times fewer multiplications: Winograd's F(2x2, 3x3) (Lavin &
// Gray, 2016), for the forward pass, the gradient of the input and that of the weights.
//
// A tile is 2x2 pixels of the output and the 4x4 pixels of the input that they depend on. Input d, weights g and output
// y of a tile are related by y = A'[(G g G') * (B' d B)]A, where * multiplies 16 components apart; summed over channels
// each component is a matrix product over tiles and channels. The gradient of the weights is G'[(B' d B) * (A dy A')]G.
// Where the input is upsampled by two (nearest neighbour), the components with an index of 2 vanish: 9 are left.
//
// Channels are innermost, and multiples of 16. Sums are float32; bfloat16 operands are rounded after their transform.
// Nothing depends on the number of threads.

#include "platform.h"

#if defined(__x86_64__) && ((defined(__clang__) && __clang_major__ >= 9) || (!defined(__clang__) && __GNUC__ >= 10))
#define HAVE_WINOGRAD
#include <cpuid.h>
#include <immintrin.h>
#endif

// Mirrored by `WinogradCall` in winograd.py. H and W are those of the larger side where one is upsampled.
struct WinogradCall {
    int32_t type, threads;
    int32_t upsampled;  // forward: the input is half as large; gradient of the input: the output is, and sums pixels
    int32_t backward;   // the weights are used for the gradient of the input
    int64_t images, H, W, in_channels, out_channels;  // of the product: channels summed over, and those that result
    const void *x;        // [images, H, W, in_channels]
    const void *grad;     // gradient of the weights: that of the output, [images, H, W, out_channels]
    const float *weight;  // [out_channels, 3, 3, in_channels], or backward [in_channels, 3, 3, out_channels]
    const float *bias;    // [out_channels], or null
    void *transformed;    // scratch: 16 * in_channels * out_channels numbers
    void *out;            // [images, H, W, out_channels]
    float *partial;       // scratch: `sddpm_winograd_partial` numbers
    float *grad_weight;   // [out_channels, 3, 3, in_channels]
    float *grad_bias;     // [out_channels]
};

#ifdef HAVE_WINOGRAD

#define TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")))
#define INLINE_TARGET inline __attribute__((always_inline, target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")))

namespace {

// Products are over 32-bit words: one float, or two bfloat16 that are neighbours along the summed dimension.
struct Float {
    typedef float IO;
    static const int PER_WORD = 1;
    static INLINE_TARGET __m512 load(const float *p) { return _mm512_loadu_ps(p); }
    static INLINE_TARGET void store(float *p, __m512 v) { _mm512_storeu_ps(p, v); }
    static INLINE_TARGET void store_words(uint32_t *p, const __m512 &a, const __m512 &) { _mm512_storeu_ps(p, a); }
    static INLINE_TARGET __m512 multiply_add(__m512 a, __m512 b, __m512 c) { return _mm512_fmadd_ps(a, b, c); }
};

struct Brain {
    typedef BFloat16 IO;
    static const int PER_WORD = 2;
    static INLINE_TARGET __m512 load(const BFloat16 *p) {
        __m256i half = _mm256_loadu_si256(reinterpret_cast<const __m256i *>(p));
        return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
    }
    static INLINE_TARGET void store(BFloat16 *p, __m512 v) {
        _mm256_storeu_si256(reinterpret_cast<__m256i *>(p), (__m256i)_mm512_cvtneps_pbh(v));
    }
    static INLINE_TARGET void store_words(uint32_t *p, const __m512 &a, const __m512 &b) {  // a in the lower halves
        const __m512i order = _mm512_setr_epi32(
            0x100000, 0x110001, 0x120002, 0x130003, 0x140004, 0x150005, 0x160006, 0x170007, 0x180008, 0x190009, 0x1a000a,
            0x1b000b, 0x1c000c, 0x1d000d, 0x1e000e, 0x1f000f);
        _mm512_storeu_si512(p, _mm512_permutexvar_epi16(order, (__m512i)_mm512_cvtne2ps_pbh(b, a)));
    }
    static INLINE_TARGET __m512 multiply_add(__m512 a, __m512 b, __m512 c) {
        return _mm512_dpbf16_ps(c, (__m512bh)a, (__m512bh)b);
    }
};

const int VECTOR = 16, ROWS = 12, PANEL = 32, BLOCK = 64;

// The components that are needed: all, or those without an index of 2.
template <bool UPSAMPLED>
struct Components {
    static const int COUNT = UPSAMPLED ? 9 : 16;
    static constexpr int at(int i) { return UPSAMPLED ? 4 * (i / 3 + i / 6) + i % 3 + i % 3 / 2 : i; }
};

inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t tile_rows(const WinogradCall &c) { return (c.H + 1) / 2; }
inline int64_t tile_columns(const WinogradCall &c) { return (c.W + 1) / 2; }
inline int64_t tiles(const WinogradCall &c) { return c.images * tile_rows(c) * tile_columns(c); }

// The pixels of images, or something else beyond their borders.
template <class IO>
struct Pixels {
    IO *first, *outside;
    int64_t H, W, channels;
    int64_t factor;  // 2 if the images are half as large as H x W, and every pixel stands for four
    IO *row(int64_t image, int64_t y) const {
        if (y < 0 || y >= H) return nullptr;
        return first + (image * (H / factor) + y / factor) * (W / factor) * channels;
    }
    IO *pixel(IO *row, int64_t x) const { return !row || x < 0 || x >= W ? outside : row + x / factor * channels; }
};

// Where a tile's 4x4 pixels of the input lie, column by column, and its 2x2 pixels of the output.
template <class IO>
struct Tile {
    const IO *input[4][4];
    IO *output[2][2];
    bool adjacent;  // two columns of the input are those of the tile before
};

// Tiles from `first` to `last`, and empty ones up to `count` in all.
template <class IO>
void place_tiles(const WinogradCall &c, const Pixels<const IO> &input, const Pixels<IO> &output, int64_t first,
                 int64_t last, int64_t count, Tile<IO> *tile) {
    int64_t column = first % tile_columns(c), row = first / tile_columns(c) % tile_rows(c);
    int64_t image = first / (tile_columns(c) * tile_rows(c));
    const IO *in[4];
    IO *out[2];
    for (int64_t t = first; t < first + count; t++, tile++) {
        const bool inside = t < last;
        if (t == first || column == 0 || !inside) {
            for (int i = 0; i < 4; i++) in[i] = inside ? input.row(image, 2 * row - 1 + i) : nullptr;
            for (int i = 0; i < 2; i++) out[i] = inside ? output.row(image, 2 * row + i) : nullptr;
        }
        tile->adjacent = inside && t > first && column > 0;
        for (int j = 0; j < 4; j++)
            for (int i = 0; i < 4; i++)
                tile->input[j][i] = j < 2 && tile->adjacent ? tile[-1].input[j + 2][i]
                                                            : input.pixel(in[i], 2 * column - 1 + j);
        for (int i = 0; i < 2; i++)
            for (int j = 0; j < 2; j++) tile->output[i][j] = output.pixel(out[i], 2 * column + j);
        if (++column == tile_columns(c)) {
            column = 0;
            if (++row == tile_rows(c)) row = 0, image++;
        }
    }
}

// B' d: from four numbers to four.
INLINE_TARGET void input_transform(__m512 &a, __m512 &b, __m512 &c, __m512 &d) {
    __m512 first = a - c, last = b - d, sum = b + c;
    c = c - b, a = first, b = sum, d = last;
}

// B' d B of one tile after another, for 16 channels: columns that neighbours share are transformed along rows once.
template <class Number>
struct InputTransform {
    __m512 columns[4][4];
    INLINE_TARGET void load(const typename Number::IO *const pixels[4], int64_t channel, int j) {
        for (int i = 0; i < 4; i++) columns[j][i] = Number::load(pixels[i] + channel);
        input_transform(columns[j][0], columns[j][1], columns[j][2], columns[j][3]);
    }
    INLINE_TARGET void next(const Tile<typename Number::IO> &tile, int64_t channel, __m512 out[16]) {
        if (tile.adjacent) {
            for (int i = 0; i < 4; i++) columns[0][i] = columns[2][i], columns[1][i] = columns[3][i];
        } else {
            load(tile.input[0], channel, 0);
            load(tile.input[1], channel, 1);
        }
        load(tile.input[2], channel, 2);
        load(tile.input[3], channel, 3);
        for (int i = 0; i < 4; i++) {
            __m512 a = columns[0][i], b = columns[1][i], c = columns[2][i], d = columns[3][i];
            input_transform(a, b, c, d);
            out[4 * i] = a, out[4 * i + 1] = b, out[4 * i + 2] = c, out[4 * i + 3] = d;
        }
    }
};

// out[row][column] (+)= sum over k of left[row][k] * right[k][column], rows and columns counted in words and lanes.
template <class Number, int N, int COLUMNS, bool ADD>
INLINE_TARGET void multiply(const uint32_t *left, int64_t row_stride, int64_t k_stride, const uint32_t *right,
                            int64_t right_stride, int64_t K, float *out, int64_t out_stride) {
    __m512 sums[N][COLUMNS];
    for (int r = 0; r < N; r++)
        for (int j = 0; j < COLUMNS; j++)
            sums[r][j] = ADD ? _mm512_loadu_ps(out + r * out_stride + j * VECTOR) : _mm512_setzero_ps();
    for (int64_t k = 0; k < K; k++) {
        __m512 vectors[COLUMNS];
        for (int j = 0; j < COLUMNS; j++) vectors[j] = _mm512_loadu_ps(right + k * right_stride + j * VECTOR);
#pragma GCC unroll 12
        for (int r = 0; r < N; r++) {
            __m512 word = _mm512_castsi512_ps(_mm512_set1_epi32(int(left[r * row_stride + k * k_stride])));
            for (int j = 0; j < COLUMNS; j++) sums[r][j] = Number::multiply_add(word, vectors[j], sums[r][j]);
        }
    }
    for (int r = 0; r < N; r++)
        for (int j = 0; j < COLUMNS; j++) _mm512_storeu_ps(out + r * out_stride + j * VECTOR, sums[r][j]);
}

// G g G' of 3x3 weights.
INLINE_TARGET void weight_transform(const __m512 g[3][3], __m512 out[4][4]) {
    const __m512 half = _mm512_set1_ps(0.5f);
    __m512 t[4][3];
    for (int j = 0; j < 3; j++) {
        __m512 even = (g[0][j] + g[2][j]) * half, odd = g[1][j] * half;
        t[0][j] = g[0][j], t[1][j] = even + odd, t[2][j] = even - odd, t[3][j] = g[2][j];
    }
    for (int i = 0; i < 4; i++) {
        __m512 even = (t[i][0] + t[i][2]) * half, odd = t[i][1] * half;
        out[i][0] = t[i][0], out[i][1] = even + odd, out[i][2] = even - odd, out[i][3] = t[i][2];
    }
}

// Transformed weights lie as [panel of out_channels][component][in_channels][channels of the panel]. A unit is a panel.
template <class Number>
TARGET void transform_weights(const void *call, int64_t panel, int64_t end, void *) {
    const WinogradCall &c = *static_cast<const WinogradCall *>(call);
    const int64_t words = c.in_channels / Number::PER_WORD;
    const __m512i steps = _mm512_mullo_epi32(_mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15),
                                             _mm512_set1_epi32(int(9 * c.in_channels)));
    for (; panel < end; panel++) {
        int64_t first = panel * PANEL, width = least(PANEL, c.out_channels - first);
        uint32_t *to = static_cast<uint32_t *>(c.transformed) + first * 16 * words;
        for (int64_t word = 0; word < words; word++)
            for (int64_t lane = 0; lane < width; lane += VECTOR) {
                __m512 out[Number::PER_WORD][4][4];
                for (int half = 0; half < Number::PER_WORD; half++) {
                    int64_t in = word * Number::PER_WORD + half, channel = first + lane;
                    __m512 g[3][3];
                    for (int tap = 0; tap < 9; tap++) {
                        if (c.backward)  // turned by half a circle
                            g[2 - tap / 3][2 - tap % 3] =
                                _mm512_loadu_ps(c.weight + (in * 9 + tap) * c.out_channels + channel);
                        else
                            g[tap / 3][tap % 3] =
                                _mm512_i32gather_ps(steps, c.weight + (channel * 9 + tap) * c.in_channels + in, 4);
                    }
                    weight_transform(g, out[half]);
                }
                for (int i = 0; i < 16; i++)
                    Number::store_words(to + (i * words + word) * width + lane, out[0][i / 4][i % 4],
                                        out[Number::PER_WORD - 1][i / 4][i % 4]);
            }
    }
}

template <class T>
inline T *aligned(void *scratch) {
    return reinterpret_cast<T *>((reinterpret_cast<uintptr_t>(scratch) + 63) / 64 * 64);
}

// A'm A + bias of a tile and 16 channels, or where the pixels of a tile are summed, their sum.
template <class Number, bool UPSAMPLED>
INLINE_TARGET void write_tile(const Tile<typename Number::IO> &tile, bool summed, const float *products, int64_t stride,
                              __m512 bias, int64_t channel) {
    __m512 m[16], s[2][4];
    for (int i = 0; i < 16; i++) m[i] = _mm512_setzero_ps();
#pragma GCC unroll 16
    for (int i = 0; i < Components<UPSAMPLED>::COUNT; i++)
        m[Components<UPSAMPLED>::at(i)] = _mm512_loadu_ps(products + Components<UPSAMPLED>::at(i) * stride);
    for (int j = 0; j < 4; j++) s[0][j] = m[j] + m[4 + j] + m[8 + j], s[1][j] = m[4 + j] - m[8 + j] - m[12 + j];
    if (UPSAMPLED && summed) {
        for (int j = 0; j < 4; j++) s[0][j] = s[0][j] + s[1][j];
        Number::store(tile.output[0][0] + channel, s[0][0] + s[0][1] + s[0][1] - s[0][3]);
        return;
    }
    for (int i = 0; i < 2; i++) {
        if (tile.output[i][0]) Number::store(tile.output[i][0] + channel, s[i][0] + s[i][1] + s[i][2] + bias);
        if (tile.output[i][1]) Number::store(tile.output[i][1] + channel, s[i][1] - s[i][2] - s[i][3] + bias);
    }
}

// Tiles that are transformed and multiplied together, so that they stay in cache.
const int AT_ONCE = 24;

inline size_t convolve_scratch(const WinogradCall &c) {
    return size_t(16 * AT_ONCE * (c.in_channels + PANEL) + c.in_channels) * 4 + 64;
}

// A unit is AT_ONCE tiles.
template <class Number, bool UPSAMPLED>
TARGET void convolve(const void *call, int64_t unit, int64_t end, void *scratch) {
    typedef typename Number::IO IO;
    typedef Components<UPSAMPLED> Used;
    const WinogradCall &c = *static_cast<const WinogradCall *>(call);
    const int64_t words = c.in_channels / Number::PER_WORD;
    const bool summed = UPSAMPLED && c.backward;
    float *products = aligned<float>(scratch);                                // [16][AT_ONCE][PANEL]
    IO *transformed = reinterpret_cast<IO *>(products + 16 * AT_ONCE * PANEL);  // [16][AT_ONCE][in_channels]
    IO *zeros = transformed + 16 * AT_ONCE * c.in_channels;
    std::memset(zeros, 0, size_t(c.in_channels) * sizeof(IO));
    const Pixels<const IO> input = {static_cast<const IO *>(c.x), zeros, c.H, c.W, c.in_channels, UPSAMPLED && !summed ? 2 : 1};
    const Pixels<IO> output = {static_cast<IO *>(c.out), nullptr, c.H, c.W, c.out_channels, summed ? 2 : 1};
    Tile<IO> tile[AT_ONCE];
    for (; unit < end; unit++) {
        const int64_t first = unit * AT_ONCE, count = least(AT_ONCE, tiles(c) - first);
        const int64_t rows = (count + ROWS - 1) / ROWS * ROWS;
        place_tiles(c, input, output, first, first + count, rows, tile);
        for (int64_t channel = 0; channel < c.in_channels; channel += VECTOR) {
            InputTransform<Number> transform;
            for (int64_t t = 0; t < rows; t++) {
                __m512 d[16];
                transform.next(tile[t], channel, d);
                IO *to = transformed + t * c.in_channels + channel;
#pragma GCC unroll 16
                for (int i = 0; i < Used::COUNT; i++)
                    Number::store(to + Used::at(i) * AT_ONCE * c.in_channels, d[Used::at(i)]);
            }
        }
        for (int64_t panel = 0; panel < c.out_channels; panel += PANEL) {
            const int64_t width = least(PANEL, c.out_channels - panel);
            const uint32_t *weight = static_cast<const uint32_t *>(c.transformed) + panel * 16 * words;
            for (int i = 0; i < Used::COUNT; i++)
                for (int64_t t = 0; t < rows; t += ROWS) {
                    const int64_t place = Used::at(i) * AT_ONCE + t;
                    const uint32_t *left = reinterpret_cast<const uint32_t *>(transformed + place * c.in_channels);
                    const uint32_t *right = weight + Used::at(i) * words * width;
                    float *out = products + place * PANEL;
                    if (width == PANEL)
                        multiply<Number, ROWS, 2, false>(left, words, 1, right, width, words, out, PANEL);
                    else
                        multiply<Number, ROWS, 1, false>(left, words, 1, right, width, words, out, PANEL);
                }
            for (int64_t lane = 0; lane < width; lane += VECTOR) {
                const int64_t channel = panel + lane;
                __m512 bias = c.bias ? _mm512_loadu_ps(c.bias + channel) : _mm512_setzero_ps();
                for (int64_t t = 0; t < count; t++)
                    write_tile<Number, UPSAMPLED>(tile[t], summed, products + t * PANEL + lane, AT_ONCE * PANEL, bias,
                                                  channel);
            }
        }
    }
}

// The gradient of the weights is summed over chunks of tiles apart, for blocks of channels apart.
const int DEPTH = 48;  // words of tiles that are transformed and multiplied together

inline int64_t blocks(int64_t channels) { return (channels + BLOCK - 1) / BLOCK; }
inline int64_t chunks(const WinogradCall &c) {
    int64_t wanted = 16 / (blocks(c.in_channels) * blocks(c.out_channels)), most = tiles(c) / (8 * DEPTH);
    int64_t count = wanted < most ? wanted : most;
    return count < 1 ? 1 : count;
}
inline int64_t partial_size(const WinogradCall &c) { return (16 * c.in_channels + 1) * c.out_channels; }

// A dy A' of a tile, for 16 channels; adds dy to `sum`.
template <class Number>
INLINE_TARGET void output_gradient(const Tile<typename Number::IO> &tile, int64_t channel, __m512 out[16], __m512 &sum) {
    const __m512 zero = _mm512_setzero_ps();
    __m512 g[2][2], t[4][2];
    for (int i = 0; i < 4; i++) {
        g[i / 2][i % 2] = Number::load(tile.output[i / 2][i % 2] + channel);
        sum = sum + g[i / 2][i % 2];
    }
    for (int j = 0; j < 2; j++)
        t[0][j] = g[0][j], t[1][j] = g[0][j] + g[1][j], t[2][j] = g[0][j] - g[1][j], t[3][j] = zero - g[1][j];
    for (int i = 0; i < 4; i++)
        out[4 * i] = t[i][0], out[4 * i + 1] = t[i][0] + t[i][1], out[4 * i + 2] = t[i][0] - t[i][1],
               out[4 * i + 3] = zero - t[i][1];
}

inline size_t gradient_scratch(const WinogradCall &c) {
    int64_t most = c.in_channels > c.out_channels ? c.in_channels : c.out_channels;
    return size_t(2 * 16 * DEPTH * BLOCK + 16 * BLOCK * BLOCK + most) * 4 + 64;
}

// A unit is a block of in_channels, a block of out_channels and a chunk of tiles. partial[chunk]: gradients of the
// transformed weights, [16][out_channels][in_channels], and of the bias.
template <class Number, bool UPSAMPLED>
TARGET void weight_gradient(const void *call, int64_t unit, int64_t end, void *scratch) {
    typedef typename Number::IO IO;
    typedef Components<UPSAMPLED> Used;
    const int P = Number::PER_WORD;
    const WinogradCall &c = *static_cast<const WinogradCall *>(call);
    const int64_t in_blocks = blocks(c.in_channels), out_blocks = blocks(c.out_channels);
    float *sums = aligned<float>(scratch);                                     // [16][BLOCK of out][BLOCK of in]
    uint32_t *left = reinterpret_cast<uint32_t *>(sums + 16 * BLOCK * BLOCK);  // gradients [16][DEPTH][BLOCK of out]
    uint32_t *right = left + 16 * DEPTH * BLOCK;                               // inputs [16][DEPTH][BLOCK of in]
    IO *zeros = reinterpret_cast<IO *>(right + 16 * DEPTH * BLOCK);
    std::memset(zeros, 0, size_t(c.in_channels > c.out_channels ? c.in_channels : c.out_channels) * sizeof(IO));
    const Pixels<const IO> input = {static_cast<const IO *>(c.x), zeros, c.H, c.W, c.in_channels, UPSAMPLED ? 2 : 1};
    const Pixels<IO> grad = {static_cast<IO *>(const_cast<void *>(c.grad)), zeros, c.H, c.W, c.out_channels, 1};
    Tile<IO> tile[DEPTH * P];
    for (; unit < end; unit++) {
        const int64_t in = unit % in_blocks * BLOCK, out = unit / in_blocks % out_blocks * BLOCK;
        const int64_t chunk = unit / (in_blocks * out_blocks), share = (tiles(c) + chunks(c) - 1) / chunks(c);
        const int64_t first = chunk * share, last = least(first + share, tiles(c));
        const int64_t ins = least(BLOCK, c.in_channels - in), outs = least(BLOCK, c.out_channels - out);
        float *partial = c.partial + chunk * partial_size(c), *grad_bias = partial + 16 * c.in_channels * c.out_channels;
        std::memset(sums, 0, 16 * BLOCK * BLOCK * sizeof(float));
        __m512 bias[BLOCK / VECTOR];
        for (int i = 0; i < BLOCK / VECTOR; i++) bias[i] = _mm512_setzero_ps();
        for (int64_t at = first; at < last; at += DEPTH * P) {
            const int64_t depth = (least(DEPTH * P, last - at) + P - 1) / P;
            place_tiles(c, input, grad, at, last, depth * P, tile);
            for (int64_t lane = 0; lane < ins; lane += VECTOR) {
                InputTransform<Number> transform;
                for (int64_t k = 0; k < depth; k++) {
                    __m512 d[P][16];
                    for (int half = 0; half < P; half++) transform.next(tile[k * P + half], in + lane, d[half]);
#pragma GCC unroll 16
                    for (int i = 0; i < Used::COUNT; i++)
                        Number::store_words(right + (Used::at(i) * DEPTH + k) * BLOCK + lane, d[0][Used::at(i)],
                                            d[P - 1][Used::at(i)]);
                }
            }
            for (int64_t lane = 0; lane < outs; lane += VECTOR)
                for (int64_t k = 0; k < depth; k++) {
                    __m512 d[P][16];
                    for (int half = 0; half < P; half++)
                        output_gradient<Number>(tile[k * P + half], out + lane, d[half], bias[lane / VECTOR]);
#pragma GCC unroll 16
                    for (int i = 0; i < Used::COUNT; i++)
                        Number::store_words(left + (Used::at(i) * DEPTH + k) * BLOCK + lane, d[0][Used::at(i)],
                                            d[P - 1][Used::at(i)]);
                }
            for (int i = 0; i < Used::COUNT; i++) {
                const uint32_t *l = left + Used::at(i) * DEPTH * BLOCK, *r = right + Used::at(i) * DEPTH * BLOCK;
                float *s = sums + Used::at(i) * BLOCK * BLOCK;
                for (int64_t lane = 0; lane < ins; lane += PANEL)
                    for (int64_t row = 0; row < outs; row += 8) {
                        float *to = s + row * BLOCK + lane;
                        if (ins - lane >= PANEL)
                            multiply<Number, 8, 2, true>(l + row, 1, BLOCK, r + lane, BLOCK, depth, to, BLOCK);
                        else
                            multiply<Number, 8, 1, true>(l + row, 1, BLOCK, r + lane, BLOCK, depth, to, BLOCK);
                    }
            }
        }
        for (int i = 0; i < 16; i++)
            for (int64_t row = 0; row < outs; row++)
                std::memcpy(partial + (i * c.out_channels + out + row) * c.in_channels + in,
                            sums + (i * BLOCK + row) * BLOCK, size_t(ins) * sizeof(float));
        if (in == 0)
            for (int64_t lane = 0; lane < outs; lane += VECTOR)
                _mm512_storeu_ps(grad_bias + out + lane, bias[lane / VECTOR]);
    }
}

// The sum over chunks, transformed back. A unit is one of out_channels.
TARGET void weight_gradient_sum(const void *call, int64_t row, int64_t end, void *) {
    const WinogradCall &c = *static_cast<const WinogradCall *>(call);
    const __m512 half = _mm512_set1_ps(0.5f);
    for (; row < end; row++) {
        float bias = 0;
        for (int64_t chunk = 0; chunk < chunks(c); chunk++)
            bias += c.partial[chunk * partial_size(c) + 16 * c.in_channels * c.out_channels + row];
        c.grad_bias[row] = bias;
        for (int64_t lane = 0; lane < c.in_channels; lane += VECTOR) {
            __m512 u[4][4], t[3][4];
            for (int i = 0; i < 16; i++) {
                const float *from = c.partial + (i * c.out_channels + row) * c.in_channels + lane;
                __m512 sum = _mm512_loadu_ps(from);
                for (int64_t chunk = 1; chunk < chunks(c); chunk++)
                    sum = sum + _mm512_loadu_ps(from + chunk * partial_size(c));
                u[i / 4][i % 4] = sum;
            }
            for (int j = 0; j < 4; j++) {
                __m512 sum = (u[1][j] + u[2][j]) * half, difference = (u[1][j] - u[2][j]) * half;
                t[0][j] = u[0][j] + sum, t[1][j] = difference, t[2][j] = sum + u[3][j];
            }
            float *to = c.grad_weight + row * 9 * c.in_channels + lane;
            for (int i = 0; i < 3; i++) {
                __m512 sum = (t[i][1] + t[i][2]) * half, difference = (t[i][1] - t[i][2]) * half;
                _mm512_storeu_ps(to + (3 * i) * c.in_channels, t[i][0] + sum);
                _mm512_storeu_ps(to + (3 * i + 1) * c.in_channels, difference);
                _mm512_storeu_ps(to + (3 * i + 2) * c.in_channels, sum + t[i][3]);
            }
        }
    }
}

}  // namespace

// Whether this machine can convolve numbers of a type, and gains by it: matrix units do better on bfloat16.
EXPORT int sddpm_winograd_supported(int32_t type) {
    if (instruction_set < SET_avx512 || type == FLOAT64) return 0;
    if (type == FLOAT32) return 1;
    unsigned a = 0, b = 0, c = 0, d = 0;
    __get_cpuid_count(7, 0, &a, &b, &c, &d);
    bool matrix_units = d >> 22 & 1;  // AMX-BF16
    __get_cpuid_count(7, 1, &a, &b, &c, &d);
    return !matrix_units && (a >> 5 & 1);  // AVX512-BF16
}

// out: the convolution of x, or with `backward` the gradient of its input from that of its output, which is then x.
EXPORT int sddpm_winograd_convolve(const WinogradCall *call, Parallel parallel) {
    const WinogradCall &c = *call;
    const bool brain = c.type == BFLOAT16;
    Task transform = brain ? transform_weights<Brain> : transform_weights<Float>;
    Task task = c.upsampled ? (brain ? convolve<Brain, true> : convolve<Float, true>)
                            : (brain ? convolve<Brain, false> : convolve<Float, false>);
    int64_t panels = (c.out_channels + PANEL - 1) / PANEL, units = (tiles(c) + AT_ONCE - 1) / AT_ONCE;
    return !run(transform, call, panels, 1, 0, c.threads, parallel) ||
           !run(task, call, units, 1, convolve_scratch(c), c.threads, parallel);
}

EXPORT int64_t sddpm_winograd_partial(const WinogradCall *call) { return chunks(*call) * partial_size(*call); }

// grad_weight, grad_bias: from x and the gradient of its convolution.
EXPORT int sddpm_winograd_weight_gradient(const WinogradCall *call, Parallel parallel) {
    const WinogradCall &c = *call;
    const bool brain = c.type == BFLOAT16;
    Task task = c.upsampled ? (brain ? weight_gradient<Brain, true> : weight_gradient<Float, true>)
                            : (brain ? weight_gradient<Brain, false> : weight_gradient<Float, false>);
    int64_t units = blocks(c.in_channels) * blocks(c.out_channels) * chunks(c);
    return !run(task, call, units, 1, gradient_scratch(c), c.threads, parallel) ||
           !run(weight_gradient_sum, call, c.out_channels, 8, 0, c.threads, parallel);
}

#else

EXPORT int sddpm_winograd_supported(int32_t) { return 0; }

#endif
