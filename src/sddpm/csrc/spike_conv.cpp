// Which kernel, and which thread computes which part of the output. Nothing depends on either.

#include "amx.h"
#include "spike_conv.h"

namespace spike_conv {

// The fastest first, and each before the one of its fast mode. One row a kernel: all that the library tells of it.
#if defined(__GNUC__)
#if AMX
extern const Kernel AMX_EXACT, AMX_FAST;
#endif
#if defined(__x86_64__)
extern const Kernel AVX512_EXACT, AVX512_FAST, PORTABLE_AVX2;
#endif
extern const Kernel PORTABLE;
#endif

namespace {

const Kernel *const KERNELS[] = {
#if defined(__GNUC__)
#if AMX
    &AMX_EXACT, &AMX_FAST,
#endif
#if defined(__x86_64__)
    &AVX512_EXACT, &AVX512_FAST, &PORTABLE_AVX2,
#endif
    &PORTABLE,
#endif
    nullptr};

// How the output is divided: into `parts` runs of pixels by `splits` runs of channels.
struct Division {
    int64_t parts, splits, pixels_each, slabs_each;
};

// In units of a table's use by one vector of pixels, and per weight, what there is to do beside it: making the table,
// and gathering the spikes under the filter once for all channels.
const double MAKE_TABLE = 4, GATHER = 3.5;
const int64_t MOST_SCRATCH = 2 << 20;  // bytes for a thread: patterns stream well from the third-level cache

Division divide(const Call &c, const Kernel &kernel) {
    int64_t lanes = kernel.lanes, blocks = (pixels(c) + lanes - 1) / lanes, slabs = round_up(c.out_channels, SLAB) / SLAB;
    Division best = {0, 0, 0, 0};
    double least = 0;
    int64_t fewest = 1;
    while (fewest < blocks && int64_t(kernel.scratch(c, (blocks + fewest - 1) / fewest * lanes)) > MOST_SCRATCH) fewest++;
    for (int64_t wanted = fewest; wanted <= blocks && wanted < fewest + 2 * c.threads; wanted++) {
        int64_t each = (blocks + wanted - 1) / wanted, parts = (blocks + each - 1) / each;
        for (int64_t s = 1; s <= slabs && s <= 2 * c.threads; s++) {
            int64_t slabs_each = (slabs + s - 1) / s, splits = (slabs + slabs_each - 1) / slabs_each;
            double vectors = double(each * c.T), channels = double(slabs_each * SLAB);
            double rounds = double((parts * splits + c.threads - 1) / c.threads);
            double cost = rounds * (vectors * (channels + GATHER) + MAKE_TABLE * channels);
            if (least == 0 || cost < least) least = cost, best = {parts, splits, each * lanes, slabs_each};
        }
    }
    return best;
}

struct Job {
    const Call *call;
    const Kernel *kernel;
    Division division;
    size_t scratch;
    std::atomic<bool> failed;
};

void compute(const void *data, int64_t block, int64_t, void *) {
    static thread_local Memory memory;
    Job &job = *static_cast<Job *>(const_cast<void *>(data));
    const Division &d = job.division;
    char *scratch = memory.get(job.scratch);
    if (!scratch) {
        job.failed = true;
        return;
    }
    const int64_t part = block / d.splits, split = block % d.splits;
    const int64_t last = (part + 1) * d.pixels_each, last_slab = (split + 1) * d.slabs_each;
    const int64_t all = pixels(*job.call), slabs = round_up(job.call->out_channels, SLAB) / SLAB;
    job.kernel->run(*job.call,
                    {part * d.pixels_each, last < all ? last : all, int(split * d.slabs_each) * SLAB,
                     int(last_slab < slabs ? last_slab : slabs) * SLAB},
                    scratch);
}

}  // namespace

bool in_blocks(const Kernel &kernel, const Call &c, Parallel parallel) {
    const Division division = divide(c, kernel);
    Job job = {&c, &kernel, division, kernel.scratch(c, division.pixels_each), {false}};
    run(compute, &job, division.parts * division.splits, 1, 0, c.threads, parallel);
    return !job.failed;
}

}  // namespace spike_conv

// Returns 0, or 1 when memory ran out. `parallel` is GOMP_parallel, or null to run in the calling thread.
EXPORT int sddpm_spike_conv(const spike_conv::Call *call, Parallel parallel) {
    const spike_conv::Kernel &kernel = *spike_conv::KERNELS[call->kernel];
    return !kernel.convolve(kernel, *call, parallel);
}

// What a kernel is. Mirrored by `KernelRow` in native_conv.py.
struct KernelRow {
    const char *name, *fast, *packing;
    int32_t available;  // whether this machine can run it
};

// Tells what the kernel at a place of the table is; 0 after the last.
EXPORT int sddpm_spike_conv_kernel(int place, KernelRow *row) {
    const spike_conv::Kernel *kernel = spike_conv::KERNELS[place];
    if (!kernel) return 0;
    *row = {kernel->name, kernel->fast, kernel->packing, kernel->available()};
    return 1;
}
