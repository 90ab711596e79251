// SPDX-License-Identifier: MIT
// Sparse attention of a block of queries, tile of keys by tile: predicted, selected and attended
// while it lies in the caches.
#pragma once

#include <sofattn/attention/prefill_index.hpp>
#include <sofattn/core/assert.hpp>
#include <sofattn/core/element.hpp>
#include <sofattn/core/score_line.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/core/view.hpp>
#include <sofattn/dlzs/key_panels.hpp>
#include <sofattn/exec/int8_tile.hpp>
#include <sofattn/exec/prefetch.hpp>
#include <sofattn/exec/xsimd_lanes.hpp>
#include <sofattn/sads/tile_selection.hpp>
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
/// `Source` says where logits come from: sufa::recomputed, or the predicted ones but for keys near
/// the best (sufa::reused). "Near" is decided on predicted scores, against the best predicted yet,
/// so that the choice is the same bits everywhere. With `Compensates`, the mean of each segment's
/// dropped values gets their weight: the sum over a segment less its kept values, so a segment costs
/// one more row and not one per dropped key.
///
/// The reference of every row is its best predicted score yet; outputs are rescaled when it rises.
template <dlzs::byte_policy Predictor, sufa::logit_source Source, bool Compensates>
class prefill_block {
    using selection = sads::tile_selection;

public:
    static constexpr index_t rows_most = 96; ///< whole blocks of exec::tile_rows
    static constexpr index_t tile_keys = selection::tile_keys;
    static_assert(rows_most % exec::tile_rows == 0 && tile_keys % exec::tile_width == 0);

    /// Scratch of one thread, bytes.
    [[nodiscard]] static constexpr std::size_t bytes(index_t dim, index_t value_dim) noexcept {
        index_t const floats =
            (tile_keys + selection::segments) * padded(value_dim) + tile_keys * padded(dim) +
            rows_most * (padded(value_dim) + padded(dim)) + 2 * padded(dim) +
            rows_most * padded_steps(dim) + exec::tile_rows * tile_keys + 3 * padded(dim);
        return static_cast<std::size_t>(floats) * sizeof(float);
    }

    /// `memory` [bytes(dim, value_dim)], aligned to a cache line.
    prefill_block(index_t dim, index_t value_dim, std::byte* memory) noexcept
        : dim_(dim), value_dim_(value_dim), key_width_(padded(dim)), width_(padded(value_dim)),
          steps_(padded_steps(dim)) {
        auto* next = reinterpret_cast<float*>(memory);
        auto const take = [&](index_t count) {
            float* const start = next;
            next += count;
            return start;
        };
        wide_ = reinterpret_cast<double*>(take(2 * key_width_));
        values_ = take(tile_keys * width_);
        sums_ = take(selection::segments * width_);
        keys_ = take(tile_keys * key_width_);
        output_ = take(rows_most * width_);
        queries_ = take(rows_most * key_width_);
        real_ = take(key_width_);
        packed_ = reinterpret_cast<std::int32_t*>(take(rows_most * steps_));
        scores_ = reinterpret_cast<std::int32_t*>(take(exec::tile_rows * tile_keys));
        codes_ = reinterpret_cast<std::int8_t*>(take(key_width_));
        std::fill_n(scores_, exec::tile_rows * tile_keys, 0);
    }

