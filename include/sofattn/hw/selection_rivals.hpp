// SPDX-License-Identifier: MIT
// Selectors of earlier designs: full sort, threshold from the mean, halving partitions.
#pragma once

#include <sofattn/core/types.hpp>
#include <sofattn/hw/config_parts.hpp>
#include <sofattn/hw/kinds.hpp>
#include <sofattn/hw/prediction_time.hpp>
#include <sofattn/hw/tile_work.hpp>

namespace sofattn::hw {

/// The scores of one row that are selected from together: where tiles are handed over, those of the
/// tile; where rows are, all of the row's, with its first tile; where history decides, a head's
/// tokens, once.
struct selection_run {
    index_t entries = 0;
    index_t again = 0;          ///< of them, those that a second round of prediction gives anew
    bool once_per_head = false; ///< tokens are ranked, not a row's keys

    [[nodiscard]] static selection_run of(prediction_engine const& p, tile_work const& w,
                                          bool whole_rows) noexcept {
        if (kind_of(p) == predictor_kind::history) {
            return {w.head_keys, 0, true};
        }
        index_t const n = whole_rows ? w.row_keys : w.keys;
        return {n, survivors(p, n), false};
    }
};

namespace detail {
/// SpAtten's engine begins a partition three cycles after the one before
/// (its published TopKLatencyModel).
inline constexpr index_t partition_gap_cycles = 3;

/// Merges of runs, two at a time, until there is one.
[[nodiscard]] constexpr index_t merge_passes(index_t runs) noexcept {
    index_t passes = 0;
    for (; runs > 1; runs = ceil_div(runs, index_t{2})) {
        ++passes;
    }
    return passes;
}
} // namespace detail

/// Cycles of a core for one row; it takes `new_inputs_count` scores per cycle.
///
/// full_sort: the scores once through a sorting network, which leaves sorted runs of one cycle's
/// scores, then merges of two runs at the same pace. Guessed: the paper names no sorter; a merge tree at
/// this pace is what the literature builds.
/// mean_threshold: a scan for minimum, maximum and mean, one against the threshold; both again for
/// the survivors of the first round (Energon).
/// quick_select: ceil(n / inputs) + 3 over halving partitions (SpAtten; its median of halves).
/// threshold: a scan for the softmax's sum, one against the threshold (Sanger).
[[nodiscard]] inline index_t rival_cycles(selection_engine const& e,
                                          selection_run const& run) noexcept {
    index_t const inputs = e.new_inputs_count;
    switch (kind_of(e)) {
    case selector_kind::full_sort: {
        index_t const runs = ceil_div(run.entries, inputs);
        return runs * (1 + detail::merge_passes(runs));
    }
    case selector_kind::mean_threshold:
        return 2 * (ceil_div(run.entries, inputs) + ceil_div(run.again, inputs));
    case selector_kind::threshold: return 2 * ceil_div(run.entries, inputs);
    case selector_kind::quick_select: {
        index_t cycles = 0;
        for (index_t left = run.entries; left > 0; left /= 2) {
            cycles += ceil_div(left, inputs) + detail::partition_gap_cycles;
        }
        return cycles;
    }
    default: return 0;
    }
}

/// Scores that a core looks at for one row, each pass anew: a row does not fit its registers.
[[nodiscard]] inline index_t rival_entries(selection_engine const& e,
                                           selection_run const& run) noexcept {
    switch (kind_of(e)) {
    case selector_kind::full_sort:
        return run.entries * (1 + detail::merge_passes(ceil_div(run.entries, e.new_inputs_count)));
    case selector_kind::mean_threshold: return 2 * (run.entries + run.again);
    case selector_kind::threshold: return 2 * run.entries;
    case selector_kind::quick_select: {
        index_t seen = 0;
        for (index_t left = run.entries; left > 0; left /= 2) {
            seen += left;
        }
        return seen;
    }
    default: return 0;
    }
}

} // namespace sofattn::hw
