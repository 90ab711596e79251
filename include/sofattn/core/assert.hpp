// SPDX-License-Identifier: MIT
// Preconditions of stages: SOFATTN_ASSERT is always checked, SOFATTN_DASSERT in debug builds.
#pragma once

#include <cstdio>
#include <cstdlib>

namespace sofattn::detail {

/// Ends the program: a broken precondition is a bug of the caller, not an input error.
[[noreturn]] inline void assertion_failed(char const* condition, char const* file, int line) {
    std::fprintf(stderr, "%s:%d: sofattn precondition does not hold: %s\n", file, line, condition);
    std::abort();
}

} // namespace sofattn::detail

#define SOFATTN_ASSERT(...)                                                                        \
    ((__VA_ARGS__) ? void(0)                                                                       \
                   : ::sofattn::detail::assertion_failed(#__VA_ARGS__, __FILE__, __LINE__))

#ifdef NDEBUG
#define SOFATTN_DASSERT(...) void(0)
#else
#define SOFATTN_DASSERT(...) SOFATTN_ASSERT(__VA_ARGS__)
#endif