    /// rule(i, line) makes the row's budget, sees(i) how many keys it sees, not decreasing in i;
    /// on_kept(i, first key, kept keys of the tile).
    template <storage_float K, storage_float V, class Query, std::invocable<index_t> Sees,
              class Rule, class Output, class OnKept>
    void operator()(index_t rows, double scale, Query query, Sees sees, Rule rule,
                    prefill_index<Predictor> const& index, key_view<K const> keys,
                    value_view<V const> values, Output output, OnKept& on_kept) noexcept {
        SOFATTN_ASSERT(rows > 0 && rows <= rows_most);
        for (index_t i = 0; i < rows; ++i) {
            begin_row(i, scale, query(i), sees(i), rule, index);
        }
        index_t const seen = row(rows - 1).sees;
        std::fill_n(output_, rows * width_, 0.0f);
        for (index_t first = 0; first < seen; first += tile_keys) {
            index_t const count = std::min(tile_keys, seen - first);
            load_tile(index, keys, values, first, count);
            for (index_t i = 0; i < rows; i += exec::tile_rows) {
                index_t const n = std::min<index_t>(exec::tile_rows, rows - i);
                index_t const most = std::clamp<index_t>(row(i + n - 1).sees - first, 0, count);
                for (index_t p = 0; p * exec::tile_width < most; ++p) {
                    exec::int8_tile(n, {packed_ + i * steps_, steps_, starts_.data() + i,
                                        index.panels().panel(first / exec::tile_width + p),
                                        scores_ + p * exec::tile_width, tile_keys,
                                        index.panels().steps()});
                }
                // All are selected before the first is attended, so that rows of keys and values
                // are on their way meanwhile.
                prefetch_next(i / exec::tile_rows, ceil_div<index_t>(rows, exec::tile_rows),
                              index.panels(), values, first + tile_keys, seen);
                for (index_t j = 0; j < n; ++j) {
                    index_t const visible = std::clamp<index_t>(row(i + j).sees - first, 0, count);
                    if (visible > 0) {
                        select(i + j, chosen(j), scores_ + j * tile_keys, first, visible);
                        on_kept(i + j, first, selection_.kept());
                    }
                }
                for (index_t j = 0; j < n; ++j) {
                    index_t const visible = std::clamp<index_t>(row(i + j).sees - first, 0, count);
                    if (visible > 0) {
                        attend(i + j, chosen(j), visible);
                    }
                }
            }
        }
        for (index_t i = 0; i < rows; ++i) {
            // Nothing is seen, or a budget let all go but what float can hardly tell from 0.
            bool const is_empty =
                row(i).sees == 0 || row(i).sum < std::numeric_limits<float>::min();
            float const inverse = is_empty ? 0.0f : 1.0f / row(i).sum;
            auto const out = output(i);
            for (index_t d = 0; d < value_dim_; ++d) {
                out(d) = is_empty ? 0.0f : output_[i * width_ + d] * inverse; // never -0
            }
        }
    }

private:
    static constexpr index_t segment = selection::segment;

    /// Weights stay finite where a prediction is off by more than any real one.
    static constexpr float exponent_most = 100.0f;
    static constexpr std::size_t list_most =
        static_cast<std::size_t>(tile_keys + selection::segments + segment + exec::vector_width);

    [[nodiscard]] static constexpr index_t padded(index_t dims) noexcept {
        return ceil_div<index_t>(dims, 16) * 16;
    }
    [[nodiscard]] static constexpr index_t padded_steps(index_t dim) noexcept {
        return ceil_div<index_t>(dlzs::dot_steps(dim), 16) * 16;
    }

    struct row_state {
        sads::row_rule rule;
        sads::grain_row selected;
        index_t sees = 0;
        score_line line;         ///< logits
        float octaves = 0;       ///< per unit of score
        std::int32_t within = 0; ///< units of score below the best that are computed
        float reference = 0;     ///< octaves, of the best predicted score yet
        std::int32_t top = 0;    ///< that score
        float sum = 0;           ///< of weights
    };
    [[nodiscard]] row_state& row(index_t i) noexcept { return rows_[static_cast<std::size_t>(i)]; }

    template <class Query, class Rule>
    void begin_row(index_t i, double scale, Query query, index_t sees, Rule& rule,
                   prefill_index<Predictor> const& index) noexcept {
        row_state& state = row(i);
        state = {};
        state.sees = sees;
        auto const count = static_cast<std::size_t>(dim_);
        auto const codes = std::span(codes_, count);
        double const product_step = dlzs::query_coder<Predictor>{}(
            query, index.codes(), codes,
            std::span(packed_ + i * steps_, static_cast<std::size_t>(steps_)),
            starts_[static_cast<std::size_t>(i)], std::span(real_, count), std::span(wide_, count));
        state.line = index.means().line(query, view<std::int8_t const, axis::dim>(codes_, {dim_}),
                                        product_step, scale, {}, sees);
        state.rule = rule(i, state.line);
        state.octaves = static_cast<float>(state.line.per_score * std::numbers::log2e);
        double const within = Source::exact_within / state.line.per_score;
        state.within = within < 0x1p30 ? static_cast<std::int32_t>(within)
                                       : std::numeric_limits<std::int32_t>::max();
        // Logits in octaves: the exponential is a power of two.
        auto const octaves = static_cast<float>(scale * std::numbers::log2e);
        float* const into = queries_ + i * key_width_;
        std::fill(into + dim_, into + key_width_, 0.0f);
        for (index_t d = 0; d < dim_; ++d) {
            into[d] = to_float(query(d)) * octaves;
        }
    }

