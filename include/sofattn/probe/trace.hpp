// SPDX-License-Identifier: MIT
// Totals per tile, in the order of execution: what a timing model needs and a ledger cannot tell.
#pragma once

#include <sofattn/probe/ledger.hpp>
#include <sofattn/probe/probe.hpp>

#include <algorithm>
#include <cstdint>
#include <vector>

namespace sofattn::probe {

/// One ledger per tile. It grows as tiles come, so it is not for timed runs.
class trace {
public:
    static constexpr bool enabled = true;

    struct tile {
        tile_id id;
        ledger counts;
        std::uint64_t kept_most = 0; ///< keys that its fullest row kept

        friend bool operator==(tile const&, tile const&) = default;
    };

    /// Events before the first tile (quantising the queries, say) belong to `before()`.
    void operator()(stage s, event e, std::uint64_t count) {
        (tiles_.empty() ? before_ : tiles_.back().counts)(s, e, count);
    }
    void begin_tile(tile_id id) { tiles_.push_back({id, {}}); }
    /// A row kept so many keys of the tile: rows of one tile go through a circuit in step, so the
    /// fullest one decides, which no sum tells.
    void row_kept(std::uint64_t count) {
        if (!tiles_.empty()) {
            tiles_.back().kept_most = std::max(tiles_.back().kept_most, count);
        }
    }

    [[nodiscard]] std::vector<tile> const& tiles() const noexcept { return tiles_; }
    [[nodiscard]] ledger const& before() const noexcept { return before_; }

    /// The sum over tiles; equals what a ledger would have heard.
    [[nodiscard]] ledger total() const noexcept {
        ledger sum = before_;
        for (tile const& t : tiles_) {
            sum += t.counts;
        }
        return sum;
    }

    friend bool operator==(trace const&, trace const&) = default;

private:
    ledger before_;
    std::vector<tile> tiles_;
};

static_assert(listener<trace>);

} // namespace sofattn::probe
