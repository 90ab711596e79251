// SPDX-License-Identifier: MIT
// SADS engine: sorting cores and clipping units, paper section IV-C, Fig. 13.
#pragma once

#include <sofattn/core/types.hpp>
#include <sofattn/hw/activity.hpp>
#include <sofattn/hw/config_parts.hpp>
#include <sofattn/hw/kinds.hpp>
#include <sofattn/hw/prediction_time.hpp>
#include <sofattn/hw/selection_rivals.hpp>
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
[[nodiscard]] inline stage_time selection_time(selection_engine const& e, tile_work const& w,
                                               selection_run const& run = {}) noexcept {
    index_t const per_row =
        kind_of(e) == selector_kind::sads ? sort_passes(e, w) : rival_cycles(e, run);
    index_t const rows = run.once_per_head ? 1 : w.rows;
    index_t const busy = ceil_div(rows, e.cores_count) * per_row;
    if (busy == 0) {
        return {};
    }
    return {detail::count(busy),
            detail::count(busy + e.clip_latency_cycles + e.output_latency_cycles)};
}

/// Scores leave the memory once; for further iterations a core has them in its registers, whose energy
/// is part of a pass. What is kept goes out as a bit per key.
inline void add_selection_activity(selection_engine const& e, prediction_engine const& p,
                                   tile_work const& w, activity_counts& into,
                                   selection_run const& run = {}) noexcept {
    using detail::count;
    if (kind_of(e) == selector_kind::none) {
        return;
    }
    if (kind_of(e) != selector_kind::sads) {
        index_t const rows = run.once_per_head ? 1 : w.rows;
        std::uint64_t const touched = count(rows * rival_entries(e, run));
        bool const sorts = kind_of(e) == selector_kind::full_sort;
        into.add(sorts ? activity::sort_pass : activity::select_compare,
                 sorts ? count(rows * rival_cycles(e, run)) : touched);
        if (kind_of(p) == predictor_kind::history) {
            // Each probability is added to its token's sum, read and written.
            into.add(activity::select_compare, w.kept_pairs);
            into.add(activity::temporary_read_bytes, w.kept_pairs * count(p.result_bytes));
            into.add(activity::temporary_write_bytes, w.kept_pairs * count(p.result_bytes));
        }
        if (kind_of(e) == selector_kind::threshold) {
            into.add(activity::exp, count(rows * run.entries)); // of the estimate
        }
        into.add(activity::temporary_read_bytes, touched * count(p.result_bytes));
        into.add(activity::temporary_write_bytes, (sorts ? touched * count(p.result_bytes) : 0) +
                                                      count(ceil_div(w.rows * w.keys, index_t{8})));
        return;
    }
    into.add(activity::sort_pass, count(w.rows * sort_passes(e, w)));
    into.add(activity::temporary_read_bytes, w.visible_pairs * count(p.result_bytes));
    into.add(activity::temporary_write_bytes, count(ceil_div(w.rows * w.keys, index_t{8})));
}

} // namespace sofattn::hw