    /// Rows of floats.
    struct source {
        float const* data;
        index_t row;
    };

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

    /// A row's choice of one tile.
    struct choice {
        index_t kept = 0;
        index_t near = 0;
        std::array<selection::dropped_keys, static_cast<std::size_t>(selection::segments)> dropped;
        std::array<std::int32_t, static_cast<std::size_t>(tile_keys) + 1> nearest; ///< in which
        alignas(64) std::array<std::int32_t, list_most> which;                     ///< kept keys
        alignas(64) std::array<float, list_most> weight; ///< octaves before
    };
    [[nodiscard]] choice& chosen(index_t j) noexcept {
        return choices_[static_cast<std::size_t>(j)];
    }

    /// A part of the next tile: codes, and values, most of which some row of the block will keep.
    template <class V>
    [[gnu::always_inline]] static void // GCC 12 drops calls of functions that only prefetch
    prefetch_next(index_t part, index_t parts, dlzs::key_panels const& panels,
                  value_view<V const> values, index_t first, index_t seen) noexcept {
        index_t const count = std::clamp<index_t>(seen - first, 0, tile_keys);
        index_t const from = count * part / parts;
        index_t const to = count * (part + 1) / parts;
        if (from == to) {
            return;
        }
        index_t const key_bytes = panels.steps() * exec::dot_depth;
        exec::prefetch<exec::into_cache::second>(
            panels.panel(first / exec::tile_width) + from * key_bytes, (to - from) * key_bytes);
        if (values.template stride<axis::value_dim>() == 1) {
            index_t const row_bytes =
                values.template extent<axis::value_dim>() * static_cast<index_t>(sizeof(V));
            for (index_t k = from; k < to; ++k) {
                exec::prefetch<exec::into_cache::second>(
                    values.data() + (first + k) * values.template stride<axis::key>(), row_bytes);
            }
        }
    }

    void select(index_t i, choice& c, std::int32_t const* scores, index_t first,
                index_t visible) noexcept {
        row_state& state = row(i);
        if (first == 0) { // a first guess; the row before it comes close
            state.selected.cut = first_cut_;
        }
        c.kept = selection_(scores, first, visible, state.rule, state.selected);
        if (first == 0) {
            first_cut_ = state.selected.cut;
        }
        for (index_t s = 0; s < selection::segments; ++s) {
            c.dropped[static_cast<std::size_t>(s)] = selection_.dropped(s);
        }
        rise(i, first == 0);
        std::size_t near = 0;
        for (index_t n = 0; n < c.kept; ++n) {
            auto const at = static_cast<std::size_t>(n);
            std::int32_t const key = selection_.kept()[at];
            std::int32_t const away = state.top - scores[key];
            c.which[at] = key;
            c.weight[at] = -static_cast<float>(away) * state.octaves;
            // Counted without a branch, which would be guessed wrong too often.
            c.nearest[near] = static_cast<std::int32_t>(n);
            near += away <= state.within ? 1 : 0;
        }
        c.near = static_cast<index_t>(near);
        for (std::int32_t const n : std::span(c.nearest).first(near)) {
            exec::prefetch(key_of(c, n), key_width_ * static_cast<index_t>(sizeof(float)));
        }
    }
    [[nodiscard]] float const* key_of(choice const& c, std::int32_t n) const noexcept {
        return tile_keys_.data + c.which[static_cast<std::size_t>(n)] * tile_keys_.row;
    }

    void attend(index_t i, choice& c, index_t visible) noexcept {
        row_state& state = row(i);
        state.sum += weigh(i, c);
        index_t whole = 0; // segments that their sums stand for
        index_t all = c.kept;
        if constexpr (Compensates) {
            state.sum += compensate(c, visible, all, whole);
        }
        float* const out = output_ + i * width_;
        sufa::add_weighted_rows(out, width_, tile_values_.data, tile_values_.row, c.which.data(),
                                c.weight.data(), all);
        sufa::add_weighted_rows(out, width_, sums_, width_, whole_.data(), whole_weight_.data(),
                                whole);
    }

