// Batch norm in training, channels innermost, alone and together with what follows it: a neuron or an addition.
//
// Numbers x [T, images, pixels, channels] are dense in memory. Normalised, they are x * scale + shift with a scale per
// channel and a shift per channel (or per image and channel, which is how an embedding is added before the neuron).
// Sums over the batch are taken in units that do not depend on the number of threads, in double precision from
// unit to unit, so the result does not depend on it either.

#include "neuron.h"

// What a call computes. Mirrored by `NormCall` in norm.py. R: float for bfloat16 and float, else double.
struct NormCall {
    int32_t type, threads;
    int64_t T, images, pixels, channels;
    int64_t shift_stride;  // from one image's shift to the next: channels, or 0 if all have the same
    Neuron neuron;
    const void *x;       // [T, images, pixels, channels], as are those down to spikes
    const void *add;     // what is added after the norm, or null
    const void *grad;    // a gradient that comes in
    void *out;           // what the call is for: spikes, normalised numbers or a gradient; a gradient may replace `grad`
    void *spikes;        // backward: where the recomputed spikes go, or null
    const void *mean;    // R [channels]
    const void *scale;   // R [channels]
    const void *shift;   // R [images or 1, channels]
    const void *factor;  // R [2, channels], of `sddpm_norm_input_gradient`
    double *sums;        // double [2, channels]
    double *image_sums;  // double [images, channels]
    double *grad_leak;   // backward of PLIF: gradient of leak, or null
};

