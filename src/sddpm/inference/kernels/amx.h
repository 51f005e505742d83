// The kernel in amx.cpp, where compilers and systems have what it takes. Whether the processor does, it asks itself.

#pragma once

#include "spike_conv.h"

#if defined(__linux__) && defined(__x86_64__) && \
    ((defined(__clang__) && __clang_major__ >= 12) || (!defined(__clang__) && defined(__GNUC__) && __GNUC__ >= 11))
#define AMX 1
#endif

namespace spike_conv {

#if AMX
// Whether the processor has AMX for integers, and the system lets this process use it.
bool amx_available();

// False: no memory.
bool run_amx(const Call &c, Parallel parallel);
#endif

}  // namespace spike_conv
