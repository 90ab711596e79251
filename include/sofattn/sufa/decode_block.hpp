// SPDX-License-Identifier: MIT
// Attention of a few rows to a chunk of keys, each key read once for all of them: decode.
#pragma once

#include <sofattn/core/assert.hpp>
#include <sofattn/core/element.hpp>
#include <sofattn/core/page_table.hpp>
#include <sofattn/core/scaled_view.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/core/view.hpp>
#include <sofattn/exec/tile_product.hpp>
#include <sofattn/exec/xsimd_lanes.hpp>
#include <sofattn/sufa/logit_lanes.hpp>
#include <sofattn/sufa/logit_map.hpp>
#include <sofattn/sufa/row_source.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <numbers>
#include <span>
#include <type_traits>

namespace sofattn::sufa {

/// Attention of a few rows to the keys of a chunk; leaves (m, l, o) per row, to be merged.
///
/// Memory decides here, so a tile of keys and values is read once and serves all rows from the
/// first cache, up to four at a time. Lanes are channels, whose products are summed across lanes, a
/// register of sums at a time: one query has no rows to fill lanes with, and keys lie by rows.
///
/// in     row(i)      [dim], query of row i, i < rows
///        visible(i)  row i attends to the first visible(i) keys of the chunk, any count
///        keys        [key, dim], values [key, value_dim]; any strides, copied where a row is not
///                    contiguous or no whole registers; logits = scale * q.k. Where they are codes, a
///                    row's scale is multiplied to its logit, or to its weight, and elements stay codes
///        listed      numbers of the keys to attend to, in any order; what follows them in the list
///                    is asked of memory ahead
///        map, terms(i) what becomes of logits, with what of row i, whose position is counted from the
///                    first key; no bias for listed keys, whose places say nothing
///        table       where the keys lie, if in pages: the same bits as if they lay in a row
/// out    state(i)    float*, [state_floats(value_dim)] of row i: o, padded, then m in octaves, l
/// pre    0 < rows <= the constructor's; memory of `floats(...)` floats; |logit| < 1e30
/// error  none
/// events none: this is no circuit
/// exact  deterministic, whoever runs it; within 2e-5 of a double-precision oracle (relative,
///        Frobenius) once merged, and 1e-6 more per unit of logit that all keys have in common
/// paper  not in the paper, which has no decode; (m, l, o) of Fig. 10b
class decode_block {
public:
    static constexpr index_t tile_keys =
        detail::tile_keys;                 ///< K and V of 128 channels in f16: most of 48 KB
    static constexpr float masked = 4e30f; ///< no logit is as far from 0, in octaves

    /// Scratch of one thread.
    [[nodiscard]] static constexpr index_t floats(index_t rows, index_t dim,
                                                  index_t value_dim) noexcept {
        return rows * padded(dim) + 5 * rows * width + 4 * tile_keys +
               tile_keys * (padded(dim) + padded(value_dim));
    }
    /// Of one row's (m, l, o).
    [[nodiscard]] static constexpr index_t state_floats(index_t value_dim) noexcept {
        return padded(value_dim) + 16; // m and l have a cache line of their own
    }
    /// m and l of a state; no key was seen where l is 0.
    [[nodiscard]] static float& max_of(float* state, index_t value_dim) noexcept {
        return state[padded(value_dim)];
    }
    [[nodiscard]] static float& sum_of(float* state, index_t value_dim) noexcept {
        return state[padded(value_dim) + 1];
    }

    /// The output of one row, [value_dim], from its `count` states that follow each other in memory;
    /// they are merged in order, into the first, which has the row's m and l then, its sink's included.
    static float const* merged(float* states, index_t count, index_t value_dim,
                               float sink = row_terms::no_sink) noexcept {
        using exec::vector_float;
        index_t const each = state_floats(value_dim);
        float max = -masked;
        for (index_t c = 0; c < count; ++c) {
            float* const state = states + c * each;
            max = sum_of(state, value_dim) > 0.0f ? std::max(max, max_of(state, value_dim)) : max;
        }
        float sum = 0.0f;
        for (index_t c = 0; c < count; ++c) {
            float* const state = states + c * each;
            float const factor =
                sum_of(state, value_dim) > 0.0f ? std::exp2(max_of(state, value_dim) - max) : 0.0f;
            sum += sum_of(state, value_dim) * factor;
            for (index_t d = 0; d < padded(value_dim); d += width) {
                vector_float const part = exec::load(state + d) * vector_float(factor);
                exec::store(states + d, c == 0 ? part : exec::load(states + d) + part);
            }
        }
        // A row without keys is 0, never -0.
        row_end const end = row_end::of(max, sum, sink);
        vector_float const inverse(end.inverse);
        for (index_t d = 0; d < padded(value_dim); d += width) {
            exec::store(states + d, exec::load(states + d) * inverse);
        }
        max_of(states, value_dim) = end.max;
        sum_of(states, value_dim) = end.sum;
        return states;
    }