namespace {

// Elements that go through all time steps together; elements of a unit of work; elements whose mean is taken before
// their deviations from it (both passes find them in cache).
const int TILE = 256, UNIT = 1 << 16, PART = 1 << 14;

INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

// A range of channels and as many rows of them as fill a tile: loops over a tile have one length, whatever the number
// of channels. Values per channel are repeated for every row of the tile.
struct Slice {
    int64_t first;
    int channels, rows;
    Slice(int64_t first, int64_t all)
        : first(first), channels(int(least(all - first, TILE))), rows(all < TILE ? int(TILE / all) : 1) {}
    int elements(int64_t rows_left) const { return channels * int(least(rows, rows_left)); }
};

template <class R>
INLINE void repeat(R *to, const void *from, const Slice &slice) {
    const R *values = static_cast<const R *>(from) + slice.first;
    for (int row = 0; row < slice.rows; row++)
        for (int i = 0; i < slice.channels; i++) to[row * slice.channels + i] = values[i];
}

// Adds up what the rows of a tile gathered.
template <class R>
INLINE void fold(double *to, const R *tile, const Slice &slice) {
    for (int row = 0; row < slice.rows; row++)
        for (int i = 0; i < slice.channels; i++) to[slice.first + i] += double(tile[row * slice.channels + i]);
}

template <class R>
INLINE void clear(R *tile) {
    for (int i = 0; i < TILE; i++) tile[i] = 0;
}

template <class IO>
INLINE IO *at(const void *base, int64_t first) {
    return base ? static_cast<IO *>(const_cast<void *>(base)) + first : nullptr;
}

// Rows are the pixels of all images at all time steps; a unit has `unit_rows` of them.
INLINE int64_t all_rows(const NormCall &c) { return c.T * c.images * c.pixels; }
INLINE int64_t unit_rows(const NormCall &c) { return UNIT > c.channels ? UNIT / c.channels : 1; }
INLINE int64_t units(const NormCall &c) { return (all_rows(c) + unit_rows(c) - 1) / unit_rows(c); }

// Where there are neurons a unit lies within one image and has all its time steps.
INLINE int64_t image_unit_rows(const NormCall &c) {
    int64_t rows = UNIT / (c.channels * c.T);
    return rows < 1 ? 1 : least(rows, c.pixels);
}
INLINE int64_t units_of_image(const NormCall &c) { return (c.pixels + image_unit_rows(c) - 1) / image_unit_rows(c); }

// Mean and summed squared deviations of `count` numbers a channel, merged into those of `before` others (Chan et al.,
// 1983).
INLINE void merge(double *mean, double *deviation, int64_t before, const double *new_mean, const double *new_deviation,
                  int64_t count, int64_t channels) {
    double share = double(count) / double(before + count), weight = double(before) * share;
    for (int64_t i = 0; i < channels; i++) {
        double d = new_mean[i] - mean[i];
        mean[i] += d * share;
        deviation[i] += new_deviation[i] + d * d * weight;
    }
}

template <class IO, class R>
INLINE void moments_of_rows(const IO *x, int64_t rows, int64_t channels, double *mean, double *deviation) {
    for (int64_t i = 0; i < channels; i++) mean[i] = deviation[i] = 0;
    for (int64_t first = 0; first < channels; first += TILE) {
        Slice slice(first, channels);
        R sum[TILE], centre[TILE];
        clear(sum);
        for (int64_t row = 0; row < rows; row += slice.rows) {
            const IO *from = x + row * channels + first;
            int n = slice.elements(rows - row);
            LANES for (int i = 0; i < n; i++) sum[i] += R(load(from[i]));
        }
        fold(mean, sum, slice);
        for (int i = 0; i < slice.channels; i++) centre[i] = R(mean[first + i] /= double(rows));
        for (int i = slice.channels; i < slice.channels * slice.rows; i++) centre[i] = centre[i - slice.channels];
        clear(sum);
        for (int64_t row = 0; row < rows; row += slice.rows) {
            const IO *from = x + row * channels + first;
            int n = slice.elements(rows - row);
            LANES for (int i = 0; i < n; i++) {
                R d = R(load(from[i])) - centre[i];
                sum[i] += d * d;
            }
        }
        fold(deviation, sum, slice);
    }
}

// sums[unit]: mean and summed squared deviations.
template <class IO, class R>
INLINE void moments_units(const NormCall &c, int64_t unit, int64_t end, double *scratch) {
    int64_t part = PART > c.channels ? PART / c.channels : 1;
    for (; unit < end; unit++) {
        int64_t first = unit * unit_rows(c), last = least(first + unit_rows(c), all_rows(c));
        double *sums = c.sums + unit * 2 * c.channels;
        for (int64_t i = 0; i < 2 * c.channels; i++) sums[i] = 0;
        for (int64_t row = first; row < last; row += part) {
            int64_t rows = least(part, last - row);
            moments_of_rows<IO, R>(at<const IO>(c.x, row * c.channels), rows, c.channels, scratch, scratch + c.channels);
            merge(sums, sums + c.channels, row - first, scratch, scratch + c.channels, rows, c.channels);
        }
    }
}

template <class IO, class R>
INLINE void apply_units(const NormCall &c, int64_t unit, int64_t end, void *) {
    int64_t row = unit * unit_rows(c), last = least(end * unit_rows(c), all_rows(c));
    for (int64_t first = 0; first < c.channels; first += TILE) {
        Slice slice(first, c.channels);
        R scale[TILE], shift[TILE];
        repeat(scale, c.scale, slice);
        repeat(shift, c.shift, slice);
        for (int64_t r = row; r < last; r += slice.rows) {
            int64_t offset = r * c.channels + first;
            const IO *x = at<const IO>(c.x, offset), *add = at<const IO>(c.add, offset);
            IO *out = at<IO>(c.out, offset);
            int n = slice.elements(last - r);
            if (add) {
                LANES for (int i = 0; i < n; i++)
                    store(out[i], R(load(x[i])) * scale[i] + shift[i] + R(load(add[i])));
            } else {
                LANES for (int i = 0; i < n; i++) store(out[i], R(load(x[i])) * scale[i] + shift[i]);
            }
        }
    }
}

// sums[unit]: of the gradient, and of the gradient times the deviation of x from its mean.
template <class IO, class R>
INLINE void gradient_sums_units(const NormCall &c, int64_t unit, int64_t end, void *) {
    for (; unit < end; unit++) {
        int64_t row = unit * unit_rows(c), last = least(row + unit_rows(c), all_rows(c));
        double *sums = c.sums + unit * 2 * c.channels;
        for (int64_t i = 0; i < 2 * c.channels; i++) sums[i] = 0;
        for (int64_t first = 0; first < c.channels; first += TILE) {
            Slice slice(first, c.channels);
            R mean[TILE], sum[TILE], product[TILE];
            repeat(mean, c.mean, slice);
            clear(sum);
            clear(product);
            for (int64_t r = row; r < last; r += slice.rows) {
                int64_t offset = r * c.channels + first;
                const IO *x = at<const IO>(c.x, offset), *grad = at<const IO>(c.grad, offset);
                int n = slice.elements(last - r);
                LANES for (int i = 0; i < n; i++) {
                    R g = R(load(grad[i]));
                    sum[i] += g;
                    product[i] += g * (R(load(x[i])) - mean[i]);
                }
            }
            fold(sums, sum, slice);
            fold(sums + c.channels, product, slice);
        }
    }
}

// From the gradient of the normalised numbers to that of x: scale * (grad - factor[0] - (x - mean) * factor[1]).
template <class IO, class R>
INLINE void input_gradient_units(const NormCall &c, int64_t unit, int64_t end, void *) {
    int64_t row = unit * unit_rows(c), last = least(end * unit_rows(c), all_rows(c));
    for (int64_t first = 0; first < c.channels; first += TILE) {
        Slice slice(first, c.channels);
        R scale[TILE], mean[TILE], grad_mean[TILE], slope[TILE];
        repeat(scale, c.scale, slice);
        repeat(mean, c.mean, slice);
        repeat(grad_mean, c.factor, slice);
        repeat(slope, at<const R>(c.factor, c.channels), slice);
        for (int64_t r = row; r < last; r += slice.rows) {
            int64_t offset = r * c.channels + first;
            const IO *x = at<const IO>(c.x, offset), *grad = at<const IO>(c.grad, offset);
            IO *out = at<IO>(c.out, offset);
            int n = slice.elements(last - r);
            LANES for (int i = 0; i < n; i++) {
                R g = R(load(grad[i])) - grad_mean[i] - (R(load(x[i])) - mean[i]) * slope[i];
                store(out[i], scale[i] * g);
            }
        }
    }
}

// The normalised numbers of a tile as the currents of its neurons.
template <class IO, class R>
struct Normalised {
    const IO *first;
    int64_t stride;
    int n;
    const R *scale, *shift;
    R *current;
    INLINE const R *row(int64_t t) const {
        const IO *x = first + t * stride;
        LANES for (int i = 0; i < n; i++) current[i] = R(load(x[i])) * scale[i] + shift[i];
        return current;
    }
};

// Where the gradients of a tile's currents go: to memory, and into the sums.
template <class IO, class R>
struct Summed {
    IO *out;
    const IO *x;
    int64_t stride;
    int n;
    const R *mean;
    R *grad, *sum, *product;
    INLINE R *row(int64_t) const { return grad; }
    INLINE void done(int64_t t) const {
        IO *to = out + t * stride;
        const IO *from = x + t * stride;
        LANES for (int i = 0; i < n; i++) {
            store(to[i], grad[i]);
            sum[i] += grad[i];
            product[i] += grad[i] * (R(load(from[i])) - mean[i]);
        }
    }
};

template <bool HARD, class IO, class R>
INLINE void fire_in_images(const NormCall &c, int64_t unit, int64_t end) {
    Numbers<R> k(c.neuron);
    int64_t stride = c.images * c.pixels * c.channels;
    for (; unit < end; unit++) {
        int64_t image = unit / units_of_image(c), row = unit % units_of_image(c) * image_unit_rows(c);
        int64_t last = least(row + image_unit_rows(c), c.pixels);
        for (int64_t first = 0; first < c.channels; first += TILE) {
            Slice slice(first, c.channels);
            R scale[TILE], shift[TILE], current[TILE], v[TILE];
            repeat(scale, c.scale, slice);
            repeat(shift, at<const R>(c.shift, image * c.shift_stride), slice);
            for (int64_t r = row; r < last; r += slice.rows) {
                int64_t offset = (image * c.pixels + r) * c.channels + first;
                int n = slice.elements(last - r);
                Normalised<IO, R> currents = {at<const IO>(c.x, offset), stride, n, scale, shift, current};
                Stored<IO> spikes = {at<IO>(c.out, offset), stride};
                R *const no_membranes = nullptr;
                charge_steps<HARD>(c.neuron, k, c.T, n, currents, v, spikes, no_membranes, 0);
            }
        }
    }
}

// sums[unit]: of the gradient of the currents, and of it times the deviation of x from its mean; and of PLIF's leak.
template <bool HARD, class IO, class R>
INLINE void fire_backward_in_images(const NormCall &c, int64_t unit, int64_t end, R *h) {
    Numbers<R> k(c.neuron);
    int64_t stride = c.images * c.pixels * c.channels;
    for (; unit < end; unit++) {
        int64_t image = unit / units_of_image(c), row = unit % units_of_image(c) * image_unit_rows(c);
        int64_t last = least(row + image_unit_rows(c), c.pixels);
        double *sums = c.sums + unit * 2 * c.channels, leak = 0;
        for (int64_t i = 0; i < 2 * c.channels; i++) sums[i] = 0;
        for (int64_t first = 0; first < c.channels; first += TILE) {
            Slice slice(first, c.channels);
            R scale[TILE], shift[TILE], mean[TILE], current[TILE], carry[TILE], grad[TILE], sum[TILE], product[TILE];
            IO nowhere[TILE];
            repeat(scale, c.scale, slice);
            repeat(shift, at<const R>(c.shift, image * c.shift_stride), slice);
            repeat(mean, c.mean, slice);
            clear(sum);
            clear(product);
            for (int64_t r = row; r < last; r += slice.rows) {
                int64_t offset = (image * c.pixels + r) * c.channels + first;
                int n = slice.elements(last - r);
                const IO *x = at<const IO>(c.x, offset);
                Normalised<IO, R> currents = {x, stride, n, scale, shift, current};
                Stored<const IO> incoming = {at<const IO>(c.grad, offset), stride};
                Wanted<IO> spikes = {at<IO>(c.spikes, offset), stride, nowhere};
                Summed<IO, R> out = {at<IO>(c.out, offset), x, stride, n, mean, grad, sum, product};
                charge_steps<HARD>(c.neuron, k, c.T, n, currents, carry, spikes, h, TILE);
                leak += backward_steps<HARD>(c.neuron, k, c.T, n, currents, incoming, out, h, carry, TILE, c.grad_leak);
            }
            fold(sums, sum, slice);
            fold(sums + c.channels, product, slice);
        }
        if (c.grad_leak) c.grad_leak[unit] = leak;
    }
}

template <class IO, class R>
INLINE void fire_units(const NormCall &c, int64_t unit, int64_t end, void *) {
    if (c.neuron.hard)
        fire_in_images<true, IO, R>(c, unit, end);
    else
        fire_in_images<false, IO, R>(c, unit, end);
}

template <class IO, class R>
INLINE void fire_backward_units(const NormCall &c, int64_t unit, int64_t end, void *h) {
    if (c.neuron.hard)
        fire_backward_in_images<true, IO, R>(c, unit, end, static_cast<R *>(h));
    else
        fire_backward_in_images<false, IO, R>(c, unit, end, static_cast<R *>(h));
}

#define TASK(FUNCTION, SET, TARGET, SCRATCH)                                                                       \
    template <class IO, class R>                                                                                   \
    TARGET void FUNCTION##_##SET(const void *call, int64_t first, int64_t end, void *scratch) {                    \
        FUNCTION##_units<IO, R>(*static_cast<const NormCall *>(call), first, end, static_cast<SCRATCH *>(scratch)); \
    }
