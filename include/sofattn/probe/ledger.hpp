// SPDX-License-Identifier: MIT
// Totals per stage and event.
#pragma once

#include <sofattn/core/units.hpp>
#include <sofattn/probe/event.hpp>
#include <sofattn/probe/probe.hpp>

#include <array>
#include <cstddef>
#include <cstdint>

namespace sofattn::probe {

/// Counts; two ledgers compare and add, so that parts of a run make up the whole.
class ledger {
public:
    static constexpr bool enabled = true;

    constexpr void operator()(stage s, event e, std::uint64_t count) noexcept {
        counts_[static_cast<std::size_t>(s)][static_cast<std::size_t>(e)] += count;
    }
    constexpr void begin_tile(tile_id) const noexcept {}

    [[nodiscard]] constexpr std::uint64_t count(stage s, event e) const noexcept {
        return counts_[static_cast<std::size_t>(s)][static_cast<std::size_t>(e)];
    }
    /// Of one event, over all stages.
    [[nodiscard]] constexpr std::uint64_t count(event e) const noexcept {
        std::uint64_t total = 0;
        for (auto const& of_stage : counts_) {
            total += of_stage[static_cast<std::size_t>(e)];
        }
        return total;
    }
    /// Of one kind of traffic, over all stages; `e` is one of the `_bytes` events.
    [[nodiscard]] constexpr bytes traffic(event e) const noexcept { return bytes(count(e)); }

    constexpr ledger& operator+=(ledger const& other) noexcept {
        for (std::size_t s = 0; s < stage_count; ++s) {
            for (std::size_t e = 0; e < event_count; ++e) {
                counts_[s][e] += other.counts_[s][e];
            }
        }
        return *this;
    }
    friend constexpr bool operator==(ledger const&, ledger const&) noexcept = default;

private:
    std::array<std::array<std::uint64_t, event_count>, stage_count> counts_{};
};

static_assert(listener<silent> && listener<ledger>);

} // namespace sofattn::probe
