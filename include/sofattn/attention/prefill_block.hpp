// SPDX-License-Identifier: MIT
// Sparse attention of a block of queries: when their rows are cut, what is kept is attended tile of
// keys by tile.
#pragma once

#include <sofattn/attention/prefill_index.hpp>
#include <sofattn/attention/prefill_scores.hpp>
#include <sofattn/attention/prefill_team_tile.hpp>
#include <sofattn/attention/prefill_tile.hpp>
#include <sofattn/core/element.hpp>
#include <sofattn/core/output_array.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/core/view.hpp>
#include <sofattn/dlzs/key_panels.hpp>
#include <sofattn/exec/prefetch.hpp>
#include <sofattn/exec/store_row.hpp>
#include <sofattn/sads/kept_tile.hpp>
#include <sofattn/sads/row_cut.hpp>
#include <sofattn/sufa/logit_map.hpp>
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

/// Sparse attention of some teams of one KV head.
///
/// `Source` says where logits come from: sufa::recomputed, or the predicted ones but for forced keys
/// and keys near the best (sufa::reused). "Near" is decided on positions, so that the choice is the
/// same bits everywhere. With `Compensates`, the mean of each segment's dropped values gets their
/// weight: the sum over a segment less its kept values, so a segment costs one more row and not one
/// per dropped key. Keys of skipped pages weigh what the page's sketch says.
template <dlzs::byte_policy Predictor, sufa::logit_source Source, bool Compensates>
class prefill_block {
public:
    static constexpr index_t tile_keys = sads::kept_tile::most;
    static constexpr index_t teams_most = prefill_scores<Predictor>::teams_most;
    static constexpr std::size_t bytes_most = std::size_t{4} << 20; ///< up to 131072 keys, d = 256

    /// Scratch of one thread, bytes.
    [[nodiscard]] static constexpr std::size_t bytes(index_t keys, index_t dim,
                                                     index_t value_dim) noexcept {
        return own_bytes(dim, value_dim) +
               scores_type::bytes(keys, dim, places_for(keys, dim, value_dim));
    }

    /// `memory` [bytes(keys, dim, value_dim)], aligned to a cache line.
    prefill_block(index_t keys, index_t dim, index_t value_dim, std::byte* memory) noexcept
        : value_dim_(value_dim), width_(padded(value_dim)),
          scores_(keys, dim, places_for(keys, dim, value_dim), memory + own_bytes(dim, value_dim)) {
        auto* next = reinterpret_cast<float*>(memory);
        auto const take = [&](index_t count) {
            float* const start = next;
            next += count;
            return start;
        };
        values_ = take(tile_keys * width_);
        sums_ = take(sads::kept_tile::segments * width_);
        keys_ = take(tile_keys * scores_.key_width());
        stand_ins_ = take(teams_most * width_);
        output_ = take(rows_most * width_);
    }

    /// Of the teams of `rows`, a prefill_rows: on_kept(row, first key, kept keys of the tile).
    template <class Rows, storage_float K, storage_float V, class OnKept>
    void operator()(Rows const& rows, prefill_index<Predictor> const& index, key_view<K const> keys,
                    value_view<V const> values, OnKept const& on_kept) noexcept {
        scores_.begin(rows, index, [&](index_t t, std::span<float const> skipped) {
            if constexpr (Compensates) {
                stand_in(t, skipped, index);
            }
        });
        index_t const teams = rows.teams();
        for (index_t from = 0; from < teams;) {
            index_t const to = scores_.predict_some(from, teams, index.panels());
            attend_teams(from, to, index, keys, values, on_kept);
            from = to;
        }
        for (index_t t = 0; t < teams; ++t) {
            for (index_t i = scores_.team(t).first; i < scores_.team(t).end(); ++i) {
                rows.put_dropped(i, finish(i, t, rows.sink(i), rows.output(i)));
            }
        }
    }

private:
    using scores_type = prefill_scores<Predictor>;
    static constexpr index_t rows_most = scores_type::rows_most;
    static constexpr index_t segment = sads::kept_tile::segment;