#define TASKS(SET, TARGET)                     \
    TASK(moments, SET, TARGET, double)         \
    TASK(apply, SET, TARGET, void)             \
    TASK(gradient_sums, SET, TARGET, void)     \
    TASK(input_gradient, SET, TARGET, void)    \
    TASK(fire, SET, TARGET, void)              \
    TASK(fire_backward, SET, TARGET, void)
FOR_EVERY_INSTRUCTION_SET(TASKS)

}  // namespace

// All return 0, or 1 when memory ran out. `parallel` is GOMP_parallel, or null to run in the calling thread.

// sums: each channel's mean and summed squared deviations from it.
EXPORT int sddpm_norm_moments(const NormCall *call, Parallel parallel) {
    int64_t count = units(*call), width = 2 * call->channels, C = call->channels;
    NormCall c = *call;
    if (!(c.sums = static_cast<double *>(std::malloc(count * width * sizeof(double))))) return 1;
    bool done = run(CHOOSE_TASK(moments, c.type), &c, count, 1, width * sizeof(double), c.threads, parallel);
    for (int64_t i = 0; i < width; i++) call->sums[i] = 0;
    for (int64_t unit = 0; done && unit < count; unit++) {
        int64_t before = unit * unit_rows(c);
        merge(call->sums, call->sums + C, before, c.sums + unit * width, c.sums + unit * width + C,
              least(unit_rows(c), all_rows(c) - before), C);
    }
    std::free(c.sums);
    return !done;
}

