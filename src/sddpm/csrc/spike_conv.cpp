// Which kernel, and which thread computes which part of the output. Nothing depends on either.

#include "amx.h"
#include "spike_conv.h"

namespace spike_conv {

#if defined(__GNUC__)
extern const Kernel PORTABLE;
#if defined(__x86_64__)
#define X86 1
extern const Kernel PORTABLE_AVX2, AVX512_EXACT, AVX512_FAST;
#endif
#endif

namespace {

bool is_amx(int kernel) { return kernel == AMX_KERNEL || kernel == AMX_FAST_KERNEL; }

const Kernel *kernel_of(int kernel) {
#if X86
    __builtin_cpu_init();
    const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
    if (kernel == AVX512_KERNEL && avx512) return &AVX512_EXACT;
    if (kernel == AVX512_FAST_KERNEL && avx512) return &AVX512_FAST;
    if (kernel == AVX2_KERNEL && __builtin_cpu_supports("avx2")) return &PORTABLE_AVX2;
#endif
#if defined(__GNUC__)
    if (kernel == PORTABLE_KERNEL) return &PORTABLE;
#endif
    return nullptr;
}

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
}  // namespace spike_conv

// Returns 0, or 1 when memory ran out. `parallel` is GOMP_parallel, or null to run in the calling thread.
EXPORT int sddpm_spike_conv(const spike_conv::Call *call, Parallel parallel) {
    using namespace spike_conv;
#if AMX
    if (is_amx(call->kernel)) return !run_amx(*call, parallel);
#endif
    const Kernel *kernel = kernel_of(call->kernel);
    const Division division = divide(*call, *kernel);
    Job job = {call, kernel, division, kernel->scratch(*call, division.pixels_each), {false}};
    run(compute, &job, division.parts * division.splits, 1, 0, call->threads, parallel);
    return job.failed;
}

// Whether this build and this machine have a kernel.
EXPORT int sddpm_spike_conv_has(int kernel) {
    using namespace spike_conv;
#if AMX
    if (is_amx(kernel)) return amx_available();
#endif
    return kernel_of(kernel) != nullptr;
}
