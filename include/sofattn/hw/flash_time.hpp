// SPDX-License-Identifier: MIT
// FlashAttention-2 on the two arrays of the formal stage: the rival of SU-FA, section III-C, Fig. 10a.
#pragma once

#include <sofattn/core/types.hpp>
#include <sofattn/hw/activity.hpp>
#include <sofattn/hw/config_parts.hpp>
#include <sofattn/hw/division_time.hpp>
#include <sofattn/hw/tile_work.hpp>
#include <sofattn/probe/event.hpp>

#include <algorithm>

namespace sofattn::hw {

/// A tile's maximum must be known before its first exponential, so the arrays do not work on one
/// key after the other as in SU-FA but on one tile after the other: array 1 multiplies a turn's
/// queries with all of its keys; then the AP modules and array 2 take the scores, phase by phase,
/// and the sums so far are rescaled, whatever the maximum did. Scores are held twice, and both halves
/// take slots of equal length. The comparisons for the maximum go along with the products.
struct flash_schedule {
    index_t groups = 0;  ///< turns that it takes to serve all rows
    index_t scores = 0;  ///< cycles of array 1
    index_t sums = 0;    ///< cycles of the AP modules and array 2
    index_t rescale = 0; ///< of them, for the sums so far

    [[nodiscard]] static flash_schedule of(attention_engine const& e, tile_work const& w) noexcept {
        flash_schedule s;
        if (w.kept_most == 0) {
            return s;
        }
        index_t const phases = ceil_div(w.kept_most, e.keys_per_row_count);
        index_t const rows_per_unit =
            ceil_div(e.rows_count, std::min(e.exp_units_count, e.rows_count));
        index_t const exponentials = rows_per_unit * e.keys_per_row_count * e.exp_interval_cycles;
        s.groups = ceil_div(w.rows, e.rows_count);
        s.scores = phases * w.dim;
        // An exponential for the factor, then a multiplication per output.
        s.rescale =
            rows_per_unit * e.exp_interval_cycles + ceil_div(w.value_dim, e.keys_per_row_count);
        s.sums = s.rescale + phases * std::max(w.value_dim, exponentials);
        return s;
    }
    [[nodiscard]] constexpr index_t slot() const noexcept { return std::max(scores, sums); }
};

/// Divisions of finished rows as in SU-FA.
[[nodiscard]] inline stage_time flash_time(attention_engine const& e, tile_work const& w) noexcept {
    auto const s = flash_schedule::of(e, w);
    index_t interval = s.groups * s.slot();
    index_t latency = 0;
    if (s.groups > 0) {
        latency = interval + s.sums + (e.rows_count - 1) * e.row_skew_cycles +
                  2 * e.mac_latency_cycles + e.exp_latency_cycles;
    }
    return with_divisions(e, w, interval, latency);
}

/// As SU-FA, and per row and tile an exponential and `value_dim` multiplications for the
/// rescaling, and a comparison per score, priced as the update of a maximum.
inline void add_flash_activity(attention_engine const& e, tile_work const& w,
                               activity_counts& into) noexcept {
    using detail::count;
    auto const s = flash_schedule::of(e, w);
    std::uint64_t const rescaled = s.groups == 0 ? 0 : count(w.rows);
    into.add(activity::multiply_add,
             w.kept_pairs * count(w.dim + w.value_dim) + rescaled * count(w.value_dim));
    into.add(activity::exp, w.kept_pairs + rescaled);
    into.add(activity::max_update, w.kept_pairs);
    into.add(activity::divide, count(w.finished_rows * w.value_dim));
    into.add(activity::row_cycle, count(w.rows * s.slot()));
    into.add(activity::token_read_bytes,
             count(w.loads * (w.dim + w.value_dim)) * probe::formal_operand_bytes);
}

} // namespace sofattn::hw