    [[nodiscard]] static constexpr index_t padded(index_t dims) noexcept {
        return ceil_div<index_t>(dims, 16) * 16;
    }
    [[nodiscard]] static constexpr std::size_t own_bytes(index_t dim, index_t value_dim) noexcept {
        index_t const floats =
            (tile_keys + sads::kept_tile::segments + teams_most + rows_most) * padded(value_dim) +
            tile_keys * padded(dim);
        return static_cast<std::size_t>(floats) * sizeof(float);
    }
    /// Of the positions of all teams, if all pages of all are looked at and they fit bytes_most; of
    /// one at least.
    [[nodiscard]] static constexpr index_t places_for(index_t keys, index_t dim,
                                                      index_t value_dim) noexcept {
        std::size_t const others = own_bytes(dim, value_dim) + scores_type::bytes(keys, dim, 0);
        index_t const fit = others < bytes_most
                                ? static_cast<index_t>((bytes_most - others) / sizeof(std::int16_t))
                                : 0;
        index_t const team = scores_type::team_places(keys);
        return std::clamp(fit / 32 * 32, team, teams_most * team);
    }

    /// A row on its way to the output.
    struct row_state {
        float reference = 0;       ///< octaves, of the best predicted score
        float sum = 0;             ///< of weights
        float dropped = 0;         ///< of those, what stands for keys that are not kept
        std::int16_t computed = 0; ///< positions above it are
    };
    [[nodiscard]] row_state& row_at(index_t i) noexcept {
        return rows_[static_cast<std::size_t>(i)];
    }
    [[nodiscard]] typename scores_type::row_state const& scored(index_t i) const noexcept {
        return scores_.row(i);
    }

    /// For a team's skipped pages: means of their segments.
    void stand_in(index_t t, std::span<float const> skipped,
                  prefill_index<Predictor> const& index) noexcept {
        skipped_[static_cast<std::size_t>(t)] =
            index.value_sums().weighted_mean(skipped, stand_ins_ + t * width_, width_);
    }
    template <class K, class V, class OnKept>
    void attend_teams(index_t from, index_t to, prefill_index<Predictor> const& index,
                      key_view<K const> keys, value_view<V const> values,
                      OnKept const& on_kept) noexcept {
        index_t seen = 0;
        for (index_t t = from; t < to; ++t) {
            for (index_t i = scores_.team(t).first; i < scores_.team(t).end(); ++i) {
                begin_output(i);
            }
            seen = std::max(seen, scores_.team(t).sees);
        }
        for (index_t first = 0; first < seen; first += tile_keys) {
            load_tile(index, keys, values, first, std::min(tile_keys, seen - first));
            attend_tile(from, to, first, seen, values, on_kept);
        }
    }

    void begin_output(index_t i) noexcept {
        row_state& state = row_at(i);
        state = {};
        constexpr auto octave = static_cast<double>(1 << sads::weight_scale::position_bits);
        auto const top = scored(i).cut.top;
        state.reference = static_cast<float>(scored(i).line.offset * std::numbers::log2e +
                                             static_cast<double>(top) / octave);
        double const within = std::floor(Source::exact_within * std::numbers::log2e * octave);
        state.computed = static_cast<std::int16_t>(
            std::max<double>(static_cast<double>(top) - within - 1.0, sads::no_key));
        std::fill_n(output_ + i * width_, width_, 0.0f);
    }
    /// Returns the share of what stands for keys that are not kept.
    float finish(index_t i, index_t t, float sink, output_row const& out) noexcept {
        row_state& state = row_at(i);
        float* const sums = output_ + i * width_;
        // Nothing is seen, or a budget let all go but what float can hardly tell from 0.
        bool const is_empty = state.sum < std::numeric_limits<float>::min();
        float const skipped = Compensates ? skipped_[static_cast<std::size_t>(t)] : 0.0f;
        if (!is_empty && skipped > 0.0f) {
            auto const& team = scores_.team(t);
            constexpr auto octaves =
                1.0f / static_cast<float>(1 << sads::weight_scale::position_bits);
            int const below = scores_.pages().top(t, i - team.first) - scored(i).cut.top;
            float const unit = weight_of_skipped(skipped, static_cast<float>(below) * octaves,
                                                 team.loss, state.sum);
            state.sum += skipped * unit;
            state.dropped += skipped * unit;
            for (index_t d = 0; d < width_; ++d) {
                sums[d] += stand_ins_[t * width_ + d] * unit;
            }
        }
        float const inverse =
            sufa::row_end::of(state.reference, is_empty ? 0.0f : state.sum, sink).inverse;
        for (index_t d = 0; d < value_dim_; ++d) {
            sums[d] = is_empty ? 0.0f : sums[d] * inverse; // never -0
        }
        exec::store_row(out, sums);
        return state.dropped * inverse;
    }