// out: the normalised x, plus `add` if there is one.
EXPORT int sddpm_norm_apply(const NormCall *call, Parallel parallel) {
    return !run(CHOOSE_TASK(apply, call->type), call, units(*call), 1, 0, call->threads, parallel);
}

// sums: of the gradient of the normalised x, and of it times x minus its mean.
EXPORT int sddpm_norm_gradient_sums(const NormCall *call, Parallel parallel) {
    int64_t count = units(*call), width = 2 * call->channels;
    NormCall c = *call;
    if (!(c.sums = static_cast<double *>(std::malloc(count * width * sizeof(double))))) return 1;
    bool done = run(CHOOSE_TASK(gradient_sums, c.type), &c, count, 1, 0, c.threads, parallel);
    for (int64_t i = 0; i < width; i++) call->sums[i] = 0;
    for (int64_t unit = 0; done && unit < count; unit++)
        for (int64_t i = 0; i < width; i++) call->sums[i] += c.sums[unit * width + i];
    std::free(c.sums);
    return !done;
}

// out: the gradient of x.
EXPORT int sddpm_norm_input_gradient(const NormCall *call, Parallel parallel) {
    return !run(CHOOSE_TASK(input_gradient, call->type), call, units(*call), 1, 0, call->threads, parallel);
}

