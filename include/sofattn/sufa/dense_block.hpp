// SPDX-License-Identifier: MIT
// FlashAttention-2 over all keys for a block of queries, on the machine's registers.
#pragma once

#include <sofattn/core/assert.hpp>
#include <sofattn/core/bfloat16.hpp>
#include <sofattn/core/element.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/core/view.hpp>
#include <sofattn/exec/bf16_dot.hpp>
#include <sofattn/exec/store_row.hpp>
#include <sofattn/exec/tile_product.hpp>
#include <sofattn/exec/xsimd_lanes.hpp>
#include <sofattn/sufa/block_tiles.hpp>
#include <sofattn/sufa/logit_lanes.hpp>
#include <sofattn/sufa/logit_map.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <numbers>
#include <span>
#include <type_traits>

namespace sofattn::sufa {

/// Factors of both products are floats.
struct f32_products {
    using element = float;
    using factor = float;
};

/// Queries, keys, values and weights are rounded to bf16 (8 bits), sums are floats. For targets with
/// exec::has_bf16_dot only.
struct bf16_products {
    using element = bfloat16;
    using factor = exec::bf16_pair;
};

/// Dense attention of a block of rows to the keys of one KV head, tile of keys by tile.
///
/// Lanes are rows, a panel of them at a time: its logits lie transposed, [key][row], and so do its
/// outputs, [value_dim][row]. Then maxima and sums of a row are made without crossing lanes, and the
/// weights are where the product with V wants them, still in the first cache. Queries are packed
/// once per block, a tile of values once for all panels; keys are read as they lie.
///
/// in     row(i)      [dim], query of row i, i < rows
///        visible(i)  key_range that row i attends to; neither end decreases in i
///        keys        [key, dim], values [key, value_dim], views or scaled_views of any strides, or
///                    paged_views of either; codes count as the floats scale * code;
///                    logits = scale * q.k
///        map, terms(i) what becomes of logits, with what of row i
/// out    output(i)   output_row, [value_dim] of row i, zeros where it sees no key
///        note(i, m, l) largest logit of row i in octaves, and the sum of 2^(logit - m); l is 0 where
///                    it sees no key
/// pre    rows <= rows_most(dim, value_dim, tiles); memory of `floats(dim, value_dim, tiles)` floats;
///        |logit| < 1e30
/// error  none
/// events none: this is no circuit
/// exact  deterministic, whoever runs it; rows do not depend on which others share their block.
///        f32_products: within 2e-5 of a double-precision oracle (relative, Frobenius), and 1e-6
///        more per unit of logit that all keys of a row have in common, which float rounds off.
///        bf16_products: within 1e-2, if q and k are bf16 numbers or have 8 dimensions or more; else
///        their rounding adds up to 2^-8 of a logit
/// paper  not in the paper; FlashAttention-2 (arXiv 2307.08691), the rival of section III-C
template <class Products = f32_products>
class dense_block {
    using element = typename Products::element;
    using factor = typename Products::factor;
    /// Elements of a factor.
    // NOLINTNEXTLINE(bugprone-sizeof-expression): one float, or two bf16
    static constexpr index_t each = sizeof(factor) / sizeof(element);
    static constexpr index_t panel = exec::product_width;
    static_assert(block_tiles::keys_step % exec::product_rows == 0 &&
                  block_tiles::keys_step % each == 0);
    static_assert(each == 1 || exec::product_rows == 8, "exec::eight_pairs");
    static constexpr index_t rows_limit = ceil_div(block_tiles::rows_most, panel) * panel;

public:
    /// Rows of a block come in panels; the last may be partly filled.
    static constexpr index_t panel_rows = panel;
    /// Queries and outputs of 384 rows take 384 KiB.
    static constexpr block_tiles default_tiles{192, 384};

    /// More rows share the packing of values; queries and outputs have to fit the second cache.
    [[nodiscard]] static constexpr index_t rows_most(index_t dim, index_t value_dim,
                                                     block_tiles tiles = default_tiles) noexcept {
        index_t const fitting = tiles.rows * 256 / (dim + value_dim) / panel;
        return std::max<index_t>(1, std::min(tiles.rows / panel, fitting)) * panel;
    }

