// SPDX-License-Identifier: MIT
// SU-FA engine: two systolic arrays and the AP modules between them, section IV-D, Fig. 14.
#pragma once

#include <sofattn/core/types.hpp>
#include <sofattn/hw/activity.hpp>
#include <sofattn/hw/config_parts.hpp>
#include <sofattn/hw/division_time.hpp>
#include <sofattn/hw/flash_time.hpp>
#include <sofattn/hw/kinds.hpp>
#include <sofattn/hw/packed_time.hpp>
#include <sofattn/hw/tile_work.hpp>

#include <algorithm>
#include <cstdint>

namespace sofattn::hw {

/// Rows go through the tile in phases, in step: in each, a row multiplies its query with the next
/// keys, one per element (array 1, `dim` cycles); its AP module turns the scores into weights; and
/// the values are added (array 2, `value_dim` cycles). The three overlap as a pipeline with a fixed
/// schedule, laid out for a phase in which every score is a new maximum.
///
/// The AP module takes a score per `exp_interval`; one above the maximum (mode 1) holds it
/// `max_update_cycles` longer. Both hide behind the products unless few units serve many rows.
/// Order and events: scores come best predicted first, so mode 1 is met at the beginning of a tile;
/// updates are spread evenly over the units.
struct attention_schedule {
    index_t groups = 0;     ///< turns that it takes to serve all rows
    index_t phases = 0;     ///< per turn
    index_t product = 0;    ///< cycles of a phase in the arrays
    index_t ap_plain = 0;   ///< cycles of a phase in an AP module without new maxima
    index_t ap_scores = 0;  ///< scores of a phase per module
    index_t ap_updates = 0; ///< new maxima per module and turn, in its first phases
    index_t update_cycles = 0;

    [[nodiscard]] static attention_schedule of(attention_engine const& e,
                                               tile_work const& w) noexcept {
        attention_schedule s;
        if (w.kept_most == 0) {
            return s;
        }
        s.groups = ceil_div(w.rows, e.rows_count);
        s.phases = ceil_div(w.kept_most, e.keys_per_row_count);
        s.product = std::max(w.dim, w.value_dim);
        index_t const rows_per_unit =
            ceil_div(e.rows_count, std::min(e.exp_units_count, e.rows_count));
        s.ap_scores = rows_per_unit * e.keys_per_row_count;
        s.ap_plain = s.ap_scores * e.exp_interval_cycles;
        s.update_cycles = e.max_update_cycles;
        auto const modules = std::max<index_t>(1, std::min(w.rows, e.exp_units_count * s.groups));
        s.ap_updates = std::min(s.phases * s.ap_scores,
                                ceil_div(static_cast<index_t>(w.max_updates), modules));
        return s;
    }

    /// Cycles from the beginning of phase `p` of a turn to that of the next.
    [[nodiscard]] constexpr index_t phase_cycles(index_t p) const noexcept {
        index_t const updates = std::clamp<index_t>(ap_updates - p * ap_scores, 0, ap_scores);
        return std::max(product, ap_plain + updates * update_cycles);
    }
    /// Sum of phase_cycles over the first `n` phases.
    [[nodiscard]] constexpr index_t cycles_of(index_t n) const noexcept {
        index_t const full = std::min(n, ap_updates / ap_scores);
        index_t sum = full * phase_cycles(0);
        if (full < n) {
            sum += phase_cycles(full) + (n - full - 1) * std::max(product, ap_plain);
        }
        return sum;
    }
};

/// A tile's rows in turns, then, where the rows are finished, the division of their outputs, which
/// overlaps with the next block (outputs are held twice).
[[nodiscard]] inline stage_time attention_time(attention_engine const& e,
                                               tile_work const& w) noexcept {
    if (kind_of(e) == formal_kind::flash_attention_2) {
        return flash_time(e, w);
    }
    if (kind_of(e) == formal_kind::packed_rows) {
        return packed_time(e, w);
    }
    auto const s = attention_schedule::of(e, w);
    index_t interval = 0;
    index_t latency = 0;
    if (s.groups > 0) {
        interval = s.groups * s.cycles_of(s.phases);
        index_t const last_begins = interval - s.cycles_of(s.phases) + s.cycles_of(s.phases - 1);
        index_t const ap_most = s.ap_scores * (e.exp_interval_cycles + e.max_update_cycles);
        latency = last_begins + (e.rows_count - 1) * e.row_skew_cycles + w.dim +
                  e.mac_latency_cycles + ap_most + e.exp_latency_cycles + w.value_dim +
                  e.mac_latency_cycles;
        latency = std::max(latency, interval);
    }
    return with_divisions(e, w, interval, latency);
}

/// Products of kept pairs: dim for Q.K, value_dim for S.V. A row is at work in every phase of its
/// turn. K and V of a load are read once and pass by all rows.
inline void add_attention_activity(attention_engine const& e, tile_work const& w,
                                   activity_counts& into) noexcept {
    using detail::count;
    if (kind_of(e) == formal_kind::flash_attention_2) {
        add_flash_activity(e, w, into);
        return;
    }
    if (kind_of(e) == formal_kind::packed_rows) {
        add_packed_activity(e, w, into);
        return;
    }
    auto const s = attention_schedule::of(e, w);
    into.add(activity::multiply_add, w.kept_pairs * count(w.dim + w.value_dim));
    into.add(activity::exp, w.kept_pairs);
    into.add(activity::max_update, w.max_updates);
    into.add(activity::divide, count(w.finished_rows * w.value_dim));
    into.add(activity::row_cycle, count(w.rows) * count(s.groups == 0 ? 0 : s.cycles_of(s.phases)));
    into.add(activity::token_read_bytes,
             count(w.loads * (w.dim + w.value_dim)) * probe::formal_operand_bytes);
}

} // namespace sofattn::hw
