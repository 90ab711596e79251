// SPDX-License-Identifier: MIT
// SADS engine: sorting cores and clipping units, paper section IV-C, Fig. 13.
#pragma once

#include <sofattn/core/types.hpp>
#include <sofattn/hw/activity.hpp>
#include <sofattn/hw/config_parts.hpp>
#include <sofattn/hw/tile_work.hpp>

#include <cstdint>

namespace sofattn::hw {

/// Passes of a core over one row of the tile: every iteration streams the row's scores once and
/// yields the next few. "Several iterations" is all the paper says of more outputs than a core has.
[[nodiscard]] constexpr index_t sort_passes(selection_engine const& e,
                                            tile_work const& w) noexcept {
    return ceil_div(w.kept_most, e.kept_outputs_count) * ceil_div(w.keys, e.new_inputs_count);
}

/// Rows beyond the number of cores wait for the next turn. A core takes new entries in every cycle;
/// clipping replaces values and saves no cycle.
[[nodiscard]] constexpr stage_time selection_time(selection_engine const& e,
                                                  tile_work const& w) noexcept {
    index_t const busy = ceil_div(w.rows, e.cores_count) * sort_passes(e, w);
    if (busy == 0) {
        return {};
    }
    return {detail::count(busy),
            detail::count(busy + e.clip_latency_cycles + e.output_latency_cycles)};
}

/// Scores leave the memory once; for further iterations a core has them in its registers, whose energy
/// is part of a pass. What is kept goes out as a bit per key.
constexpr void add_selection_activity(selection_engine const& e, prediction_engine const& p,
                                      tile_work const& w, activity_counts& into) noexcept {
    using detail::count;
    into.add(activity::sort_pass, count(w.rows * sort_passes(e, w)));
    into.add(activity::temporary_read_bytes, w.visible_pairs * count(p.result_bytes));
    into.add(activity::temporary_write_bytes, count(ceil_div(w.rows * w.keys, index_t{8})));
}

} // namespace sofattn::hw