    /// Scratch of one thread.
    [[nodiscard]] static constexpr index_t floats(index_t dim, index_t value_dim,
                                                  block_tiles tiles = default_tiles) noexcept {
        index_t const rows = rows_most(dim, value_dim, tiles);
        return rows * (steps(dim) + value_dim + 7) + tiles.keys * panel + tiles.keys * steps(dim) +
               value_rows(tiles.keys) * padded(value_dim);
    }

    /// `memory` [floats(dim, value_dim, tiles)], aligned to a cache line for speed.
    /// pre: tiles.is_valid()
    dense_block(index_t dim, index_t value_dim, std::span<float> memory,
                block_tiles tiles = default_tiles) noexcept
        : dim_(dim), value_dim_(value_dim), tile_keys_(tiles.keys),
          value_rows_(value_rows(tiles.keys)), rows_most_(rows_most(dim, value_dim, tiles)) {
        SOFATTN_ASSERT(tiles.is_valid());
        SOFATTN_ASSERT(dim <= max_head_dim && value_dim <= max_head_dim);
        SOFATTN_ASSERT(std::ssize(memory) >= floats(dim, value_dim, tiles));
        float* next = memory.data();
        auto const take = [&](index_t count) {
            float* const start = next;
            next += count;
            return start;
        };
        index_t const rows = rows_most_;
        logits_ = take(tile_keys_ * panel);
        queries_ = reinterpret_cast<factor*>(take(rows * steps(dim)));
        keys_ = reinterpret_cast<factor*>(take(tile_keys_ * steps(dim)));
        values_ = reinterpret_cast<factor*>(take(value_rows_ * padded(value_dim)));
        output_ = take(rows * value_dim);
        max_ = take(rows);
        sum_ = take(rows);
        factor_ = take(rows);
        from_ = take(rows);
        to_ = take(rows);
        slope_ = take(rows);
        distance_ = take(rows);
    }

    template <class Keys, class Values, std::invocable<index_t> Row,
              std::invocable<index_t> Visible, std::invocable<index_t> Output,
              std::invocable<index_t, float, float> Note,
              std::invocable<index_t> Terms = plain_rows>
    void operator()(index_t rows, double scale, Row row, Visible visible, Keys keys, Values values,
                    Output output, Note note, logit_map const& map = {},
                    Terms terms = {}) noexcept {
        SOFATTN_ASSERT(rows > 0 && rows <= rows_most_);
        index_t const panels = ceil_div(rows, panel);
        index_t const lanes = panels * panel;
        pack_queries(rows, lanes, row, scale);
        map_ = map;
        unit_ = map.is_plain() ? octaves_ : 1.0f;
        // Lanes without a row see what the last one sees.
        for (index_t i = 0; i < lanes; ++i) {
            sees_[static_cast<std::size_t>(i)] = visible(std::min(i, rows - 1));
            slope_[i] = terms(std::min(i, rows - 1)).slope;
        }
        std::fill_n(output_, lanes * value_dim_, 0.0f);
        std::fill_n(max_, lanes, lowest);
        std::fill_n(sum_, lanes, 0.0f);
        // Tiles begin at the same keys for all rows, whatever their block sees.
        index_t const end = sees_[static_cast<std::size_t>(rows - 1)].to;
        for (index_t first = sees_[0].from / tile_keys_ * tile_keys_; first < end;
             first += tile_keys_) {
            index_t const count = std::min(tile_keys_, end - first);
            for (index_t i = 0; i < lanes; ++i) {
                key_range const sees = sees_[static_cast<std::size_t>(i)];
                from_[i] = static_cast<float>(std::clamp<index_t>(sees.from - first, 0, count));
                to_[i] = static_cast<float>(std::clamp<index_t>(sees.to - first, 0, count));
            }
            for (index_t i = 0; map_.is_biased && i < lanes; ++i) {
                distance_[i] = static_cast<float>(terms(std::min(i, rows - 1)).position - first);
            }
            source const tile = tile_of(keys.template range<axis::key>(first, count));
            pack_values(values.template range<axis::key>(first, count));
            for (index_t p = 0; p < panels; ++p) {
                attend(p, tile);
            }
        }
        for (index_t i = 0; i < rows; ++i) {
            float const* const lane = output_ + i / panel * panel * value_dim_ + i % panel;
            row_end const end_of = row_end::of(max_[i] * unit_, sum_[i], terms(i).sink);
            std::array<float, static_cast<std::size_t>(max_head_dim)> finished;
            for (index_t d = 0; d < value_dim_; ++d) {
                finished[static_cast<std::size_t>(d)] =
                    sum_[i] > 0 ? lane[d * panel] * end_of.inverse : 0.0f; // never -0
            }
            exec::store_row(output(i), finished.data());
            note(i, end_of.max, end_of.sum);
        }
    }

private:
    // In octaves. No logit is as far from 0, and a masked one weighs nothing whatever the maximum.
    static constexpr float lowest = -4e30f;
    static constexpr float masked = -8e30f;

