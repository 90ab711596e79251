// SPDX-License-Identifier: MIT
// An array that rows are packed into by their kept keys: the formal stage of Sanger.
#pragma once

#include <sofattn/core/types.hpp>
#include <sofattn/hw/activity.hpp>
#include <sofattn/hw/config_parts.hpp>
#include <sofattn/hw/division_time.hpp>
#include <sofattn/hw/tile_work.hpp>
#include <sofattn/probe/event.hpp>

#include <algorithm>
#include <cmath>

namespace sofattn::hw {

/// Rows are cut at a length and short ones put together, so that the elements have products
/// whatever the rows keep; no row waits for the fullest. What the packing leaves empty is a
/// published share, `packed_use_share`, not simulated. Elements hold scores: the array multiplies
/// queries with keys, then in place the weights with values, with all elements of both of SU-FA's
/// arrays. Source: Sanger, MICRO 2021, as read in its published model; a division per output as in
/// SU-FA.
[[nodiscard]] inline stage_time packed_time(attention_engine const& e,
                                            tile_work const& w) noexcept {
    index_t interval = 0;
    index_t latency = 0;
    if (w.kept_pairs > 0) {
        auto const elements = static_cast<double>(2 * e.rows_count * e.keys_per_row_count);
        auto const rounds = static_cast<index_t>(
            std::ceil(static_cast<double>(w.kept_pairs) / (elements * e.packed_use_share)));
        interval = rounds * (w.dim + w.value_dim);
        latency = interval + (e.rows_count - 1) * e.row_skew_cycles + 2 * e.mac_latency_cycles +
                  e.exp_latency_cycles;
    }
    return with_divisions(e, w, interval, latency);
}

/// Products and exponentials of the kept pairs. A row is at work while the array is.
inline void add_packed_activity(attention_engine const& e, tile_work const& w,
                                activity_counts& into) noexcept {
    using detail::count;
    tile_work products = w;
    products.finished_rows = 0;
    into.add(activity::multiply_add, w.kept_pairs * count(w.dim + w.value_dim));
    into.add(activity::exp, w.kept_pairs);
    into.add(activity::divide, count(w.finished_rows * w.value_dim));
    into.add(activity::row_cycle,
             count(std::min(w.rows, e.rows_count)) * packed_time(e, products).interval_cycles);
    into.add(activity::token_read_bytes,
             count(w.loads * (w.dim + w.value_dim)) * probe::formal_operand_bytes);
}

} // namespace sofattn::hw
