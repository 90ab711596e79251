// SPDX-License-Identifier: MIT
// Where an array's sums wait for the memory: the shift array's out buffer, paper section IV-B.
#pragma once

#include <sofattn/core/types.hpp>
#include <sofattn/hw/systolic.hpp>
#include <sofattn/hw/tile_work.hpp>

#include <algorithm>

namespace sofattn::hw {

/// A pass leaves `pass_bytes` of sums in the elements' registers. From there they go into the
/// buffer as far as it has room, and from the buffer through the memory's ports, `port_bytes` per
/// cycle. The sums of the next pass take the registers: it is not complete before they are free.
///
/// Ports that take a sum of every row per cycle take them as they come; then the buffer is not
/// felt.
struct out_buffer {
    index_t capacity_bytes = 0;
    index_t port_bytes = 0; ///< per cycle; 0: as many as come
    index_t pass_bytes = 0;

    /// `alone`: the array's time for `passes` of `interval` cycles each, with a buffer and ports
    /// that never fall behind; `row_bytes`: what the rows' buses bring in a cycle.
    [[nodiscard]] constexpr stage_time time(stage_time alone, index_t passes, index_t interval,
                                            index_t row_bytes) const noexcept {
        if (port_bytes == 0 || port_bytes >= row_bytes || passes == 0 || pass_bytes == 0) {
            return alone;
        }
        // A word wider than the buffer does not leave at once.
        index_t const leaves = std::min(port_bytes, std::max<index_t>(1, capacity_bytes));
        bool const falls_behind = leaves * interval < pass_bytes;
        // From the end of the first pass, when its sums are there, to that of the last. Ports that
        // fall behind are busy all the time.
        index_t const behind = (passes - 1) * pass_bytes - capacity_bytes;
        index_t const undisturbed = (passes - 1) * interval;
        index_t const last = falls_behind && behind > 0
                                 ? std::max(undisturbed, ceil_div(behind, leaves))
                                 : undisturbed;
        index_t const waiting = falls_behind ? passes * pass_bytes - last * leaves : pass_bytes;
        // The next tile's first pass is complete an interval after it begins at the soonest.
        index_t const free = ceil_div(std::max<index_t>(0, waiting - capacity_bytes), leaves);
        index_t const stretch = last - undisturbed;
        return {alone.interval_cycles +
                    detail::count(stretch + std::max<index_t>(0, free - interval)),
                alone.latency_cycles + detail::count(stretch + ceil_div(waiting, leaves))};
    }
};

} // namespace sofattn::hw
