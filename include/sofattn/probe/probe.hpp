// SPDX-License-Identifier: MIT
// What it takes to listen, and the probe that does not.
#pragma once

#include <sofattn/core/types.hpp>
#include <sofattn/probe/event.hpp>

#include <concepts>
#include <cstdint>

namespace sofattn::probe {

/// The piece of work that the following events belong to: a block of queries of one head meets a
/// tile of keys.
struct tile_id {
    index_t head = 0;
    index_t first_query = 0;
    index_t first_key = 0;

    friend constexpr bool operator==(tile_id const&, tile_id const&) = default;
};

/// Stages call a probe after an inner loop, with totals; `enabled` false lets them skip the sums.
template <class P>
concept listener = std::copyable<P> && requires(P p, stage s, event e, std::uint64_t n, tile_id t) {
    { P::enabled } -> std::convertible_to<bool>;
    p(s, e, n);
    p.begin_tile(t);
};

/// Hears nothing and costs nothing.
struct silent {
    static constexpr bool enabled = false;

    constexpr void operator()(stage, event, std::uint64_t) const noexcept {}
    constexpr void begin_tile(tile_id) const noexcept {}

    friend constexpr bool operator==(silent, silent) noexcept = default;
};

} // namespace sofattn::probe
