// SPDX-License-Identifier: MIT
// Time of an output-stationary systolic array: passes, fill and drain.
#pragma once

#include <sofattn/core/types.hpp>
#include <sofattn/hw/tile_work.hpp>

#include <algorithm>
#include <cstdint>

namespace sofattn::hw {

/// Operands enter at the left and upper edges, skewed by a cycle per row and column; each element
/// accumulates one product per cycle. A row's sums are complete one after the other, a cycle apart,
/// and leave over the row's output bus as they are; the next pass may follow at once. All wires are
/// as long as the array, however many rows and columns a pass fills: a pass is over when the whole
/// wavefront is out.
struct systolic_array {
    index_t rows = 1;
    index_t columns = 1;
    index_t result_latency = 0; ///< cycles from an element's last product to its result's use

    /// `passes` passes; in the first, an operand enters every `first_pace` cycles only. The next may
    /// follow after the interval if it is as deep as these, or as there are columns.
    [[nodiscard]] constexpr stage_time time(index_t passes, index_t depth,
                                            index_t first_pace = 1) const noexcept {
        if (passes == 0 || depth == 0) {
            return {};
        }
        // A row's bus takes as many cycles for the sums of a pass as there are columns.
        index_t const wait = std::max<index_t>(0, columns - depth);
        index_t const interval = depth + wait;
        index_t const first = depth * first_pace + wait;
        index_t const last_depth = passes == 1 ? depth * first_pace : depth;
        index_t const last_begins = passes == 1 ? 0 : first + (passes - 2) * interval;
        return {detail::count(first + (passes - 1) * interval),
                detail::count(
                    std::max(first + (passes - 1) * interval,
                             last_begins + last_depth + rows + columns - 2 + result_latency))};
    }
};

} // namespace sofattn::hw