    /// Factors of `dims` elements.
    [[nodiscard]] static constexpr index_t steps(index_t dims) noexcept {
        return ceil_div(dims, each);
    }
    /// Of a group of columns; two more than needed, or the groups would share two sets of the first
    /// cache, which costs 4 % of the time.
    [[nodiscard]] static constexpr index_t value_rows(index_t tile_keys) noexcept {
        return tile_keys / each + 2;
    }
    /// Whole groups of columns.
    [[nodiscard]] static constexpr index_t padded(index_t dims) noexcept {
        return ceil_div<index_t>(dims, exec::product_rows) * exec::product_rows;
    }

    /// Rows of factors, side by side.
    struct source {
        factor const* data;
        index_t row;
    };
    using row_buffer = std::array<element, max_head_dim>;

    template <class Row>
    void pack_queries(index_t rows, index_t lanes, Row row, double scale) noexcept {
        // Logits in octaves: the exponential is a power of two. bf16 queries get the power of two of
        // the factor only, which rounds nothing.
        double const octaves = scale * std::numbers::log2e;
        auto before = static_cast<float>(octaves);
        if constexpr (each == 2) {
            int exponent = 0;
            octaves_ = static_cast<float>(std::frexp(octaves, &exponent));
            before = static_cast<float>(std::ldexp(1.0, exponent));
        }
        std::fill_n(queries_, lanes * steps(dim_), factor{});
        for (index_t i = 0; i < rows; ++i) {
            auto const query = row(i);
            auto* const lane =
                reinterpret_cast<element*>(queries_ + i / panel * panel * steps(dim_) + i % panel);
            for (index_t d = 0; d < dim_; ++d) {
                lane[d / each * each * panel + d % each] = element(to_float(query(d)) * before);
            }
        }
    }

    /// Row k: where it lies if it can be read there, else in `into`.
    template <class Column, class Tile>
    static element const* row_of(Tile const& tile, index_t k, element* into) noexcept {
        index_t const columns = tile.template extent<Column>();
        if constexpr (std::same_as<std::remove_const_t<typename Tile::element_type>, element>) {
            if (tile.template stride<Column>() == 1) {
                return &tile(k, 0);
            }
        }
        auto const row = tile.template slice<axis::key>(k);
        for (index_t d = 0; d < columns; ++d) {
            into[d] = element(to_float(row(d)));
        }
        return into;
    }

    template <class Tile>
    source tile_of(Tile const& tile) noexcept {
        if constexpr (std::same_as<Tile, key_view<element const>>) {
            // Rows far apart may all want the same few places of the first cache.
            if (dim_ % each == 0 && tile.template stride<axis::dim>() == 1 &&
                tile.template stride<axis::key>() == dim_) {
                return {reinterpret_cast<factor const*>(tile.data()), dim_ / each};
            }
        }
        row_buffer buffer;
        index_t const row = steps(dim_);
        for (index_t k = 0; k < tile.template extent<axis::key>(); ++k) {
            auto* const to = reinterpret_cast<element*>(keys_ + k * row);
            to[row * each - 1] = element{};
            std::copy_n(row_of<axis::dim>(tile, k, buffer.data()), dim_, to);
        }
        return {keys_, row};
    }

