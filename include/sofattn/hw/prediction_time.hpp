// SPDX-License-Identifier: MIT
// DLZS engine: both phases on one shift array, paper section IV-B, Fig. 12.
#pragma once

#include <sofattn/core/types.hpp>
#include <sofattn/hw/activity.hpp>
#include <sofattn/hw/config_parts.hpp>
#include <sofattn/hw/kinds.hpp>
#include <sofattn/hw/out_buffer.hpp>
#include <sofattn/hw/systolic.hpp>
#include <sofattn/hw/tile_work.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace sofattn::hw {

/// Whether operands become leading-zero codes on their way in.
[[nodiscard]] inline bool encodes(prediction_engine const& e) noexcept {
    return kind_of(e) == predictor_kind::dlzs || kind_of(e) == predictor_kind::two_sided_lz;
}
/// Operands pass the encoders' register whether they are converted or not, where there are any.
[[nodiscard]] inline systolic_array array_of(prediction_engine const& e) noexcept {
    return {e.array_rows_count, e.array_columns_count,
            (encodes(e) ? e.encoder_latency_cycles : 0) + e.result_latency_cycles};
}
/// Keys of a tile that are predicted again, with more bits.
[[nodiscard]] inline index_t survivors(prediction_engine const& e, index_t keys) noexcept {
    return kind_of(e) == predictor_kind::multi_round
               ? static_cast<index_t>(std::ceil(e.survivors_share * static_cast<double>(keys)))
               : 0;
}

/// Bytes per cycle that the memories take of the array's sums: K^ goes to the token memory, scores
/// to the temporary one. 0: as many as come.
struct sum_ports {
    index_t key_bytes = 0;
    index_t score_bytes = 0;
};

namespace detail {
/// Passes of an array of which each leaves its part of `sums`.
[[nodiscard]] inline stage_time passes_time(prediction_engine const& e, index_t passes,
                                            index_t depth, index_t pace, index_t sums,
                                            index_t port_bytes) noexcept {
    systolic_array const array = array_of(e);
    if (passes == 0) {
        return {};
    }
    out_buffer const out{e.out_buffer_bytes, port_bytes, ceil_div(sums * e.result_bytes, passes)};
    return out.time(array.time(passes, depth, pace), passes, std::max(depth, array.columns),
                    e.array_rows_count * e.result_bytes);
}
} // namespace detail

/// Phase 1.1: `predicted_keys` tokens along the rows, channels of K^ along the columns, `channels`
/// products deep. The codes of W_k come converted.
[[nodiscard]] inline stage_time key_prediction_time(prediction_engine const& e, tile_work const& w,
                                                    index_t port_bytes = 0) noexcept {
    index_t const passes =
        ceil_div(w.predicted_keys, e.array_rows_count) * ceil_div(w.dim, e.array_columns_count);
    return detail::passes_time(e, passes, w.channels, 1, w.predicted_keys * w.dim, port_bytes);
}

/// Phase 1.2: queries along the rows, keys along the columns, `dim` products deep. Where the block is
/// new, its queries pass the encoders on their way into the first pass, one element of every row at
/// a time. A second round (multi_round) packs the survivors of a tile into as few columns as they need
/// and begins when the selector has judged the first, which it is taken to do without a pause; codes
/// of both operands (two_sided_lz) take an encoder per row and per column (hw::validate).
[[nodiscard]] inline stage_time score_prediction_time(prediction_engine const& e,
                                                      tile_work const& w,
                                                      index_t port_bytes = 0) noexcept {
    index_t const again = survivors(e, w.keys);
    index_t const passes =
        ceil_div(w.rows, e.array_rows_count) *
        (ceil_div(w.keys, e.array_columns_count) + ceil_div(again, e.array_columns_count));
    index_t const pace = w.encoded_values == 0 || !encodes(e)
                             ? 1
                             : ceil_div(std::min(w.rows, e.array_rows_count), e.lz_encoders_count);
    return detail::passes_time(e, passes, w.dim, pace, w.rows * (w.keys + again), port_bytes);
}

/// Scores need K^, so the second phase begins when the last K^ of the tile is out; the next tile's
/// first phase follows the second back to back.
///
/// Zeros are kept from the elements (paper: zero eliminator), which saves their switching but no
/// cycle: the operands of all rows and columns move in step.
[[nodiscard]] inline stage_time prediction_time(prediction_engine const& e, tile_work const& w,
                                                sum_ports const& ports = {}) noexcept {
    if (!predicts(e)) {
        return {};
    }
    stage_time const keys = key_prediction_time(e, w, ports.key_bytes);
    stage_time const scores = score_prediction_time(e, w, ports.score_bytes);
    if (scores.latency_cycles == 0) {
        return keys;
    }
    return {keys.latency_cycles + scores.interval_cycles,
            keys.latency_cycles + scores.latency_cycles};
}

namespace detail {
[[nodiscard]] constexpr activity product_activity(probe::event product) noexcept {
    switch (product) {
    case probe::event::shift_add_8: return activity::shift_add_8;
    case probe::event::multiply_add_4: return activity::predictor_multiply_add_4;
    case probe::event::multiply_add_8: return activity::predictor_multiply_add_8;
    case probe::event::multiply_add_16: return activity::predictor_multiply_add_16;
    default: return activity::shift_add_16;
    }
}
} // namespace detail

/// What a tile makes the engine do, memory accesses included: per pass, tokens (8 bits), codes (4
/// bits) and K^ (`result_bytes`) are read once and travel through the array; scores are written as
/// they leave.
inline void add_prediction_activity(prediction_engine const& e, tile_work const& w,
                                    activity_counts& into) noexcept {
    using detail::count;
    if (!predicts(e)) {
        return;
    }
    index_t const again = survivors(e, w.keys);
    // A multiplier has no zero eliminator before it.
    into.add(detail::product_activity(w.key_product),
             w.key_products() - (encodes(e) ? w.skipped_key_products : 0));
    into.add(detail::product_activity(w.score_product),
             w.score_products() - (encodes(e) ? w.skipped_score_products : 0) +
                 count(w.rows * again * w.dim));
    into.add(activity::lz_encode, encodes(e) ? count(w.encoded_values) : 0);
    if (kind_of(e) == predictor_kind::two_sided_lz) {
        into.add(activity::lz_encode, count(w.keys * w.dim * ceil_div(w.rows, e.array_rows_count)));
    }
    if (w.rotates_keys) {
        into.add(activity::key_rotation, count(2 * w.predicted_keys * w.dim));
    }
    index_t const token_groups = ceil_div(w.predicted_keys, e.array_rows_count);
    index_t const dim_groups = ceil_div(w.dim, e.array_columns_count);
    index_t const row_groups = ceil_div(w.rows, e.array_rows_count);
    into.add(activity::token_read_bytes,
             count(w.predicted_keys * w.channels * dim_groups +
                   (w.keys + again) * w.dim * e.result_bytes * row_groups));
    into.add(activity::weight_read_bytes,
             count(ceil_div(w.dim * w.channels * token_groups, index_t{2})));
    into.add(activity::token_write_bytes, count(w.predicted_keys * w.dim * e.result_bytes));
    into.add(activity::temporary_write_bytes, w.visible_pairs * count(e.result_bytes));
}

} // namespace sofattn::hw
