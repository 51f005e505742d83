// What the kernels share: compilers, numbers in memory, instruction sets, threads.
//
// A plain C interface: no header of torch or Python, so one build serves every version of torch. Threads are torch's
// own: the caller passes GOMP_parallel of the OpenMP library that torch has loaded, because a second pool of threads
// would spin against the first.

#pragma once

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <initializer_list>

#if defined(_MSC_VER)
#define EXPORT extern "C" __declspec(dllexport)
#define INLINE __forceinline
#define LANES
#else
#define EXPORT extern "C" __attribute__((visibility("default")))
#define INLINE inline __attribute__((always_inline))
#if defined(__clang__)
#define LANES _Pragma("clang loop vectorize(assume_safety)")
#else
#define LANES _Pragma("GCC ivdep")
#endif
#endif
#define RESTRICT __restrict

enum Type { FLOAT32, FLOAT64, BFLOAT16 };

struct BFloat16 {
    uint16_t bits;
};

INLINE float load(float x) { return x; }
INLINE double load(double x) { return x; }
INLINE float load(BFloat16 x) {
    uint32_t bits = uint32_t(x.bits) << 16;
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
}
INLINE void store(float &to, float x) { to = x; }
INLINE void store(double &to, double x) { to = x; }
INLINE void store(BFloat16 &to, float x) {  // round to nearest, ties to even
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    to.bits = uint16_t(x == x ? rounded : 0x7fc0u);
}

INLINE void store_spike(float &to, float s) { to = s; }
INLINE void store_spike(double &to, double s) { to = s; }
INLINE void store_spike(BFloat16 &to, float s) { to.bits = s != 0 ? 0x3f80u : 0u; }

// Computes units [first, end) of a call; `scratch` belongs to the thread.
typedef void (*Task)(const void *call, int64_t first, int64_t end, void *scratch);

#if defined(__GNUC__) && defined(__x86_64__)
#if defined(__clang__)
#define AVX512_TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq")))
#else
#define AVX512_TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,prefer-vector-width=512")))
#endif
#define HAS(FEATURE) (__builtin_cpu_supports(FEATURE) != 0)
#define HAS_AVX512 (HAS("avx512f") && HAS("avx512bw") && HAS("avx512vl") && HAS("avx512dq"))
#endif

// The instruction sets, one row each, the least first; what stands in a row's left is passed through. A row is an
// identifier; the attribute of functions (everything that is inlined into them is compiled for that set); a name for
// people; whether the processor has it and all before it; pixels and panels of sums that registers hold in
// dense_conv.cpp.
#if defined(__GNUC__) && defined(__x86_64__)
#define INSTRUCTION_SETS(ROW, A, B, C)                                                                  \
    ROW(A, B, C, base, , "baseline", true, 2, 1)                                                        \
    ROW(A, B, C, avx2, __attribute__((target("avx2,fma"))), "AVX2", HAS("avx2") && HAS("fma"), 3, 2)    \
    ROW(A, B, C, avx512, AVX512_TARGET, "AVX-512", HAS_AVX512, 6, 4)
#else
#define INSTRUCTION_SETS(ROW, A, B, C) ROW(A, B, C, base, , "baseline", true, 2, 1)
#endif

#define SET_NUMBER(A, B, C, NAME, ...) SET_##NAME,
enum InstructionSet { INSTRUCTION_SETS(SET_NUMBER, , , ) };
extern int instruction_set;  // the one in use; chosen when the library is loaded

// DEFINE(name, attribute) once for every instruction set.
#define DEFINE_ONE(DEFINE, B, C, NAME, TARGET, ...) DEFINE(NAME, TARGET)
#define FOR_EVERY_INSTRUCTION_SET(DEFINE) INSTRUCTION_SETS(DEFINE_ONE, DEFINE, , )

INLINE Task in_use(std::initializer_list<Task> tasks) { return tasks.begin()[instruction_set]; }
#define ONE_TASK(NAME, IO, R, SET, ...) NAME##_##SET<IO, R>,
#define BY_INSTRUCTION_SET(NAME, IO, R) in_use({INSTRUCTION_SETS(ONE_TASK, NAME, IO, R)})

// The task NAME_set<IO, R>: IO is how numbers lie in memory, R how they are computed with.
#define CHOOSE_TASK(NAME, type)                                        \
    (type == FLOAT32   ? BY_INSTRUCTION_SET(NAME, float, float)        \
     : type == FLOAT64 ? BY_INSTRUCTION_SET(NAME, double, double)      \
                       : BY_INSTRUCTION_SET(NAME, BFloat16, float))

typedef void (*Parallel)(void (*function)(void *), void *data, unsigned threads, unsigned flags);

// Runs a task over all units. Units are claimed by whichever thread is free, `claim` at a time; each is computed alone,
// so nothing depends on who took it. `parallel` may be null: then the calling thread does it all. False: no memory.
bool run(Task task, const void *call, int64_t units, int64_t claim, size_t scratch_bytes, int threads,
         Parallel parallel);