    /// `memory` [floats(rows, dim, value_dim)], aligned to a cache line for speed.
    decode_block(index_t rows, index_t dim, index_t value_dim, std::span<float> memory) noexcept
        : dim_(dim), value_dim_(value_dim), rows_most_(rows) {
        SOFATTN_ASSERT(std::ssize(memory) >= floats(rows, dim, value_dim));
        float* next = memory.data();
        auto const take = [&](index_t count) {
            float* const start = next;
            next += count;
            return start;
        };
        queries_ = take(rows * padded(dim));
        max_ = take(rows * width);
        sum_ = take(rows * width);
        sees_ = take(rows * width);
        slope_ = take(rows * width);
        distance_ = take(rows * width);
        weights_ = take(4 * tile_keys);
        keys_ = take(tile_keys * padded(dim));
        values_ = take(tile_keys * padded(value_dim));
    }

    /// Asks memory for the first of `listed`, as a call does for those that follow its own.
    template <stored_rows<axis::dim> K, stored_rows<axis::value_dim> V>
    static void ask_for_first(std::span<key_id const> listed, K keys, V values) noexcept {
        detail::ask(detail::some_of(keys, listed), keys.template extent<axis::dim>(),
                    detail::some_of(values, listed), values.template extent<axis::value_dim>(), 0);
    }

    /// Keys and values in a row.
    template <stored_rows<axis::dim> K, stored_rows<axis::value_dim> V, std::invocable<index_t> Row,
              std::invocable<index_t> Visible, std::invocable<index_t> State,
              std::invocable<index_t> Terms = plain_rows>
    void operator()(index_t rows, double scale, Row row, Visible visible, K keys, V values,
                    State state, logit_map const& map = {}, Terms terms = {}) noexcept {
        map_ = map;
        attend(rows, scale, row, visible, detail::all_of(keys), detail::all_of(values), state,
               terms);
    }
    /// The first `count` of those that `listed` names, all of them visible, as they lie.
    template <stored_rows<axis::dim> K, stored_rows<axis::value_dim> V, std::invocable<index_t> Row,
              std::invocable<index_t> State>
    void operator()(index_t rows, double scale, Row row, std::span<key_id const> listed,
                    index_t count, K keys, V values, State state,
                    logit_map const& map = {}) noexcept {
        SOFATTN_ASSERT(count <= std::ssize(listed) && !map.is_biased);
        map_ = map;
        attend(
            rows, scale, row, [=](index_t) { return count; }, detail::some_of(keys, listed),
            detail::some_of(values, listed), state, plain_rows{});
    }
    /// Tokens [first, first + count) of a sequence whose rows lie in pages.
    template <stored_rows<axis::dim> K, stored_rows<axis::value_dim> V, std::invocable<index_t> Row,
              std::invocable<index_t> Visible, std::invocable<index_t> State,
              std::invocable<index_t> Terms = plain_rows>
    void operator()(index_t rows, double scale, Row row, Visible visible, page_table const& table,
                    index_t first, index_t count, K keys, V values, State state,
                    logit_map const& map = {}, Terms terms = {}) noexcept {
        map_ = map;
        if (table.is_run(first, count)) {
            index_t const from = count > 0 ? table.row(first) : 0;
            attend(rows, scale, row, visible,
                   detail::all_of(keys.template range<axis::key>(from, count)),
                   detail::all_of(values.template range<axis::key>(from, count)), state, terms);
            return;
        }
        std::array<key_id, 2 * tile_keys> places; // of a tile, and of the next
        auto const k_rows = detail::some_of(keys, {});
        auto const v_rows = detail::some_of(values, {});
        detail::paged_rows<typename decltype(k_rows)::element> const k{k_rows, &table, first, count,
                                                                       places.data()};
        detail::paged_rows<typename decltype(v_rows)::element, false> const v{v_rows, &table, first,
                                                                              count, places.data()};
        attend(rows, scale, row, visible, k, v, state, terms);
    }

private:
    static constexpr index_t width = exec::vector_width;

