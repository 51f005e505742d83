#include "amx.h"

#if AMX

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace {

bool processor_has_tiles() {
    unsigned eax, ebx, ecx, edx;
    const unsigned tiles = 1u << 24 | 1u << 25 | 1u << 22;  // AMX-TILE, AMX-INT8, AMX-BF16
    if (!__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) || (edx & tiles) != tiles) return false;
    return __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) && (eax & 1u << 5);  // AVX512-BF16
}

// Linux lets a process use the tiles' registers once it has asked.
bool permitted() {
    const long request_permission = 0x1023, tile_data = 18;
    return syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
}

}  // namespace

bool amx_available() {
    static const bool available = processor_has_tiles() && permitted();
    return available;
}

#endif
