// SPDX-License-Identifier: MIT
// Sparse attention of a block of queries: all their scores are predicted, rows are cut, and what
// is kept is attended tile of keys by tile.
#pragma once

#include <sofattn/attention/prefill_index.hpp>
#include <sofattn/attention/prefill_tile.hpp>
#include <sofattn/core/assert.hpp>
#include <sofattn/core/element.hpp>
#include <sofattn/core/score_line.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/core/view.hpp>
#include <sofattn/dlzs/key_panels.hpp>
#include <sofattn/exec/int8_tile.hpp>
#include <sofattn/exec/prefetch.hpp>
#include <sofattn/exec/short_lanes.hpp>
#include <sofattn/exec/xsimd_lanes.hpp>
#include <sofattn/sads/kept_tile.hpp>
#include <sofattn/sads/row_cut.hpp>
#include <sofattn/sufa/logit_source.hpp>
#include <sofattn/sufa/weighted_rows.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <numbers>
#include <span>

namespace sofattn {

/// One query of a block and the head that asks.
struct prefill_row {
    index_t head = 0;
    index_t query = 0;
};

/// Sparse attention of up to `rows_most` rows of one KV head.
///
/// A row is cut when all its scores are known, so they are kept, as positions of 16 bits: predicting
/// them twice would cost as much as all the rest. Blocks have fewer rows where rows are long, to stay
/// within `bytes_most`.
///
/// `Source` says where logits come from: sufa::recomputed, or the predicted ones but for forced keys
/// and keys near the best (sufa::reused). "Near" is decided on positions, so that the choice is the
/// same bits everywhere. With `Compensates`, the mean of each segment's dropped values gets their
/// weight: the sum over a segment less its kept values, so a segment costs one more row and not one
/// per dropped key.
template <dlzs::byte_policy Predictor, sufa::logit_source Source, bool Compensates>
class prefill_block {
public:
    static constexpr index_t tile_keys = sads::kept_tile::most;
    static constexpr std::size_t bytes_most = std::size_t{4} << 20; ///< up to 131072 keys, d = 256
    static_assert(tile_keys % exec::tile_width == 0);

    /// Rows of a block: whole blocks of exec::tile_rows.
    [[nodiscard]] static constexpr index_t rows_for(index_t keys, index_t dim,
                                                    index_t value_dim) noexcept {
        std::size_t const others = bytes(0, dim, value_dim, rows_most);
        auto const row = static_cast<std::size_t>(row_places(keys)) * sizeof(std::int16_t);
        std::size_t const fit = others < bytes_most ? (bytes_most - others) / row : 0;
        return std::clamp<index_t>(static_cast<index_t>(fit) / exec::tile_rows * exec::tile_rows,
                                   exec::tile_rows, rows_most);
    }
    /// Scratch of one thread, bytes.
    [[nodiscard]] static constexpr std::size_t bytes(index_t keys, index_t dim,
                                                     index_t value_dim) noexcept {
        return bytes(keys, dim, value_dim, rows_for(keys, dim, value_dim));
    }

    /// `memory` [bytes(keys, dim, value_dim)], aligned to a cache line.
    prefill_block(index_t keys, index_t dim, index_t value_dim, std::byte* memory) noexcept
        : dim_(dim), value_dim_(value_dim), key_width_(padded(dim)), width_(padded(value_dim)),
          steps_(padded_steps(dim)), places_(row_places(keys)),
          rows_for_(rows_for(keys, dim, value_dim)) {
        auto* next = reinterpret_cast<float*>(memory);
        auto const take = [&](index_t count) {
            float* const start = next;
            next += count;
            return start;
        };
        wide_ = reinterpret_cast<double*>(take(2 * key_width_));
        values_ = take(tile_keys * width_);
        sums_ = take(sads::kept_tile::segments * width_);
        keys_ = take(tile_keys * key_width_);
        output_ = take(rows_for_ * width_);
        queries_ = take(rows_for_ * key_width_);
        real_ = take(key_width_);
        packed_ = reinterpret_cast<std::int32_t*>(take(rows_for_ * steps_));
        codes_ = reinterpret_cast<std::int8_t*>(take(key_width_));
        positions_ = reinterpret_cast<std::int16_t*>(next);
    }