    [[nodiscard]] static constexpr index_t padded(index_t dims) noexcept {
        return detail::in_registers(dims);
    }

    template <class Row, class Visible, class K, class V, class State, class Terms>
    void attend(index_t rows, double scale, Row row, Visible visible, K keys, V values, State state,
                Terms terms) noexcept {
        SOFATTN_ASSERT(rows > 0 && rows <= rows_most_);
        index_t seen = 0;
        for (index_t i = 0; i < rows; ++i) {
            pack_query(i, row(i), scale);
            seen = std::max(seen, visible(i));
            std::fill_n(state(i), state_floats(value_dim_), 0.0f);
        }
        for_each_batch(rows, [&](auto batch, index_t first) {
            constexpr int lanes_each = static_cast<int>(width) / batch;
            for (int lane = 0; lane < width; ++lane) {
                // A lane's key stands lane % lanes_each after the first of its block.
                auto const sees = visible(first + lane / lanes_each) - lane % lanes_each;
                sees_[first * width + lane] = static_cast<float>(sees);
                row_terms const of = terms(first + lane / lanes_each);
                slope_[first * width + lane] = of.slope;
                distance_[first * width + lane] =
                    static_cast<float>(of.position - lane % lanes_each);
                max_[first * width + lane] = -masked;
                sum_[first * width + lane] = 0.0f;
            }
        });
        for (index_t first = 0; first < seen; first += tile_keys) {
            index_t const count = std::min(tile_keys, seen - first);
            auto const k = keys.from_row(first);
            auto const v = values.from_row(first);
            detail::ask(k, dim_, v, value_dim_, tile_keys);
            constexpr bool scaled = decltype(k)::is_scaled;
            static_assert(scaled == decltype(v)::is_scaled);
            if constexpr (scaled) {
                k.copy_scales(count, key_scales_.data());
                v.copy_scales(count, value_scales_.data());
            }
            auto const with_values = [&](auto const& key_source) {
                if (v.lies_well(value_dim_)) {
                    attend_tile<scaled>(rows, first, count, key_source, v, state);
                } else {
                    attend_tile<scaled>(rows, first, count, key_source,
                                        v.copied(count, value_dim_, values_), state);
                }
            };
            if (k.lies_well(dim_)) {
                with_values(k);
            } else {
                with_values(k.copied(count, dim_, keys_));
            }
        }
        for_each_batch(rows, [&](auto batch, index_t first) {
            constexpr int lanes_each = static_cast<int>(width) / batch;
            for (int r = 0; r < batch; ++r) {
                float const* const sums = sum_ + first * width + r * lanes_each;
                float sum = 0.0f;
                for (int lane = 0; lane < lanes_each; ++lane) {
                    sum += sums[lane];
                }
                bool const sees_keys = visible(first + r) > 0;
                float* const to = state(first + r);
                max_of(to, value_dim_) = max_[first * width + r * lanes_each];
                sum_of(to, value_dim_) = sees_keys ? sum : 0.0f;
            }
        });
    }

    template <class Query>
    void pack_query(index_t i, Query query, double scale) noexcept {
        // Logits in octaves: the exponential is a power of two.
        auto const octaves = static_cast<float>(scale * std::numbers::log2e);
        float* const to = queries_ + i * padded(dim_);
        for (index_t d = 0; d < dim_; ++d) {
            to[d] = to_float(query(d)) * octaves;
        }
        std::fill(to + dim_, to + padded(dim_), 0.0f);
    }

    /// f(batch, first row) for batches of 4, 2 and 1 rows: a register's lanes divide by them.
    template <class F>
    static void for_each_batch(index_t rows, F f) noexcept {
        index_t i = 0;
        for (; i + 4 <= rows; i += 4) {
            f(std::integral_constant<int, 4>{}, i);
        }
        if (i + 2 <= rows) {
            f(std::integral_constant<int, 2>{}, i);
            i += 2;
        }
        if (i < rows) {
            f(std::integral_constant<int, 1>{}, i);
        }
    }

    template <bool Scaled, class K, class V, class State>
    void attend_tile(index_t rows, index_t first_key, index_t count, K const& keys, V const& values,
                     State state) noexcept {
        for_each_batch(rows, [&](auto batch, index_t first) {
            constexpr int together = batch;
            std::array<float*, together> out;
            for (int r = 0; r < together; ++r) {
                out[static_cast<std::size_t>(r)] = state(first + r);
            }
            weigh<together, Scaled>(first, first_key, count, keys, values, out);
            add_values<together>(first, count, values, out);
        });
    }

