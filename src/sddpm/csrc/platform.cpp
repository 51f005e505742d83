#include "platform.h"

namespace {

#define NAME_OF(A, B, C, NAME, TARGET, LABEL, ...) LABEL,
const char *const NAMES[] = {INSTRUCTION_SETS(NAME_OF, , , ) nullptr};

int best_instruction_set() {
#if defined(__GNUC__) && defined(__x86_64__)
    __builtin_cpu_init();
#endif
    int best = SET_base;
#define TAKE_IF(A, B, C, NAME, TARGET, LABEL, AVAILABLE, ...) \
    if (AVAILABLE) best = SET_##NAME;
    INSTRUCTION_SETS(TAKE_IF, , , )
    return best;
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

// The number of the instruction set in use; `wanted` >= 0 asks for that one if the machine has it.
EXPORT int sddpm_instruction_set(int wanted) {
    if (wanted >= 0 && wanted <= best_instruction_set()) instruction_set = wanted;
    return instruction_set;
}

// Names in the order of their numbers; null after the last.
EXPORT const char *sddpm_instruction_set_name(int number) { return NAMES[number]; }

// Packaged as an extension module for the sake of the build; it is loaded with ctypes and never imported.
EXPORT void *PyInit__native(void) { return nullptr; }