    /// rule(i, line) makes the row's budget, sees(i) how many keys it sees, not decreasing in i;
    /// on_kept(i, first key, kept keys of the tile).
    template <storage_float K, storage_float V, class Query, std::invocable<index_t> Sees,
              class Rule, class Output, class OnKept>
    void operator()(index_t rows, double scale, Query query, Sees sees, Rule rule,
                    prefill_index<Predictor> const& index, key_view<K const> keys,
                    value_view<V const> values, Output output, OnKept& on_kept) noexcept {
        SOFATTN_ASSERT(rows > 0 && rows <= rows_for_);
        for (index_t i = 0; i < rows; ++i) {
            begin_row(i, scale, query(i), sees(i), rule, index);
        }
        for (index_t i = 0; i < rows; i += predict_rows) {
            predict(i, std::min(rows, i + predict_rows), index.panels());
        }
        for (index_t i = 0; i < rows; ++i) {
            cut(i);
        }
        std::fill_n(output_, rows * width_, 0.0f);
        index_t const seen = row(rows - 1).sees();
        for (index_t first = 0; first < seen; first += tile_keys) {
            load_tile(index, keys, values, first, std::min(tile_keys, seen - first));
            // A row's keys and values are asked for while the row before it is attended.
            index_t const begin = first_seeing(rows, first);
            choose(begin, first);
            for (index_t i = begin; i < rows; ++i) {
                prefetch_next(i, rows, values, first + tile_keys, seen);
                if (i + 1 < rows) {
                    choose(i + 1, first);
                }
                attend(i, first);
                on_kept(i, first, tile(i).keys());
            }
        }
        for (index_t i = 0; i < rows; ++i) {
            // Nothing is seen, or a budget let all go but what float can hardly tell from 0.
            bool const is_empty = row(i).sum < std::numeric_limits<float>::min();
            float const inverse = is_empty ? 0.0f : 1.0f / row(i).sum;
            auto const out = output(i);
            for (index_t d = 0; d < value_dim_; ++d) {
                out(d) = is_empty ? 0.0f : output_[i * width_ + d] * inverse; // never -0
            }
        }
    }

private:
    static constexpr index_t rows_most = 192;
    /// Rows between two readings of a panel of codes: their positions stay in the second cache.
    static constexpr index_t predict_rows = 24;
    static constexpr index_t segment = sads::kept_tile::segment;
    static_assert(rows_most % predict_rows == 0 && predict_rows % exec::tile_rows == 0);
    static_assert(segment % exec::tile_width == 0 && segment % exec::short_width == 0);

    [[nodiscard]] static constexpr index_t padded(index_t dims) noexcept {
        return ceil_div<index_t>(dims, 16) * 16;
    }
    [[nodiscard]] static constexpr index_t padded_steps(index_t dim) noexcept {
        return ceil_div<index_t>(dlzs::dot_steps(dim), 16) * 16;
    }
    /// Positions of a row; a cache line more, so that rows do not share their sets.
    [[nodiscard]] static constexpr index_t row_places(index_t keys) noexcept {
        return ceil_div(keys, segment) * segment + 32;
    }
    [[nodiscard]] static constexpr std::size_t bytes(index_t keys, index_t dim, index_t value_dim,
                                                     index_t rows) noexcept {
        index_t const floats = (tile_keys + sads::kept_tile::segments + rows) * padded(value_dim) +
                               (tile_keys + rows + 5) * padded(dim) + rows * padded_steps(dim);
        return static_cast<std::size_t>(floats) * sizeof(float) +
               static_cast<std::size_t>(rows * row_places(keys)) * sizeof(std::int16_t);
    }

    struct row_state {
        sads::row_rule rule;
        sads::row_cut cut;
        score_line line;           ///< logits
        float positions = 0;       ///< per unit of score
        float reference = 0;       ///< octaves, of the best predicted score
        float sum = 0;             ///< of weights
        std::int16_t computed = 0; ///< positions above it are

        [[nodiscard]] index_t sees() const noexcept { return rule.visible; }
    };
    [[nodiscard]] row_state& row(index_t i) noexcept { return rows_[static_cast<std::size_t>(i)]; }

    template <class Query, class Rule>
    void begin_row(index_t i, double scale, Query query, index_t sees, Rule& rule,
                   prefill_index<Predictor> const& index) noexcept {
        row_state& state = row(i);
        state = {};
        auto const count = static_cast<std::size_t>(dim_);
        auto const codes = std::span(codes_, count);
        double const product_step = dlzs::query_coder<Predictor>{}(
            query, index.codes(), codes,
            std::span(packed_ + i * steps_, static_cast<std::size_t>(steps_)),
            starts_[static_cast<std::size_t>(i)], std::span(real_, count), std::span(wide_, count));
        state.line = index.means().line(query, view<std::int8_t const, axis::dim>(codes_, {dim_}),
                                        product_step, scale, {}, sees);
        state.rule = rule(i, state.line);
        state.positions = state.rule.drop.weights.positions_per_score();
        // Logits in octaves: the exponential is a power of two.
        auto const octaves = static_cast<float>(scale * std::numbers::log2e);
        float* const into = queries_ + i * key_width_;
        std::fill(into + dim_, into + key_width_, 0.0f);
        for (index_t d = 0; d < dim_; ++d) {
            into[d] = to_float(query(d)) * octaves;
        }
    }