// out: spikes of neurons whose currents are the normalised x.
EXPORT int sddpm_norm_fire(const NormCall *call, Parallel parallel) {
    int64_t count = call->images * units_of_image(*call);
    return !run(CHOOSE_TASK(fire, call->type), call, count, 1, 0, call->threads, parallel);
}

// out: the gradient of the currents, from that of the spikes. sums: as of `sddpm_norm_gradient_sums`.
EXPORT int sddpm_norm_fire_backward(const NormCall *call, Parallel parallel) {
    int64_t per_image = units_of_image(*call), count = call->images * per_image, width = 2 * call->channels;
    NormCall c = *call;
    if (!(c.sums = static_cast<double *>(std::malloc(count * (width + 1) * sizeof(double))))) return 1;
    if (call->grad_leak) c.grad_leak = c.sums + count * width;
    size_t scratch = size_t(c.T) * TILE * (c.type == FLOAT64 ? 8 : 4);
    bool done = run(CHOOSE_TASK(fire_backward, c.type), &c, count, 1, scratch, c.threads, parallel);
    for (int64_t i = 0; i < width; i++) call->sums[i] = 0;
    for (int64_t i = 0; call->image_sums && i < c.images * c.channels; i++) call->image_sums[i] = 0;
    for (int64_t unit = 0; done && unit < count; unit++) {
        const double *sums = c.sums + unit * width;
        for (int64_t i = 0; i < width; i++) call->sums[i] += sums[i];
        double *image = call->image_sums ? call->image_sums + unit / per_image * c.channels : nullptr;
        for (int64_t i = 0; image && i < c.channels; i++) image[i] += sums[i];
        if (call->grad_leak) *call->grad_leak += c.grad_leak[unit];
    }
    std::free(c.sums);
    return !done;
}
