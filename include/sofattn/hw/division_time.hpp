// SPDX-License-Identifier: MIT
// The divisions that end a row, whatever computed it: behind its last tile, on the dividers there are.
#pragma once

#include <sofattn/core/types.hpp>
#include <sofattn/hw/config_parts.hpp>
#include <sofattn/hw/tile_work.hpp>

#include <algorithm>

namespace sofattn::hw {

/// A tile's time with the divisions of the rows that it finishes, value_dim each. They overlap the next
/// tile: only what takes longer than the tile's own work lengthens its interval.
[[nodiscard]] constexpr stage_time with_divisions(attention_engine const& e, tile_work const& w,
                                                  index_t interval, index_t latency) noexcept {
    if (w.finished_rows > 0) {
        index_t const divisions =
            ceil_div(w.finished_rows, std::min(e.dividers_count, e.rows_count)) * w.value_dim *
            e.divide_interval_cycles;
        interval = std::max(interval, divisions);
        latency = std::max(latency + divisions + e.divide_latency_cycles, interval);
    }
    return {detail::count(interval), detail::count(latency)};
}

} // namespace sofattn::hw
