// Which kernel, and which thread computes which part of the output. Nothing depends on either.

#include "spike_conv.h"

#include <atomic>
#include <cstdlib>

#if defined(_MSC_VER)
#define EXPORT extern "C" __declspec(dllexport)
#else
#define EXPORT extern "C" __attribute__((visibility("default")))
#endif

#if defined(__GNUC__) && defined(__x86_64__)
extern const Kernel AVX512_EXACT, AVX512_FAST;
int64_t avx512_fast_chunk(const Call &c);
#endif

namespace {

enum { EXACT_AVX512, FAST_AVX512 };

const Kernel *kernel_of(const Call &c) {
#if defined(__GNUC__) && defined(__x86_64__)
    __builtin_cpu_init();
    bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                  __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
                  __builtin_cpu_supports("bmi2");
    if (c.kernel == EXACT_AVX512 && avx512) return &AVX512_EXACT;
    if (c.kernel == FAST_AVX512 && avx512) return &AVX512_FAST;
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
const int64_t MOST_SCRATCH = 640 << 10;  // bytes: what a thread works on is to stay in the second-level cache

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

// A thread's own memory, kept from call to call: the system takes long to hand out new pages.
struct Memory {
    char *start = nullptr;
    size_t size = 0;
    ~Memory() { std::free(start); }
    char *get(size_t wanted) {
        if (wanted + 64 > size) {
            std::free(start);
            start = static_cast<char *>(std::malloc(size = wanted + 64));
            if (!start) size = 0;
        }
        return start ? start + (64 - reinterpret_cast<uintptr_t>(start) % 64) % 64 : nullptr;
    }
};

struct Job {
    const Call *call;
    const Kernel *kernel;
    Division division;
    std::atomic<int64_t> next;
    std::atomic<bool> failed;
};

void work(void *data) {
    static thread_local Memory memory;
    Job &job = *static_cast<Job *>(data);
    const Division &d = job.division;
    char *scratch = memory.get(job.kernel->scratch(*job.call, d.pixels_each));
    if (!scratch) {
        job.failed = true;
        return;
    }
    for (int64_t i; (i = job.next.fetch_add(1)) < d.parts * d.splits;) {
        int64_t part = i / d.splits, split = i % d.splits, slabs = round_up(job.call->out_channels, SLAB) / SLAB;
        int64_t last = (part + 1) * d.pixels_each, last_slab = (split + 1) * d.slabs_each;
        Block block = {part * d.pixels_each, last < pixels(*job.call) ? last : pixels(*job.call),
                       int(split * d.slabs_each) * SLAB, int(last_slab < slabs ? last_slab : slabs) * SLAB};
        job.kernel->run(*job.call, block, scratch);
    }
}

typedef void (*Parallel)(void (*function)(void *), void *data, unsigned threads, unsigned flags);

}  // namespace

// 0, 1 when memory ran out, or 2 if this machine has no such kernel. `parallel` is GOMP_parallel of the OpenMP library
// that torch uses, whose threads these are, or null to run in the calling thread.
EXPORT int sddpm_spike_conv(const Call *call, Parallel parallel) {
    const Kernel *kernel = kernel_of(*call);
    if (!kernel) return 2;
    Job job = {call, kernel, divide(*call, *kernel), {0}, {false}};
    if (parallel && call->threads > 1)
        parallel(work, &job, unsigned(call->threads), 0);
    else
        work(&job);
    return job.failed ? 1 : 0;
}

// Packaged as an extension module for the sake of the build; it is loaded with ctypes and never imported.
EXPORT void *PyInit__spikes(void) { return nullptr; }