    /// Weights of a tile's keys, for its values as they are stored, into weights_ [block of keys, row, key of
    /// the block].
    template <int Rows, bool Scaled, class K, class V>
    void weigh(index_t first, index_t first_key, index_t count, K const& keys, V const& values,
               std::array<float*, Rows> const& out) noexcept {
        using exec::vector_float;
        constexpr auto block_keys = static_cast<int>(width) / Rows;
        float const* const queries = queries_ + first * padded(dim_);
        auto const blocks = ceil_div<index_t>(count, block_keys);
        vector_float const sees = exec::load(sees_ + first * width);
        // All lanes see a block's first key and what follows it by less than the least.
        float const least = *std::min_element(sees_ + first * width, sees_ + (first + 1) * width);
        vector_float top = exec::load(max_ + first * width);
        for (index_t b = 0; b < blocks; ++b) {
            // Half of V is asked for here, for requests must be spread over the time that all takes.
            if (first == 0) {
                keys.template prefetch<block_keys, 1>(b * block_keys, dim_);
                values.template prefetch<block_keys, 2>(b * block_keys, value_dim_);
            }
            vector_float logits = products<Rows>(queries, b * block_keys, count, keys);
            if constexpr (Scaled) {
                logits = logits * exec::repeated<block_keys>(key_scales_.data() + b * block_keys);
            }
            auto const at = static_cast<float>(first_key + b * block_keys);
            if (!(at < least)) {
                logits = exec::if_below(vector_float(at), sees, logits, vector_float(-masked));
            }
            exec::store(weights_ + b * width, logits);
            top = exec::larger(top, logits);
        }
        if (!map_.is_plain()) {
            top = map_logits<block_keys>(first, first_key, blocks);
        }
        // A row's lanes share the largest of theirs.
        std::array<float, static_cast<std::size_t>(width)> tops;
        exec::store(tops.data(), top);
        for (int r = 0; r < Rows; ++r) {
            auto const from = tops.begin() + r * block_keys;
            std::fill(from, from + block_keys, *std::max_element(from, from + block_keys));
        }
        vector_float const max = exec::load(tops.data());
        vector_float const factor = exec::exp2_of_negative(exec::load(max_ + first * width) - max);
        exec::store(max_ + first * width, max);
        vector_float sum = exec::load(sum_ + first * width) * factor;
        for (index_t b = 0; b < blocks; ++b) {
            float* const at = weights_ + b * width;
            vector_float const weight = exec::exp2_of_negative(exec::load(at) - max);
            if constexpr (Scaled) {
                exec::store(
                    at, weight * exec::repeated<block_keys>(value_scales_.data() + b * block_keys));
            } else {
                exec::store(at, weight);
            }
            sum = sum + weight;
        }
        exec::store(sum_ + first * width, sum);
        exec::store(tops.data(), factor);
        for (index_t r = 0; r < Rows; ++r) {
            float const by = tops[static_cast<std::size_t>(r * block_keys)];
            if (by != 1.0f) {
                float* const row = out[static_cast<std::size_t>(r)];
                for (index_t d = 0; d < padded(value_dim_); d += width) {
                    exec::store(row + d, exec::load(row + d) * vector_float(by));
                }
            }
        }
    }

    /// What the model does to the logits in weights_; returns the largest of each lane.
    template <int BlockKeys>
    [[nodiscard]] exec::vector_float map_logits(index_t first, index_t first_key,
                                                index_t blocks) noexcept {
        using exec::vector_float;
        vector_float const sees = exec::load(sees_ + first * width);
        vector_float const slope = exec::load(slope_ + first * width);
        vector_float const distance = exec::load(distance_ + first * width);
        vector_float top = exec::load(max_ + first * width);
        for (index_t b = 0; b < blocks; ++b) {
            float* const to = weights_ + b * width;
            vector_float const at(static_cast<float>(first_key + b * BlockKeys));
            vector_float const logits =
                exec::if_below(at, sees, mapped(map_, exec::load(to), slope, distance - at),
                               vector_float(-masked));
            exec::store(to, logits);
            top = exec::larger(top, logits);
        }
        return top;
    }

