// SPDX-License-Identifier: MIT
// FlashAttention-2 over all keys for a block of queries, on the machine's registers.
#pragma once

#include <sofattn/core/assert.hpp>
#include <sofattn/core/element.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/core/view.hpp>
#include <sofattn/exec/tile_product.hpp>
#include <sofattn/exec/xsimd_lanes.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <numbers>
#include <span>

namespace sofattn::sufa {

/// Dense attention of a block of rows to the keys of one KV head, tile of keys by tile.
///
/// Lanes are rows: logits lie transposed, [key][row]. Then K needs no packing, maxima and sums of a
/// row are made without crossing lanes, and the weights of consecutive rows lie side by side, as
/// the product with V wants them. Only the queries are packed, once per block. A tile's logits stay
/// in the second cache, the panel of queries or values that a product runs over in the first.
///
/// in     row(i)      [dim], query of row i, i < rows
///        visible(i)  row i attends to the first visible(i) keys; not decreasing in i
///        keys        [key, dim], values [key, value_dim]; any strides; logits = scale * q.k
/// out    output(i)   [value_dim] of row i, zeros where it sees no key
/// pre    rows <= dense_rows; memory of `floats(dim, value_dim)` floats; |logit| < 1e30
/// error  none
/// events none: this is no circuit
/// exact  deterministic, whoever runs it; rows do not depend on which others share their block;
///        within 2e-5 of a double-precision oracle (relative, Frobenius), and 1e-6 more per unit
///        of logit that all keys of a row have in common, which float rounds off
/// paper  not in the paper; FlashAttention-2 (arXiv 2307.08691), the rival of section III-C
class dense_block {
public:
    static constexpr index_t rows_most = 192; ///< whole panels, whatever the target
    static constexpr index_t tile_keys = 192; ///< whole blocks of sums
    static_assert(rows_most % exec::product_width == 0 && tile_keys % exec::product_rows == 0);

    /// Scratch of one thread.
    [[nodiscard]] static constexpr index_t floats(index_t dim, index_t value_dim) noexcept {
        return rows_most * (dim + tile_keys + padded(value_dim) + 4) +
               tile_keys * (dim + padded(value_dim));
    }

    /// `memory` [floats(dim, value_dim)], aligned to a cache line for speed.
    dense_block(index_t dim, index_t value_dim, std::span<float> memory) noexcept
        : dim_(dim), value_dim_(value_dim), width_(padded(value_dim)) {
        SOFATTN_ASSERT(std::ssize(memory) >= floats(dim, value_dim));
        float* next = memory.data();
        auto const take = [&](index_t count) {
            float* const start = next;
            next += count;
            return start;
        };
        queries_ = take(rows_most * dim);
        weights_ = take(rows_most * tile_keys);
        output_ = take(rows_most * width_);
        max_ = take(rows_most);
        sum_ = take(rows_most);
        factor_ = take(rows_most);
        visible_ = take(rows_most);
        keys_ = take(tile_keys * dim);
        values_ = take(tile_keys * width_);
    }

