// The matrix units of AMX, where compilers and systems have what it takes: eight tiles, each of 16 rows of 64 bytes.
// Whether the processor has them is asked at run time.

#pragma once

#include <cstdint>

#if defined(__linux__) && defined(__x86_64__) && \
    ((defined(__clang__) && __clang_major__ >= 12) || (!defined(__clang__) && defined(__GNUC__) && __GNUC__ >= 11))
#define AMX 1

#if !defined(__clang__)
#pragma GCC diagnostic ignored "-Wuninitialized"  // in the compiler's own headers
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

#if defined(__clang__)
#define AMX_TARGET                                                                                              \
    __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,amx-tile,amx-int8,amx-bf16")))
#else
#define AMX_TARGET                                                                                              \
    __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,amx-tile,amx-int8,amx-bf16,"           \
                          "prefer-vector-width=512")))
#endif

// Whether the processor has tiles for 8-bit integers and bfloat16, and the system lets this process use them.
bool amx_available();

const int TILE_ROWS = 16, TILE_ROW_BYTES = 64, TILE_BYTES = 1024, TILE_SUMS = 256;

// Shapes of all eight tiles, as the processor takes them.
struct alignas(64) TileConfig {
    uint8_t palette, start_row, reserved[14];
    uint16_t bytes[16];
    uint8_t rows[16];
    TileConfig() : palette(1), start_row(0), reserved(), bytes(), rows() {
        for (int i = 0; i < 8; i++) bytes[i] = TILE_ROW_BYTES, rows[i] = TILE_ROWS;
    }
};

#define LOAD_CONFIG(CONFIG) asm volatile("ldtilecfg %0" ::"m"(CONFIG) : "memory")
#define RELEASE_TILES() asm volatile("tilerelease" ::: "memory")
#define ZERO_TILE(TILE) asm volatile("tilezero %%tmm" #TILE ::: "memory")
#define LOAD_TILE(TILE, FROM, STRIDE) \
    asm volatile("tileloadd (%0,%1,1), %%tmm" #TILE ::"r"(FROM), "r"(int64_t(STRIDE)) : "memory")
#define STORE_TILE(TILE, TO) \
    asm volatile("tilestored %%tmm" #TILE ", (%0,%1,1)" ::"r"(TO), "r"(int64_t(TILE_ROW_BYTES)) : "memory")
#define MULTIPLY_TILES(SUM, SPIKES, WEIGHTS) \
    asm volatile("tdpbusd %%tmm" #WEIGHTS ", %%tmm" #SPIKES ", %%tmm" #SUM ::: "memory")
#define MULTIPLY_BF16_TILES(SUM, X, WEIGHTS) \
    asm volatile("tdpbf16ps %%tmm" #WEIGHTS ", %%tmm" #X ", %%tmm" #SUM ::: "memory")


#endif