    /// Positions of rows [from, to), as far as the last of them sees.
    void predict(index_t from, index_t to, dlzs::key_panels const& panels) noexcept {
        index_t const seen = row(to - 1).sees();
        for (index_t p = 0; p * exec::tile_width < seen; ++p) {
            for (index_t i = from; i < to; i += exec::tile_rows) {
                ask_for_panel(panels, p + 1, i - from, to - from);
                index_t const rows = std::min<index_t>(exec::tile_rows, to - i);
                exec::int8_tile(rows,
                                {packed_ + i * steps_, steps_, starts_.data() + i, panels.panel(p),
                                 scores_.data(), exec::tile_width, panels.steps()});
                for (index_t r = 0; r < rows; ++r) {
                    put_positions(scores_.data() + r * exec::tile_width, row(i + r).positions,
                                  positions_of(i + r) + p * exec::tile_width);
                }
            }
        }
    }
    static void put_positions(std::int32_t const* scores, float scale,
                              std::int16_t* into) noexcept {
        constexpr auto lowest = static_cast<float>(sads::weight_scale::lowest_position);
        constexpr auto highest = static_cast<float>(sads::weight_scale::highest_position);
        auto const at = [&](index_t k) {
            return exec::larger(
                exec::smaller(exec::to_float(exec::load(scores + k)) * exec::vector_float(scale),
                              exec::vector_float(highest)),
                exec::vector_float(lowest));
        };
        for (index_t k = 0; k < exec::tile_width; k += exec::short_width) {
            exec::store(into + k, exec::rounded_shorts(at(k), at(k + exec::vector_width)));
        }
    }
    /// A part of the next panel; `parts` of them are asked for while this one is used.
    [[gnu::always_inline]] void ask_for_panel(dlzs::key_panels const& panels, index_t p,
                                              index_t part, index_t parts) noexcept {
        if (p * exec::tile_width < panels.keys()) {
            index_t const bytes = panels.steps() * exec::tile_width * exec::dot_depth;
            index_t const at = bytes * part / parts;
            index_t const end = bytes * std::min(part + exec::tile_rows, parts) / parts;
            exec::prefetch(panels.panel(p) + at, end - at);
        }
    }
    [[nodiscard]] std::int16_t* positions_of(index_t i) noexcept {
        return positions_ + i * places_;
    }
    /// In whole segments.
    [[nodiscard]] static std::size_t places_of(index_t keys) noexcept {
        return static_cast<std::size_t>(ceil_div(keys, segment) * segment);
    }

    void cut(index_t i) noexcept {
        row_state& state = row(i);
        if (state.sees() == 0) {
            return;
        }
        auto const positions = std::span(positions_of(i), places_of(state.sees()));
        state.cut = find_cut_(positions, state.rule);
        constexpr auto octave = static_cast<double>(1 << sads::weight_scale::position_bits);
        state.reference = static_cast<float>(state.line.offset * std::numbers::log2e +
                                             static_cast<double>(state.cut.top) / octave);
        double const within = std::floor(Source::exact_within * std::numbers::log2e * octave);
        state.computed = static_cast<std::int16_t>(
            std::max<double>(static_cast<double>(state.cut.top) - within - 1.0, sads::no_key));
    }

    /// Rows of floats.
    using source = prefill_tile_rows;