    /// A group of columns after the other, [column / product_rows][key][column]: each is read in order.
    template <class Tile>
    void pack_values(Tile const& tile) noexcept {
        std::array<row_buffer, each> buffers;
        static constexpr row_buffer nothing{};
        index_t const count = tile.template extent<axis::key>();
        index_t const rows_each = value_rows_; // else read again after every store: 1 % of the time
        factor* const all = values_;
        for (index_t k = 0; k < count; k += each) {
            std::array<element const*, each> rows;
            for (index_t e = 0; e < each; ++e) {
                auto const at = static_cast<std::size_t>(e);
                rows[at] = k + e < count ? row_of<axis::value_dim>(tile, k + e, buffers[at].data())
                                         : nothing.data();
            }
            for (index_t d = 0; d < value_dim_; d += exec::product_rows) {
                factor* const to = all + d * rows_each + k / each * exec::product_rows;
                if (value_dim_ - d < exec::product_rows) {
                    for (index_t j = 0; d + j < value_dim_; ++j) {
                        if constexpr (each == 1) {
                            to[j] = rows[0][d + j];
                        } else {
                            to[j] = {rows[0][d + j], rows[1][d + j]};
                        }
                    }
                } else if constexpr (each == 1) {
                    std::copy_n(rows[0] + d, exec::product_rows, to);
                } else {
                    exec::eight_pairs(rows[0] + d, rows[1] + d, to);
                }
            }
        }
    }

    /// What panel p sees of a tile.
    void attend(index_t p, source keys) noexcept {
        index_t const lane = p * panel;
        index_t const begin = static_cast<index_t>(from_[lane]) / each * each;
        auto const end = static_cast<index_t>(to_[lane + panel - 1]);
        if (begin >= end) {
            return;
        }
        // Where nothing is masked or mapped, maxima are made while the logits are in registers.
        bool const is_ready = map_.is_plain() &&
                              from_[lane + panel - 1] <= static_cast<float>(begin) &&
                              to_[lane] >= static_cast<float>(end);
        std::array<float, panel> top;
        std::copy_n(max_ + lane, panel, top.begin());
        factor const* const queries = queries_ + lane * steps(dim_);
        for (index_t k = begin; k < end; k += exec::product_rows) {
            exec::tile_product<exec::tile_start::zero, factor>(
                std::min<index_t>(exec::product_rows, end - k),
                {keys.data + k * keys.row, keys.row, 1, queries, panel, logits_ + k * panel, panel,
                 steps(dim_), nullptr, is_ready ? top.data() : nullptr});
        }
        for (index_t i = 0; i < panel; i += exec::vector_width) {
            if (!is_ready) {
                map_logits(lane + i, logits_ + i, begin, end);
                mask(lane + i, logits_ + i, begin, end);
                exec::store(top.data() + i,
                            largest(exec::load(max_ + lane + i), logits_ + i, begin, end));
            }
            weigh(lane + i, exec::load(top.data() + i), logits_ + i, begin, end);
        }
        auto const* const weights = reinterpret_cast<factor const*>(logits_);
        float* const output = output_ + lane * value_dim_;
        for (index_t d = 0; d < value_dim_; d += exec::product_rows) {
            exec::tile_product<exec::tile_start::scale, factor>(
                std::min<index_t>(exec::product_rows, value_dim_ - d),
                {values_ + d * value_rows_ + begin / each * exec::product_rows, 1,
                 exec::product_rows, weights + begin / each * panel, panel, output + d * panel,
                 panel, steps(end) - begin / each, factor_ + lane});
        }
    }