    template <storage_float K, storage_float V, std::invocable<index_t> Row,
              std::invocable<index_t> Visible, std::invocable<index_t> Output>
    void operator()(index_t rows, double scale, Row row, Visible visible, key_view<K const> keys,
                    value_view<V const> values, Output output) noexcept {
        SOFATTN_ASSERT(rows > 0 && rows <= rows_most);
        rows_ = rows;
        panels_ = ceil_div(rows, exec::product_width);
        pack_queries(row, scale);
        // Lanes without a row see what the last one sees.
        for (index_t i = 0; i < panels_ * exec::product_width; ++i) {
            sees_[static_cast<std::size_t>(i)] = visible(std::min(i, rows - 1));
        }
        index_t const seen = sees_[static_cast<std::size_t>(rows - 1)];
        std::fill_n(output_, panels_ * exec::product_width * width_, 0.0f);
        std::fill_n(max_, rows_most, -masked);
        std::fill_n(sum_, rows_most, 0.0f);
        for (index_t first = 0; first < seen; first += tile_keys) {
            index_t const count = std::min(tile_keys, seen - first);
            bool const all_see_all = sees_[0] >= first + count;
            for (index_t i = 0; i < panels_ * exec::product_width; ++i) {
                visible_[i] = static_cast<float>(
                    all_see_all ? count
                                : std::clamp<index_t>(sees_[static_cast<std::size_t>(i)] - first, 0,
                                                      count));
            }
            attend_tile(tile_of(keys, first, count), tile_of(values, first, count));
        }
        for (index_t i = 0; i < rows; ++i) {
            bool const sees_keys = sees_[static_cast<std::size_t>(i)] > 0;
            float const inverse = sees_keys ? 1.0f / sum_[i] : 0.0f;
            auto const out = output(i);
            for (index_t d = 0; d < value_dim_; ++d) {
                out(d) = sees_keys ? output_[i * width_ + d] * inverse : 0.0f; // never -0
            }
        }
    }

private:
    static constexpr float masked = 4e30f; ///< no logit is as far from 0, in octaves

    /// Whole panels of columns.
    [[nodiscard]] static constexpr index_t padded(index_t dims) noexcept {
        return ceil_div(dims, exec::product_width) * exec::product_width;
    }

    /// Rows of floats, with strides.
    struct source {
        float const* data;
        index_t row;
        index_t column;
    };

    template <class Row>
    void pack_queries(Row row, double scale) noexcept {
        // Logits in octaves: the exponential is a power of two.
        auto const octaves = static_cast<float>(scale * std::numbers::log2e);
        index_t const width = panels_ * exec::product_width;
        for (index_t i = 0; i < width; ++i) {
            if (i < rows_) {
                auto const query = row(i);
                for (index_t d = 0; d < dim_; ++d) {
                    queries_[d * rows_most + i] = to_float(query(d)) * octaves;
                }
            } else {
                for (index_t d = 0; d < dim_; ++d) {
                    queries_[d * rows_most + i] = 0.0f;
                }
            }
        }
    }

    /// Keys as they lie, if they are floats.
    template <storage_float K>
    source tile_of(key_view<K const> keys, index_t first, index_t count) noexcept {
        auto const tile = keys.template range<axis::key>(first, count);
        if constexpr (std::same_as<K, float>) {
            return {tile.data(), tile.template stride<axis::key>(),
                    tile.template stride<axis::dim>()};
        } else {
            return copied<axis::dim>(tile, keys_, dim_);
        }
    }
    /// Values as they lie, if they are floats in whole panels of columns.
    template <storage_float V>
    source tile_of(value_view<V const> values, index_t first, index_t count) noexcept {
        auto const tile = values.template range<axis::key>(first, count);
        if constexpr (std::same_as<V, float>) {
            if (width_ == value_dim_ && tile.template stride<axis::value_dim>() == 1) {
                return {tile.data(), tile.template stride<axis::key>(), 1};
            }
        }
        return copied<axis::value_dim>(tile, values_, width_);
    }
    template <class Column, class Tile>
    static source copied(Tile tile, float* into, index_t width) noexcept {
        for (index_t k = 0; k < tile.template extent<axis::key>(); ++k) {
            float* const row = into + k * width;
            index_t const columns = tile.template extent<Column>();
            for (index_t d = 0; d < columns; ++d) {
                row[d] = to_float(tile(k, d));
            }
            std::fill(row + columns, row + width, 0.0f);
        }
        return {into, width, 1};
    }

    /// Keys of the tile that any of rows [from, to) sees.
    [[nodiscard]] index_t seen_by(index_t to) const noexcept {
        return static_cast<index_t>(visible_[to - 1]);
    }

