// SPDX-License-Identifier: MIT
// Linked into tests that are built for more than every x86-64 has, compiled with their flags: ends
// the program with 77, which ctest takes for skipped, where the machine lacks what they allow.
#include <unistd.h>

#include <cstdio>

namespace {

constexpr int skipped = 77; // SKIP_RETURN_CODE, cmake/simd_levels.cmake

bool lacks(int supported, char const* what) {
    if (supported == 0) {
        std::fprintf(stderr, "skipped: this machine has no %s\n", what);
    }
    return supported == 0;
}

// Before main and all other constructors: those are compiled with the flags, too, and so may be
// doctest's inline functions.
[[gnu::constructor(101), gnu::target("no-avx")]] void skip_where_it_would_trap() {
    __builtin_cpu_init();
    bool any = false;
#ifdef __AVX2__
    any = lacks(__builtin_cpu_supports("avx2"), "AVX2") || any;
#endif
#ifdef __FMA__
    any = lacks(__builtin_cpu_supports("fma"), "FMA") || any;
#endif
#ifdef __AVX512F__
    any = lacks(__builtin_cpu_supports("avx512f"), "AVX-512F") || any;
#endif
#ifdef __AVX512BW__
    any = lacks(__builtin_cpu_supports("avx512bw"), "AVX-512BW") || any;
#endif
#ifdef __AVX512DQ__
    any = lacks(__builtin_cpu_supports("avx512dq"), "AVX-512DQ") || any;
#endif
#ifdef __AVX512VL__
    any = lacks(__builtin_cpu_supports("avx512vl"), "AVX-512VL") || any;
#endif
#ifdef __AVX512CD__
    any = lacks(__builtin_cpu_supports("avx512cd"), "AVX-512CD") || any;
#endif
#ifdef __AVX512VNNI__
    any = lacks(__builtin_cpu_supports("avx512vnni"), "AVX-512 VNNI") || any;
#endif
#ifdef __AVX512BF16__
    any = lacks(__builtin_cpu_supports("avx512bf16"), "AVX-512 BF16") || any;
#endif
    if (any) {
        _exit(skipped); // stderr is not buffered
    }
}

} // namespace
