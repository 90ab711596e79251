// SPDX-License-Identifier: MIT
// KV generation engine: exact K and V of tokens that are kept for the first time.
#pragma once

#include <sofattn/core/types.hpp>
#include <sofattn/hw/activity.hpp>
#include <sofattn/hw/config_parts.hpp>
#include <sofattn/hw/systolic.hpp>
#include <sofattn/hw/tile_work.hpp>

#include <cstdint>

namespace sofattn::hw {

/// Channels of K and V side by side along the rows, tokens along the columns, `channels` products
/// deep. The paper gives the array's size only; this orientation fills it best, since a tile
/// rarely asks for as many new tokens as there are rows.
[[nodiscard]] constexpr stage_time generation_time(generation_engine const& e,
                                                   tile_work const& w) noexcept {
    index_t const passes = ceil_div(w.dim + w.value_dim, e.array_rows_count) *
                           ceil_div(w.generated_keys, e.array_columns_count);
    return systolic_array{e.array_rows_count, e.array_columns_count, e.mac_latency_cycles}.time(
        passes, w.channels);
}

/// Per pass, weights and tokens (16 bits) are read once; K and V are written to the token memory.
constexpr void add_generation_activity(generation_engine const& e, tile_work const& w,
                                       activity_counts& into) noexcept {
    using detail::count;
    index_t const outputs = w.dim + w.value_dim;
    index_t const row_groups = ceil_div(outputs, e.array_rows_count);
    index_t const token_groups = ceil_div(w.generated_keys, e.array_columns_count);
    auto const operand = static_cast<index_t>(probe::formal_operand_bytes);
    into.add(activity::kv_multiply_add, count(w.generated_keys * w.channels * outputs));
    into.add(activity::weight_read_bytes, count(outputs * w.channels * token_groups * operand));
    into.add(activity::token_read_bytes,
             count(w.generated_keys * w.channels * row_groups * operand));
    into.add(activity::token_write_bytes, count(w.generated_keys * outputs * operand));
}

} // namespace sofattn::hw
