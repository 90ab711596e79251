// SPDX-License-Identifier: MIT
// Engines that attend and tiles for them, at random.
#pragma once

#include "support/generators.hpp"
#include <sofattn/core/types.hpp>
#include <sofattn/hw/config_parts.hpp>
#include <sofattn/hw/tile_work.hpp>

#include <cstdint>

namespace sofattn::test {

/// Small enough to be stepped.
[[nodiscard]] inline hw::attention_engine some_attention_engine(generator& random) {
    hw::attention_engine e;
    e.rows_count = random.integer<index_t>(1, 8);
    e.keys_per_row_count = random.integer<index_t>(1, 3);
    e.row_skew_cycles = random.integer<index_t>(0, 2);
    e.mac_latency_cycles = random.integer<index_t>(0, 2);
    e.exp_units_count = random.integer<index_t>(1, 9);
    e.exp_interval_cycles = random.integer<index_t>(1, 3);
    e.exp_latency_cycles = random.integer<index_t>(0, 5);
    e.max_update_cycles = random.integer<index_t>(0, 3);
    e.dividers_count = random.integer<index_t>(1, 9);
    e.divide_interval_cycles = random.integer<index_t>(1, 3);
    e.divide_latency_cycles = random.integer<index_t>(0, 9);
    return e;
}

/// Rows that keep equally many keys, and sometimes are finished.
[[nodiscard]] inline hw::tile_work some_attended_tile(generator& random) {
    hw::tile_work w;
    w.rows = random.integer<index_t>(1, 17);
    w.dim = random.integer<index_t>(1, 24);
    w.value_dim = random.integer<index_t>(1, 24);
    w.kept_most = random.integer<index_t>(0, 15);
    w.kept_pairs = static_cast<std::uint64_t>(w.rows * w.kept_most);
    w.max_updates = random.integer<std::uint64_t>(0, w.kept_pairs);
    w.finished_rows = random.chance(0.3) ? w.rows : 0;
    return w;
}

} // namespace sofattn::test