    /// Rows of floats.
    using source = prefill_tile_rows;

    template <class K, class V>
    void load_tile(prefill_index<Predictor> const& index, key_view<K const> keys,
                   value_view<V const> values, index_t first, index_t count) noexcept {
        tile_values_ = as_floats<axis::value_dim>(values, first, count, values_, width_);
        tile_keys_ = as_floats<axis::dim>(keys, first, count, keys_, scores_.key_width());
        if constexpr (Compensates) {
            for (index_t s = 0; s * segment < count; ++s) {
                float* const into = sums_ + s * width_;
                std::copy_n(index.value_sums().of(first / segment + s), value_dim_, into);
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

    template <class V, class OnKept>
    void attend_tile(index_t from, index_t to, index_t first, index_t seen,
                     value_view<V const> values, OnKept const& on_kept) noexcept {
        index_t const number = first / tile_keys;
        index_t const begin = scores_.team(from).first;
        index_t const rows = scores_.team(to - 1).end() - begin;
        for (index_t t = from; t < to; ++t) {
            std::uint32_t const looked = scores_.pages().looked(t, number);
            if (looked != 0) {
                attend_team(t, sads::looked_pages(looked), first, on_kept);
            }
            for (index_t i = scores_.team(t).first; i < scores_.team(t).end(); ++i) {
                prefetch_next(i - begin, rows, values, first + tile_keys, seen);
            }
        }
    }
    /// Keys to compute logits of are asked for while rows before are chosen from.
    template <class OnKept>
    void attend_team(index_t t, sads::looked_pages const& pages, index_t first,
                     OnKept const& on_kept) noexcept {
        index_t const begin = scores_.team(t).first;
        index_t const rows = scores_.team(t).rows;
        for (index_t r = 0; r < rows; ++r) {
            choose(tiles_.row(r), begin + r, t, pages, first);
        }
        for (index_t r = 0; r < rows; ++r) {
            weigh(tiles_.row(r), begin + r, first);
            on_kept(begin + r, first, tiles_.row(r).keys());
        }
        tiles_.add_values(rows, pages, output_ + begin * width_, width_, tile_values_, sums_);
    }
    /// Keys of the tile that a row sees.
    [[nodiscard]] index_t visible(index_t i, index_t first) noexcept {
        return std::clamp<index_t>(scored(i).sees() - first, 0, tile_keys);
    }
    [[gnu::always_inline]] void choose(prefill_tile& tile, index_t i, index_t t,
                                       sads::looked_pages const& pages, index_t first) noexcept {
        auto const& state = scored(i);
        index_t const begin = scores_.pages().begin(t, first / tile_keys);
        index_t const end =
            std::min(state.looks_at, scores_.pages().begin(t, first / tile_keys + 1));
        index_t const places =
            ceil_div(std::max<index_t>(0, end - begin), exec::page_keys) * exec::page_keys;
        tile.template choose<Compensates>(
            std::span(state.places + begin, static_cast<std::size_t>(places)), pages, state.cut);
        for (auto const& run : sads::forced_keys(state.rule, first, first + visible(i, first))) {
            for (index_t key = run.from; key < run.to; ++key) {
                tile.add(static_cast<std::int16_t>(key - first), state.cut.top);
            }
        }
        tile.list(state.cut.top, row_at(i).computed);
        tile.ask_for(tile_keys_, scores_.key_width());
    }

    void weigh(prefill_tile& tile, index_t i, index_t first) noexcept {
        row_state& state = row_at(i);
        state.sum += tile.weigh(state.reference, scores_.query(i), scores_.key_width(), tile_keys_);
        if constexpr (Compensates) {
            float const stands_in = tile.compensate(visible(i, first));
            state.sum += stands_in;
            state.dropped += stands_in;
        }
    }

    index_t value_dim_;
    index_t width_;
    scores_type scores_;
    float* values_;    ///< [key, width], where they cannot be read as they lie
    float* sums_;      ///< [segment, width], of the tile's values
    float* keys_;      ///< [key, key_width], as values_
    float* stand_ins_; ///< [team, width], for skipped pages
    float* output_;    ///< [row, width]
    source tile_values_{};
    source tile_keys_{};
    prefill_team_tile tiles_;
    std::array<row_state, static_cast<std::size_t>(rows_most)> rows_;
    std::array<float, static_cast<std::size_t>(teams_most)>
        skipped_; ///< weight of what the team skips, beside its best page's
};

} // namespace sofattn
