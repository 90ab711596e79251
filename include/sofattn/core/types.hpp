// SPDX-License-Identifier: MIT
// Index types and small helpers that every header shares.
#pragma once

#include <cstddef>
#include <cstdint>

namespace sofattn {

/// Extents, strides and loop counters: signed, so that differences are safe.
using index_t = std::ptrdiff_t;

/// A key's position in its sequence as it is stored in selections: 2^31 - 1 keys are enough.
using key_id = std::int32_t;

/// Keys [from, to) of a sequence.
struct key_range {
    index_t from = 0;
    index_t to = 0;

    friend constexpr bool operator==(key_range, key_range) noexcept = default;
};

/// Head sizes the library supports; widths of accumulators are proved against it.
inline constexpr index_t max_head_dim = 256;

/// For the primary template of a dispatch: a static_assert that fires on use only.
template <class...>
inline constexpr bool always_false = false;

/// ceil(a / b) for a >= 0, b > 0.
template <class T>
    requires(sizeof(T) >= sizeof(int))
[[nodiscard]] constexpr T ceil_div(T a, T b) noexcept { return (a + b - 1) / b; }

} // namespace sofattn