    /// Logits of a block of keys, [row, key]; keys beyond `count` repeat the last.
    template <int Rows, class K>
    [[nodiscard]] exec::vector_float products(float const* queries, index_t key, index_t count,
                                              K const& keys) const noexcept {
        using exec::vector_float;
        constexpr int block_keys = static_cast<int>(width) / Rows;
        index_t const query_row = padded(dim_);
        std::array<decltype(keys.at(0)), block_keys> at;
        exec::detail::unrolled<block_keys>([&](auto k) __attribute__((always_inline)) {
            at[k] = keys.at(std::min<index_t>(key + k, count - 1));
        });
        std::array<vector_float, static_cast<std::size_t>(width)> sums;
        exec::detail::unrolled<static_cast<int>(width)>([&](auto i) __attribute__((always_inline)) {
            sums[i] = vector_float(0.0f);
        });
        for (index_t d = 0; d < dim_; d += width) {
            std::array<vector_float, Rows> query;
            exec::detail::unrolled<Rows>([&](auto r) __attribute__((always_inline)) {
                query[r] = exec::held(exec::load(queries + r * query_row + d));
            });
            exec::detail::unrolled<block_keys>([&](auto k) __attribute__((always_inline)) {
                vector_float const wide = exec::load(at[k] + d);
                exec::detail::unrolled<Rows>([&](auto r) __attribute__((always_inline)) {
                    auto& sum = sums[r * block_keys + k];
                    sum = exec::multiply_add(query[r], wide, sum);
                });
            });
        }
        return exec::sums_of(sums);
    }

    template <int Rows, class V>
    void add_values(index_t first, index_t count, V const& values,
                    std::array<float*, Rows> const& out) noexcept {
        constexpr int most = std::min(8, (exec::vector_registers == 32 ? 16 : 8) / Rows);
        index_t d = 0;
        for (; d + most * width <= value_dim_; d += most * width) {
            add_columns<Rows, most>(count, values.from_column(d), out, d, first == 0 && d == 0);
        }
        for (; d < value_dim_; d += width) {
            add_columns<Rows, 1>(count, values.from_column(d), out, d, first == 0 && d == 0);
        }
    }

    template <int Rows, int Vectors, class V>
    void add_columns(index_t count, V const& values, std::array<float*, Rows> const& out,
                     index_t column, bool ask) noexcept {
        using exec::vector_float;
        constexpr int block_keys = static_cast<int>(width) / Rows;
        std::array<std::array<vector_float, Vectors>, Rows> sum;
        exec::detail::unrolled<Rows>([&](auto r) __attribute__((always_inline)) {
            exec::detail::unrolled<Vectors>([&](auto v) __attribute__((always_inline)) {
                sum[r][v] = exec::load(out[r] + column + v * width);
            });
        });
        for (index_t k = 0; k < count; ++k) {
            auto const* const row = values.at(k);
            if (ask && k % 2 != 0) {
                values.template prefetch<1, 1>(k, value_dim_);
            }
            float const* const weights = weights_ + k / block_keys * width + k % block_keys;
            std::array<vector_float, Vectors> wide;
            exec::detail::unrolled<Vectors>([&](auto v) __attribute__((always_inline)) {
                wide[v] = exec::load(row + v * width);
            });
            exec::detail::unrolled<Rows>([&](auto r) __attribute__((always_inline)) {
                vector_float const weight(weights[r * block_keys]);
                exec::detail::unrolled<Vectors>([&](auto v) __attribute__((always_inline)) {
                    sum[r][v] = exec::multiply_add(weight, wide[v], sum[r][v]);
                });
            });
        }
        exec::detail::unrolled<Rows>([&](auto r) __attribute__((always_inline)) {
            exec::detail::unrolled<Vectors>([&](auto v) __attribute__((always_inline)) {
                exec::store(out[r] + column + v * width, sum[r][v]);
            });
        });
    }

    index_t dim_;
    index_t value_dim_;
    index_t rows_most_;
    logit_map map_{};
    float* queries_; ///< [row, padded dim], scaled
    float* max_;     ///< [batch, lane], octaves; a row's lanes are equal
    float* sum_;     ///< [batch, lane]
    float* sees_;    ///< [batch, lane], keys of the chunk, less the lane's place in its block
    float* slope_;   ///< [batch, lane]
    float*
        distance_; ///< [batch, lane], from the chunk's first key to the query, less the lane's place
    float* weights_; ///< [block of keys, lane], of one batch
    float* keys_;    ///< [key, padded dim], where they cannot be read as they lie
    float* values_;  ///< [key, padded value_dim], the same
    std::array<float, static_cast<std::size_t>(tile_keys)> key_scales_{}; ///< of a tile of codes
    std::array<float, static_cast<std::size_t>(tile_keys)> value_scales_{};
};

} // namespace sofattn::sufa
