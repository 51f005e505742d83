// Convolutions over real values with a fixed order of summation: taps by rows and columns, channels within a tap. Every
// output is the same sum whatever block of pixels it is computed in, so nothing depends on the size of a batch, on
// threads, or on the instruction set, as long as that has fused multiply-adds: these sums alone are compiled with them.

#include "dense_conv.h"

#if defined(__clang__)
#pragma clang fp contract(fast)
#elif defined(__GNUC__)
#pragma GCC optimize("fp-contract=fast")
#endif

namespace {

const int PANEL = 16;      // output channels of a panel of weights
const int MAX_TAPS = 9;    // also the most inputs of a 1x1 filter
const int RUN = 64;        // channels of a tap that are summed before the sums are added up
const int CLAIM = 96;      // pixels that share a panel of weights while it is in cache

struct Shape {
    int taps;
    int64_t channels[MAX_TAPS], depth;
    explicit Shape(const ConvCall &c) : taps(c.inputs > 1 ? c.inputs : int(c.size * c.size)), depth(0) {
        for (int i = 0; i < taps; i++) depth += channels[i] = c.channels[c.inputs > 1 ? i : 0];
    }
};

// Where the channels under each tap lie for one output pixel; outside the image they are zero.
INLINE void find_taps(const ConvCall &c, int64_t pixel, const float **taps) {
    if (c.size == 1) {
        for (int i = 0; i < c.inputs; i++) taps[i] = c.x[i] + pixel * c.channels[i];
        return;
    }
    int64_t x = pixel % c.W, y = pixel / c.W % c.H, radius = c.size / 2;
    for (int64_t v = -radius; v <= radius; v++)
        for (int64_t u = -radius; u <= radius; u++) {
            bool inside = y + v >= 0 && y + v < c.H && x + u >= 0 && x + u < c.W;
            *taps++ = inside ? c.x[0] + (pixel + v * c.W + u) * c.channels[0] : c.zeros;
        }
}

#if defined(__GNUC__)
typedef float Lanes __attribute__((vector_size(64)));
#define UNROLLED _Pragma("GCC unroll 8")
#else
struct Lanes {
    float lane[PANEL];
    Lanes &operator+=(const Lanes &other) {
        for (int j = 0; j < PANEL; j++) lane[j] += other.lane[j];
        return *this;
    }
};
inline Lanes operator*(float x, Lanes y) {
    for (int j = 0; j < PANEL; j++) y.lane[j] *= x;
    return y;
}
#define UNROLLED
#endif

INLINE void load_lanes(Lanes &lanes, const float *from) { std::memcpy(&lanes, from, sizeof(lanes)); }

// ROWS pixels by WIDTH panels of output channels. Runs of channels are summed in registers and then added up, which
// halves the rounding errors of one long sum.
template <int ROWS, int WIDTH>
INLINE void tile(const ConvCall &c, const Shape &shape, const float *const *taps, int64_t pixel, int64_t channel) {
    Lanes totals[ROWS][WIDTH] = {};
    const float *w = c.weight + channel * shape.depth;
    const int64_t panel = shape.depth * PANEL;
    for (int tap = 0; tap < shape.taps; tap++) {
        const float *x[ROWS];
        UNROLLED for (int r = 0; r < ROWS; r++) x[r] = taps[r * MAX_TAPS + tap];
        for (int64_t i = 0; i < shape.channels[tap];) {
            Lanes sums[ROWS][WIDTH] = {};
            for (int64_t end = i + RUN < shape.channels[tap] ? i + RUN : shape.channels[tap]; i < end; i++, w += PANEL) {
                Lanes weights[WIDTH];
                UNROLLED for (int p = 0; p < WIDTH; p++) load_lanes(weights[p], w + p * panel);
                UNROLLED for (int r = 0; r < ROWS; r++)
                    UNROLLED for (int p = 0; p < WIDTH; p++) sums[r][p] += x[r][i] * weights[p];
            }
            UNROLLED for (int r = 0; r < ROWS; r++)
                UNROLLED for (int p = 0; p < WIDTH; p++) totals[r][p] += sums[r][p];
        }
    }
    int64_t per_step = c.images * c.H * c.W;
    UNROLLED for (int r = 0; r < ROWS; r++) {
        int64_t t = (pixel + r) / per_step;
        UNROLLED for (int p = 0; p < WIDTH; p++) {
            int64_t first = channel + p * PANEL, left = c.out_channels - first;
            if (left <= 0) break;
            Lanes out = c.scale[t * c.scale_stride] * totals[r][p], bias;
            load_lanes(bias, c.bias + t * c.bias_stride + first);
            out += bias;
            size_t bytes = sizeof(float) * size_t(left < PANEL ? left : PANEL);
            std::memcpy(c.out + (pixel + r) * c.out_channels + first, &out, bytes);
        }
    }
}

template <int ROWS, int WIDTH>
INLINE void tiles(const ConvCall &c, const Shape &shape, const float *const *taps, int64_t first, int64_t end,
                  int64_t channel) {
    int64_t pixel = first;
    for (; pixel + ROWS <= end; pixel += ROWS, taps += ROWS * MAX_TAPS) tile<ROWS, WIDTH>(c, shape, taps, pixel, channel);
    for (; pixel < end; pixel++, taps += MAX_TAPS) tile<1, WIDTH>(c, shape, taps, pixel, channel);
}

// Pixels [first, end), at most CLAIM; ROWS by WIDTH registers of sums.
template <int ROWS, int WIDTH>
INLINE void convolve(const ConvCall &c, int64_t first, int64_t end) {
    const float *taps[CLAIM * MAX_TAPS];
    const Shape shape(c);
    for (int64_t pixel = first; pixel < end; pixel++) find_taps(c, pixel, taps + (pixel - first) * MAX_TAPS);
    int64_t channel = 0;
    for (; channel + (WIDTH - 1) * PANEL < c.out_channels; channel += WIDTH * PANEL)
        tiles<ROWS, WIDTH>(c, shape, taps, first, end, channel);
    if (WIDTH > 2)
        for (; channel + PANEL < c.out_channels; channel += 2 * PANEL) tiles<ROWS, 2>(c, shape, taps, first, end, channel);
    for (; channel < c.out_channels; channel += PANEL) tiles<ROWS, 1>(c, shape, taps, first, end, channel);
}

// Registers for sums: rows of pixels by panels.
#define REGISTERS(A, B, C, NAME, TARGET, LABEL, AVAILABLE, ROWS, PANELS) ROWS_##NAME = ROWS, WIDTH_##NAME = PANELS,
enum { INSTRUCTION_SETS(REGISTERS, , , ) };

#define CONVOLVE(NAME, TARGET)                                                                  \
    template <class IO, class R>                                                                \
    TARGET void convolve_##NAME(const void *call, int64_t first, int64_t end, void *) {         \
        convolve<ROWS_##NAME, WIDTH_##NAME>(*static_cast<const ConvCall *>(call), first, end);  \
    }
FOR_EVERY_INSTRUCTION_SET(CONVOLVE)

}  // namespace

// Returns 0. `parallel` as in platform.h.
EXPORT int sddpm_dense_conv(const ConvCall *call, Parallel parallel) {
    int64_t pixels = call->steps * call->images * call->H * call->W;
    return !run(BY_INSTRUCTION_SET(convolve, float, float), call, pixels, CLAIM, 0, call->threads, parallel);
}
