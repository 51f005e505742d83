// Multi-step neurons: one pass over memory forward, one backward that recomputes the membranes.

#include "neuron.h"

// What a call computes. Mirrored by `Call` in cpu.py.
struct Call {
    int32_t type, threads;
    int64_t T, size, x_stride, grad_stride;  // time steps, neurons, elements from one time step to the next
    Neuron neuron;
    const void *x;      // currents [T, size]
    void *spikes;       // spikes [T, size]; backward: where the recomputed ones go, or null
    const void *grad;   // backward: gradient of the spikes [T, size]
    void *grad_x;       // backward: gradient of the currents [T, size], which may replace grad
    double *grad_leak;  // backward of PLIF: gradient of leak, one partial sum for each block, or null
};

namespace {

// Neurons that are taken through all time steps together, so that their membranes stay in cache. Backward reads and
// writes more streams of memory, and was measured to be a quarter faster in smaller blocks.
const int FORWARD_BLOCK = 512, BACKWARD_BLOCK = 128, CLAIM = 16;

template <class IO>
INLINE IO *at(const void *base, int64_t first) {
    return static_cast<IO *>(const_cast<void *>(base)) + first;
}

template <class IO, class R>
INLINE void forward_block(const Call &c, const Numbers<R> &k, int64_t first, int n) {
    R v[FORWARD_BLOCK];
    Stored<const IO> currents = {at<const IO>(c.x, first), c.x_stride};
    Stored<IO> spikes = {at<IO>(c.spikes, first), c.size};
    R *const no_membranes = nullptr;
    if (c.neuron.hard)
        charge_steps<true>(c.neuron, k, c.T, n, currents, v, spikes, no_membranes, 0);
    else
        charge_steps<false>(c.neuron, k, c.T, n, currents, v, spikes, no_membranes, 0);
}

template <bool HARD, class IO, class R>
INLINE void backward_block(const Call &c, const Numbers<R> &k, int64_t first, int n, R *h) {
    R carry[BACKWARD_BLOCK];
    IO nowhere[BACKWARD_BLOCK];
    Stored<const IO> currents = {at<const IO>(c.x, first), c.x_stride}, grad = {at<const IO>(c.grad, first), c.grad_stride};
    Stored<IO> out = {at<IO>(c.grad_x, first), c.size};
    Wanted<IO> spikes = {c.spikes ? at<IO>(c.spikes, first) : nullptr, c.size, nowhere};
    charge_steps<HARD>(c.neuron, k, c.T, n, currents, carry, spikes, h, BACKWARD_BLOCK);
    double leak = backward_steps<HARD>(c.neuron, k, c.T, n, currents, grad, out, h, carry, BACKWARD_BLOCK, c.grad_leak);
    if (c.grad_leak) c.grad_leak[first / BACKWARD_BLOCK] = leak;
}

template <class IO, class R>
INLINE void forward_blocks(const Call &c, int64_t block, int64_t end) {
    Numbers<R> k(c.neuron);
    for (; block < end; block++) {
        int64_t first = block * FORWARD_BLOCK, left = c.size - first;
        forward_block<IO, R>(c, k, first, int(left < FORWARD_BLOCK ? left : FORWARD_BLOCK));
    }
}

template <class IO, class R>
INLINE void backward_blocks(const Call &c, int64_t block, int64_t end, R *h) {
    Numbers<R> k(c.neuron);
    for (; block < end; block++) {
        int64_t first = block * BACKWARD_BLOCK, left = c.size - first;
        int n = int(left < BACKWARD_BLOCK ? left : BACKWARD_BLOCK);
        if (c.neuron.hard)
            backward_block<true, IO, R>(c, k, first, n, h);
        else
            backward_block<false, IO, R>(c, k, first, n, h);
    }
}

#define TASKS(NAME, TARGET)                                                                            \
    template <class IO, class R>                                                                       \
    TARGET void forward_##NAME(const void *call, int64_t first, int64_t end, void *) {                 \
        forward_blocks<IO, R>(*static_cast<const Call *>(call), first, end);                           \
    }                                                                                                  \
    template <class IO, class R>                                                                       \
    TARGET void backward_##NAME(const void *call, int64_t first, int64_t end, void *h) {               \
        backward_blocks<IO, R>(*static_cast<const Call *>(call), first, end, static_cast<R *>(h));     \
    }
FOR_EVERY_INSTRUCTION_SET(TASKS)

}  // namespace

// Both return 0, or 1 when memory ran out. `parallel` is GOMP_parallel, or null to run in the calling thread.
EXPORT int sddpm_neuron_forward(const Call *call, Parallel parallel) {
    int64_t blocks = (call->size + FORWARD_BLOCK - 1) / FORWARD_BLOCK;
    return !run(CHOOSE_TASK(forward, call->type), call, blocks, CLAIM, 0, call->threads, parallel);
}

EXPORT int sddpm_neuron_backward(const Call *call, Parallel parallel) {
    int64_t blocks = (call->size + BACKWARD_BLOCK - 1) / BACKWARD_BLOCK;
    size_t scratch = size_t(call->T) * BACKWARD_BLOCK * (call->type == FLOAT64 ? 8 : 4);
    return !run(CHOOSE_TASK(backward, call->type), call, blocks, CLAIM, scratch, call->threads, parallel);
}

// Neurons behind one element of `grad_leak`.
EXPORT int sddpm_neuron_block(void) { return BACKWARD_BLOCK; }