    /// Logits of a vector of rows become weights relative to `max`; sum and the old sums' factor
    /// follow. Weights take the places of logits, two in one where they are bf16.
    void weigh(index_t row, exec::vector_float max, float* logits, index_t begin,
               index_t end) noexcept {
        using exec::vector_float;
        vector_float const rescale = exec::exp2_of_negative(octaves(exec::load(max_ + row) - max));
        vector_float sum = exec::load(sum_ + row) * rescale;
        auto const weight_of = [&](index_t k) {
            return exec::exp2_of_negative(octaves(exec::load(logits + k * panel) - max));
        };
        if constexpr (each == 1) {
            for (index_t k = begin; k < end; ++k) {
                vector_float const weight = weight_of(k);
                exec::store(logits + k * panel, weight);
                sum = sum + weight;
            }
        } else {
            auto* const pairs = reinterpret_cast<exec::bf16_pair*>(logits);
            if (end % each != 0) {
                exec::store(logits + end * panel, vector_float(masked));
            }
            for (index_t k = begin; k < end; k += each) {
                vector_float const first = weight_of(k);
                vector_float const second = weight_of(k + 1);
                exec::store(pairs + k / each * panel, exec::paired(first, second));
                sum = sum + (first + second);
            }
        }
        exec::store(max_ + row, max);
        exec::store(sum_ + row, sum);
        exec::store(factor_ + row, rescale);
    }

    /// The largest of `least` and the logits of a vector of rows.
    [[nodiscard]] static exec::vector_float largest(exec::vector_float least, float const* logits,
                                                    index_t begin, index_t end) noexcept {
        for (index_t k = begin; k < end; ++k) {
            least = exec::larger(least, exec::load(logits + k * panel));
        }
        return least;
    }

    [[nodiscard]] exec::vector_float octaves(exec::vector_float logits) const noexcept {
        if constexpr (each == 1) {
            return logits;
        } else {
            return logits * exec::vector_float(unit_);
        }
    }

    /// What the model does to logits; they are in octaves then.
    void map_logits(index_t row, float* logits, index_t begin, index_t end) const noexcept {
        using exec::vector_float;
        if (map_.is_plain()) {
            return;
        }
        vector_float const slope = exec::load(slope_ + row);
        vector_float const distance =
            map_.is_biased ? exec::load(distance_ + row) : vector_float(0.0f);
        for (index_t k = begin; k < end; ++k) {
            float* const at = logits + k * panel;
            exec::store(at, mapped(map_, exec::load(at) * vector_float(octaves_), slope,
                                   distance - vector_float(static_cast<float>(k))));
        }
    }

    /// Where all rows see a key there is nothing to mask; rows are sorted by what they see.
    void mask(index_t row, float* logits, index_t begin, index_t end) const noexcept {
        using exec::vector_float;
        vector_float const from = exec::load(from_ + row);
        vector_float const to = exec::load(to_ + row);
        auto const all_from = static_cast<index_t>(from_[row + exec::vector_width - 1]);
        auto const all_to = static_cast<index_t>(to_[row]);
        auto const keys = [&](index_t first, index_t last) {
            for (index_t k = first; k < last; ++k) {
                float* const at = logits + k * panel;
                vector_float const key(static_cast<float>(k));
                vector_float const none(masked);
                exec::store(at, exec::if_below(key, from, none,
                                               exec::if_below(key, to, exec::load(at), none)));
            }
        };
        keys(begin, std::min(all_from, end));
        keys(std::max(std::max(all_from, all_to), begin), end);
    }

    index_t dim_;
    index_t value_dim_;
    index_t tile_keys_;
    index_t value_rows_;
    index_t rows_most_;
    float octaves_ = 1; ///< of a unit of the products
    float unit_ = 1;    ///< of the logits
    logit_map map_{};
    float* logits_;   ///< [key, row] of a panel, then its weights
    factor* queries_; ///< [panel, dim, row], scaled
    factor* keys_;    ///< [key, dim], where they cannot be read as they lie
    factor* values_;  ///< [column / product_rows, key, column]
    float* output_;   ///< [panel, column, row]
    float* max_;      ///< [row]
    float* sum_;      ///< [row]
    float* factor_;   ///< [row]
    float* from_;     ///< [row], first key of the tile that it sees
    float* to_;       ///< [row], after the last
    float* slope_;    ///< [row]
    float* distance_; ///< [row], from the tile's first key to the query
    std::array<key_range, static_cast<std::size_t>(rows_limit)> sees_; ///< [row]
};

} // namespace sofattn::sufa
