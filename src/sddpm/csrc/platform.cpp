#include "platform.h"

namespace {

int best_instruction_set() {
#if defined(__GNUC__) && defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq"))
        return AVX512;
    if (__builtin_cpu_supports("avx2")) return AVX2;
#endif
    return BASE;
}

struct Job {
    Task task;
    const void *call;
    int64_t units, claim;
    size_t scratch_bytes;
    std::atomic<int64_t> next;
    std::atomic<bool> failed;
};

void work(void *data) {
    Job &job = *static_cast<Job *>(data);
    void *scratch = nullptr;
    if (job.scratch_bytes && !(scratch = std::malloc(job.scratch_bytes))) {
        job.failed = true;
        return;
    }
    for (int64_t first; (first = job.next.fetch_add(job.claim)) < job.units;) {
        int64_t end = first + job.claim;
        job.task(job.call, first, end < job.units ? end : job.units, scratch);
    }
    std::free(scratch);
}

}  // namespace

int instruction_set = best_instruction_set();

bool run(Task task, const void *call, int64_t units, int64_t claim, size_t scratch_bytes, int threads,
         Parallel parallel) {
    Job job = {task, call, units, claim, scratch_bytes, {0}, {false}};
    if (parallel && threads > 1)
        parallel(work, &job, unsigned(threads), 0);
    else
        work(&job);
    return !job.failed;
}

// The instruction set in use (0 baseline, 1 AVX2, 2 AVX-512); `wanted` >= 0 asks for that one if the machine has it.
EXPORT int sddpm_instruction_set(int wanted) {
    if (wanted >= 0 && wanted <= best_instruction_set()) instruction_set = wanted;
    return instruction_set;
}

// Packaged as an extension module for the sake of the build; it is loaded with ctypes and never imported.
EXPORT void *PyInit__native(void) { return nullptr; }