    void attend_tile(source keys, source values) noexcept {
        for (index_t p = 0; p < panels_; ++p) {
            index_t const from = p * exec::product_width;
            index_t const count = seen_by(from + exec::product_width);
            if (count == 0) {
                continue;
            }
            for (index_t k = 0; k < count; k += exec::product_rows) {
                exec::tile_product<exec::tile_start::zero>(
                    std::min<index_t>(exec::product_rows, count - k),
                    {keys.data + k * keys.row, keys.row, keys.column, queries_ + from, rows_most,
                     weights_ + k * rows_most + from, rows_most, dim_});
            }
            for (index_t i = from; i < from + exec::product_width; i += exec::vector_width) {
                weigh(i, count);
            }
            rescale(from);
            index_t const to = std::min(rows_, from + exec::product_width);
            for (index_t d = 0; d < width_; d += exec::product_width) {
                for (index_t i = from; i < to; i += exec::product_rows) {
                    index_t const n = std::min<index_t>(exec::product_rows, to - i);
                    exec::tile_product<exec::tile_start::add>(
                        n, {weights_ + i, 1, rows_most, values.data + d, values.row,
                            output_ + i * width_ + d, width_, seen_by(i + n)});
                }
            }
        }
    }

    /// Logits of a vector of rows become weights; max, sum and the old sums' factor follow.
    void weigh(index_t row, index_t count) noexcept {
        using exec::vector_float;
        vector_float const visible = exec::load(visible_ + row);
        float* const logits = weights_ + row;
        // Where all rows see a key there is nothing to mask; rows are sorted by what they see.
        for (auto k = static_cast<index_t>(visible_[row]); k < count; ++k) {
            float* const at = logits + k * rows_most;
            exec::store(at, exec::if_below(vector_float(static_cast<float>(k)), visible,
                                           exec::load(at), vector_float(-masked)));
        }
        vector_float const old = exec::load(max_ + row);
        std::array<vector_float, 2> top{old, old}; // two chains hide the latency
        for (index_t k = 0; k < count; ++k) {
            auto& chain = top[static_cast<std::size_t>(k & 1)];
            chain = exec::larger(chain, exec::load(logits + k * rows_most));
        }
        vector_float const max = exec::larger(top[0], top[1]);
        vector_float const factor = exec::exp2_of_negative(old - max);
        vector_float sum = exec::load(sum_ + row) * factor;
        for (index_t k = 0; k < count; ++k) {
            float* const at = logits + k * rows_most;
            vector_float const weight = exec::exp2_of_negative(exec::load(at) - max);
            exec::store(at, weight);
            sum = sum + weight;
        }
        exec::store(max_ + row, max);
        exec::store(sum_ + row, sum);
        exec::store(factor_ + row, factor);
    }

    /// A panel's outputs so far, to the new maxima; most rows have the old one still.
    void rescale(index_t from) noexcept {
        for (index_t i = from; i < from + exec::product_width; ++i) {
            if (factor_[i] != 1.0f) {
                exec::vector_float const factor(factor_[i]);
                float* const row = output_ + i * width_;
                for (index_t d = 0; d < width_; d += exec::vector_width) {
                    exec::store(row + d, exec::load(row + d) * factor);
                }
            }
        }
    }

    index_t dim_;
    index_t value_dim_;
    index_t width_; ///< of an output row, padded
    index_t rows_ = 0;
    index_t panels_ = 0;
    float* queries_;                        ///< [dim, row], scaled
    float* weights_;                        ///< [key, row], logits before
    float* output_;                         ///< [row, width]
    float* max_;                            ///< [row], octaves
    float* sum_;                            ///< [row]
    float* factor_;                         ///< [row]
    float* visible_;                        ///< [row], keys of the tile
    std::array<index_t, rows_most> sees_{}; ///< [row], keys
    float* keys_;                           ///< [key, dim], where they are no floats
    float* values_;                         ///< [key, width], where they cannot be read as they lie
};

} // namespace sofattn::sufa