    template <class K, class V>
    void load_tile(prefill_index<Predictor> const& index, key_view<K const> keys,
                   value_view<V const> values, index_t first, index_t count) noexcept {
        tile_values_ = as_floats<axis::value_dim>(values, first, count, values_, width_);
        tile_keys_ = as_floats<axis::dim>(keys, first, count, keys_, key_width_);
        if constexpr (Compensates) {
            for (index_t s = 0; s * segment < count; ++s) {
                float* const into = sums_ + s * width_;
                std::copy_n(index.value_sum(first / segment + s), value_dim_, into);
                std::fill(into + value_dim_, into + width_, 0.0f);
            }
        }
    }
    /// As they lie, if they are floats in whole registers; else copied.
    template <class Column, class Rows>
    static source as_floats(Rows from, index_t first, index_t count, float* into,
                            index_t width) noexcept {
        index_t const columns = from.template extent<Column>();
        index_t const step = from.template stride<Column>();
        index_t const stride = from.template stride<axis::key>();
        auto const* const start = from.data() + first * stride;
        if constexpr (std::same_as<typename Rows::element_type, float const>) {
            if (step == 1 && columns == width) {
                return {start, stride};
            }
        }
        for (index_t k = 0; k < count; ++k) {
            auto const* const row = start + k * stride;
            float* const copy = into + k * width;
            for (index_t d = 0; d < columns; ++d) {
                copy[d] = to_float(row[d * step]);
            }
            for (index_t d = columns; d < width; ++d) {
                copy[d] = 0.0f;
            }
        }
        return {into, width};
    }

    /// A part of the next tile's values, most of which some row of the block will keep.
    template <class V>
    [[gnu::always_inline]] static void // GCC 12 drops calls of functions that only prefetch
    prefetch_next(index_t part, index_t parts, value_view<V const> values, index_t first,
                  index_t seen) noexcept {
        index_t const count = std::clamp<index_t>(seen - first, 0, tile_keys);
        if (values.template stride<axis::value_dim>() == 1) {
            index_t const row_bytes =
                values.template extent<axis::value_dim>() * static_cast<index_t>(sizeof(V));
            for (index_t k = count * part / parts; k < count * (part + 1) / parts; ++k) {
                exec::prefetch<exec::into_cache::second>(
                    values.data() + (first + k) * values.template stride<axis::key>(), row_bytes);
            }
        }
    }

    /// The first row that sees key `first`. pre: the last one does
    [[nodiscard]] index_t first_seeing(index_t rows, index_t first) noexcept {
        index_t i = rows;
        while (i > 0 && row(i - 1).sees() > first) {
            --i;
        }
        return i;
    }
    [[nodiscard]] index_t visible(index_t i, index_t first) noexcept {
        return std::min(tile_keys, row(i).sees() - first);
    }
    [[nodiscard]] prefill_tile& tile(index_t i) noexcept {
        return tiles_[static_cast<std::size_t>(i % 2)];
    }

    [[gnu::always_inline]] void choose(index_t i, index_t first) noexcept {
        row_state const& state = row(i);
        tile(i).template choose<Compensates>(
            std::span(positions_of(i) + first, places_of(visible(i, first))), state.cut);
        for (auto const& run : sads::forced_keys(state.rule, first, first + visible(i, first))) {
            for (index_t key = run.from; key < run.to; ++key) {
                tile(i).add(static_cast<std::int16_t>(key - first), state.cut.top);
            }
        }
        tile(i).list(state.cut.top, state.computed);
        tile(i).ask_for(tile_keys_, key_width_);
    }

    void attend(index_t i, index_t first) noexcept {
        row_state& state = row(i);
        state.sum +=
            tile(i).weigh(state.reference, queries_ + i * key_width_, key_width_, tile_keys_);
        if constexpr (Compensates) {
            state.sum += tile(i).compensate(visible(i, first));
        }
        tile(i).add_values(output_ + i * width_, width_, tile_values_, sums_);
    }

    index_t dim_;
    index_t value_dim_;
    index_t key_width_;
    index_t width_;
    index_t steps_;
    index_t places_;
    index_t rows_for_;
    double* wide_;            ///< [dim]
    float* values_;           ///< [key, width], where they cannot be read as they lie
    float* sums_;             ///< [segment, width], of the tile's values
    float* keys_;             ///< [key, key_width], the same
    float* output_;           ///< [row, width]
    float* queries_;          ///< [row, key_width], in octaves
    float* real_;             ///< [dim]
    std::int32_t* packed_;    ///< [row, step]
    std::int8_t* codes_;      ///< [dim]
    std::int16_t* positions_; ///< [row, place]
    source tile_values_{};
    source tile_keys_{};
    alignas(64) std::array<std::int32_t,
                           static_cast<std::size_t>(exec::tile_rows* exec::tile_width)> scores_{};
    sads::find_cut find_cut_;
    std::array<prefill_tile, 2> tiles_;
    std::array<std::int32_t, static_cast<std::size_t>(rows_most)> starts_;
    std::array<row_state, static_cast<std::size_t>(rows_most)> rows_;
};

} // namespace sofattn
