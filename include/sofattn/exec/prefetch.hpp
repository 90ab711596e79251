// SPDX-License-Identifier: MIT
// Asking for memory ahead of its use.
#pragma once

#include <sofattn/core/types.hpp>

namespace sofattn::exec {

/// Where requested lines are wanted.
enum class into_cache { first, second };

/// Asks for the cache lines of [from, from + bytes), for reading soon. A hint: changes no result.
/// Always inlined, and so must be what calls it and does nothing else: GCC takes a function that
/// only prefetches for one without effect, and drops its calls.
template <into_cache Cache = into_cache::first>
[[gnu::always_inline]] inline void prefetch(void const* from, index_t bytes) noexcept {
#if defined(__GNUC__)
    constexpr index_t line = 64;
    constexpr int locality = Cache == into_cache::first ? 3 : 2;
    auto const* const start = static_cast<char const*>(from);
    index_t at = 0;
    for (; at + 4 * line <= bytes; at += 4 * line) { // the loop costs more than the requests
        __builtin_prefetch(start + at, 0, locality);
        __builtin_prefetch(start + at + line, 0, locality);
        __builtin_prefetch(start + at + 2 * line, 0, locality);
        __builtin_prefetch(start + at + 3 * line, 0, locality);
    }
    for (; at < bytes; at += line) {
        __builtin_prefetch(start + at, 0, locality);
    }
#else
    static_cast<void>(from);
    static_cast<void>(bytes);
#endif
}

} // namespace sofattn::exec