    /// Turns sums and outputs to a new best score.
    void rise(index_t i, bool is_first) noexcept {
        row_state& state = row(i);
        std::int32_t const top = state.selected.top;
        if (!is_first && top == state.top) {
            return;
        }
        if (!is_first) {
            float const factor = std::exp2(-static_cast<float>(top - state.top) * state.octaves);
            state.sum *= factor;
            float* const out = output_ + i * width_;
            for (index_t d = 0; d < width_; ++d) {
                out[d] *= factor;
            }
        }
        state.top = top;
        state.reference =
            static_cast<float>(state.line.logit(static_cast<double>(top)) * std::numbers::log2e);
    }

    /// Weights of the kept keys; returns their sum.
    float weigh(index_t i, choice& c) noexcept {
        float const* const query = queries_ + i * key_width_;
        for (std::int32_t const n : std::span(c.nearest).first(static_cast<std::size_t>(c.near))) {
            c.weight[static_cast<std::size_t>(n)] =
                std::min(logit(query, key_of(c, n)) - row(i).reference, exponent_most);
        }
        exec::vector_float sum(0.0f);
        std::fill_n(c.weight.data() + c.kept, exec::vector_width, -1e30f); // weighs 0
        for (index_t n = 0; n < c.kept; n += exec::vector_width) {
            float* const at = c.weight.data() + n;
            exec::vector_float const weight = exec::exp2_of_negative(exec::load(at));
            exec::store(at, weight);
            sum = sum + weight;
        }
        return exec::sum_of(sum);
    }
    [[nodiscard]] float logit(float const* query, float const* key) const noexcept {
        exec::vector_float sum(0.0f);
        for (index_t d = 0; d < key_width_; d += exec::vector_width) {
            sum = exec::multiply_add(exec::load(query + d), exec::load(key + d), sum);
        }
        return exec::sum_of(sum);
    }

    /// Lists what stands for the dropped keys: the sums of whole segments, and behind the kept keys
    /// all visible ones of the last, cut segment. What that gives to kept keys as well is taken off
    /// them. Returns the weight of the dropped keys.
    float compensate(choice& c, index_t visible, index_t& all, index_t& whole) noexcept {
        constexpr float unit = 1.0f / static_cast<float>(sads::weight_scale::unit);
        std::array<float, static_cast<std::size_t>(selection::segments)> share{};
        float total = 0.0f;
        for (index_t s = 0; s * segment < visible; ++s) {
            auto const dropped = c.dropped[static_cast<std::size_t>(s)];
            if (dropped.count == 0) {
                continue;
            }
            float const weight = static_cast<float>(dropped.weight) * unit;
            float const each = weight / static_cast<float>(dropped.count);
            total += weight;
            share[static_cast<std::size_t>(s)] = each;
            if ((s + 1) * segment <= visible) {
                whole_[static_cast<std::size_t>(whole)] = static_cast<std::int32_t>(s);
                whole_weight_[static_cast<std::size_t>(whole++)] = each;
            } else {
                for (index_t k = s * segment; k < visible; ++k, ++all) {
                    c.which[static_cast<std::size_t>(all)] = static_cast<std::int32_t>(k);
                    c.weight[static_cast<std::size_t>(all)] = each;
                }
            }
        }
        for (index_t n = 0; n < c.kept; ++n) {
            auto const at = static_cast<std::size_t>(n);
            c.weight[at] -= share[static_cast<std::size_t>(c.which[at] / segment)];
        }
        return total;
    }

    index_t dim_;
    index_t value_dim_;
    index_t key_width_;
    index_t width_;
    index_t steps_;
    double* wide_;               ///< [dim]
    float* values_;              ///< [key, width], where they cannot be read as they lie
    float* sums_;                ///< [segment, width], of the tile's values
    float* keys_;                ///< [key, key_width], the same
    float* output_;              ///< [row, width]
    float* queries_;             ///< [row, key_width], in octaves
    float* real_;                ///< [dim]
    std::int32_t* packed_;       ///< [row, step]
    std::int32_t* scores_;       ///< [row of tile_rows, key]
    std::int8_t* codes_;         ///< [dim]
    std::int32_t first_cut_ = 0; ///< of the last row's first tile
    source tile_values_{};
    source tile_keys_{};
    selection selection_;
    std::array<std::int32_t, static_cast<std::size_t>(rows_most)> starts_;
    std::array<row_state, static_cast<std::size_t>(rows_most)> rows_;
    std::array<choice, static_cast<std::size_t>(exec::tile_rows)> choices_;
    std::array<std::int32_t, static_cast<std::size_t>(selection::segments)> whole_;
    std::array<float, static_cast<std::size_t>(selection::segments)> whole_weight_;
};

} // namespace sofattn
