// SPDX-License-Identifier: MIT
// Sparse attention of a block of queries: pages are chosen, the scores of their keys are predicted,
// rows are cut, and what is kept is attended tile of keys by tile.
#pragma once

#include <sofattn/attention/prefill_index.hpp>
#include <sofattn/attention/prefill_pages.hpp>
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
#include <bit>
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

/// Queries of one head that follow each other, and look at the same pages.
struct prefill_team {
    index_t rows = 0; ///< up to team_rows
    double loss = 0;  ///< share of the mass that the pages they skip may have, as estimated
};

/// Sparse attention of some teams of one KV head.
///
/// A row is cut when all the scores of the pages it looks at are known, so they are kept, as positions
/// of 16 bits: predicting them twice would cost as much as all the rest. As many teams as there is
/// room for are attended together; at least one always finds room.
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
    static constexpr index_t teams_most = 32;
    static constexpr std::size_t bytes_most = std::size_t{4} << 20; ///< up to 131072 keys, d = 256

    /// Scratch of one thread, bytes.
    [[nodiscard]] static constexpr std::size_t bytes(index_t keys, index_t dim,
                                                     index_t value_dim) noexcept {
        return bytes_but_positions(keys, dim, value_dim) +
               static_cast<std::size_t>(places_for(keys, dim, value_dim)) * sizeof(std::int16_t);
    }

    /// `memory` [bytes(keys, dim, value_dim)], aligned to a cache line.
    prefill_block(index_t keys, index_t dim, index_t value_dim, std::byte* memory) noexcept
        : dim_(dim), value_dim_(value_dim), key_width_(padded(dim)), width_(padded(value_dim)),
          steps_(padded_steps(dim)), places_(places_for(keys, dim, value_dim)),
          pages_(keys, dim, teams_most, memory) {
        auto* next = reinterpret_cast<float*>(memory + prefill_pages::bytes(keys, dim, teams_most));
        auto const take = [&](index_t count) {
            float* const start = next;
            next += count;
            return start;
        };
        wide_ = reinterpret_cast<double*>(take(4 * key_width_));
        values_ = take(tile_keys * width_);
        sums_ = take(sads::kept_tile::segments * width_);
        keys_ = take(tile_keys * key_width_);
        stand_ins_ = take(teams_most * width_);
        output_ = take(rows_most * width_);
        queries_ = take(rows_most * key_width_);
        real_ = take(key_width_);
        packed_ = reinterpret_cast<std::int32_t*>(take(rows_most * steps_));
        codes_ = reinterpret_cast<std::int8_t*>(take(key_width_));
        positions_ = reinterpret_cast<std::int16_t*>(next);
    }

    /// Teams follow each other, rows of them are numbered through: team(t) makes a prefill_team,
    /// sees(i) says how many keys row i sees, not decreasing within a team, rule(i, line) makes its
    /// budget; on_kept(i, first key, kept keys of the tile).
    template <storage_float K, storage_float V, std::invocable<index_t> Team, class Query,
              std::invocable<index_t> Sees, class Rule, class Output, class OnKept>
    void operator()(index_t teams, Team team, double scale, Query query, Sees sees, Rule rule,
                    prefill_index<Predictor> const& index, key_view<K const> keys,
                    value_view<V const> values, Output output, OnKept& on_kept) noexcept {
        SOFATTN_ASSERT(teams > 0 && teams <= teams_most);
        index_t rows = 0;
        for (index_t t = 0; t < teams; ++t) {
            prefill_team const of = team(t);
            SOFATTN_ASSERT(of.rows > 0 && of.rows <= team_rows);
            team_at(t) = {rows, of.rows, of.loss, 0, 0};
            for (index_t i = rows; i < rows + of.rows; ++i) {
                begin_row(i, scale, query(i), sees(i), rule, index);
            }
            rows += of.rows;
        }
        choose_pages(teams, index);
        for (index_t from = 0; from < teams;) {
            index_t const to = find_room(from, teams);
            attend_teams(from, to, index, keys, values, on_kept);
            from = to;
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
    static constexpr index_t rows_most = teams_most * team_rows;
    static constexpr index_t segment = sads::kept_tile::segment;
    static_assert(segment % exec::short_width == 0 && exec::page_keys == sads::kept_tile::page);

    [[nodiscard]] static constexpr index_t padded(index_t dims) noexcept {
        return ceil_div<index_t>(dims, 16) * 16;
    }
    [[nodiscard]] static constexpr index_t padded_steps(index_t dim) noexcept {
        return ceil_div<index_t>(dlzs::dot_steps(dim), 16) * 16;
    }
    /// Positions of a row; a cache line more, so that rows do not share their sets, and a register
    /// more of no_key.
    [[nodiscard]] static constexpr index_t row_places(index_t keys) noexcept {
        return (ceil_div(keys, segment) + 1) * segment + 32;
    }
    [[nodiscard]] static constexpr std::size_t bytes_but_positions(index_t keys, index_t dim,
                                                                   index_t value_dim) noexcept {
        index_t const floats =
            (tile_keys + sads::kept_tile::segments + teams_most + rows_most) * padded(value_dim) +
            (tile_keys + rows_most + 7) * padded(dim) + rows_most * padded_steps(dim);
        return static_cast<std::size_t>(floats) * sizeof(float) +
               prefill_pages::bytes(keys, dim, teams_most);
    }
    /// Of the positions of all teams, if all pages of all are looked at and they fit bytes_most; of
    /// one at least.
    [[nodiscard]] static constexpr index_t places_for(index_t keys, index_t dim,
                                                      index_t value_dim) noexcept {
        std::size_t const others = bytes_but_positions(keys, dim, value_dim);
        index_t const fit = others < bytes_most
                                ? static_cast<index_t>((bytes_most - others) / sizeof(std::int16_t))
                                : 0;
        index_t const team = team_rows * row_places(keys);
        return std::clamp(fit / 32 * 32, team, teams_most * team);
    }

    struct row_state {
        sads::row_rule rule;
        sads::row_cut cut;
        score_line line;           ///< logits
        float positions = 0;       ///< per unit of score
        float reference = 0;       ///< octaves, of the best predicted score
        float sum = 0;             ///< of weights
        std::int16_t computed = 0; ///< positions above it are
        index_t looks_at = 0;      ///< keys
        std::int16_t* places = nullptr;

        [[nodiscard]] index_t sees() const noexcept { return rule.visible; }
    };
    struct team_state {
        index_t first = 0; ///< row
        index_t rows = 0;
        double loss = 0;
        index_t sees = 0;  ///< keys, its last row
        float skipped = 0; ///< weight of the pages it skips, beside their best page's

        [[nodiscard]] index_t end() const noexcept { return first + rows; }
    };
    [[nodiscard]] row_state& row(index_t i) noexcept { return rows_[static_cast<std::size_t>(i)]; }
    [[nodiscard]] team_state& team_at(index_t t) noexcept {
        return teams_[static_cast<std::size_t>(t)];
    }

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

    /// The first level, for exec::tile_rows teams at a time.
    void choose_pages(index_t teams, prefill_index<Predictor> const& index) noexcept {
        dlzs::page_sketches const& sketches = index.sketches();
        for (index_t from = 0; from < teams; from += prefill_pages::slots) {
            index_t const to = std::min(teams, from + prefill_pages::slots);
            std::array<prefill_pages::team, static_cast<std::size_t>(prefill_pages::slots)> asked;
            index_t pages = 0;
            for (index_t t = from; t < to; ++t) {
                auto& of = asked[static_cast<std::size_t>(t - from)];
                of = page_team(team_at(t));
                team_at(t).sees = of.most_sees;
                index_t const competing = prefill_pages::competing_pages(of);
                pages = std::max(pages, competing);
                if (competing > 0) {
                    ask(t - from, team_at(t), sketches);
                }
            }
            pages_.estimate(to - from, sketches, pages);
            for (index_t t = from; t < to; ++t) {
                pages_.decide(t, t - from, asked[static_cast<std::size_t>(t - from)]);
                if constexpr (Compensates) {
                    stand_in(t, index);
                }
            }
        }
    }
    /// For a team's skipped pages: means of their segments.
    void stand_in(index_t t, prefill_index<Predictor> const& index) noexcept {
        float* const sum = stand_ins_ + t * width_;
        std::fill_n(sum, width_, 0.0f);
        float total = 0.0f;
        auto const skipped = pages_.skipped();
        std::array<std::int32_t, 64> which;
        std::array<float, 64> weights;
        std::size_t filled = 0;
        auto const flush = [&] {
            index.add_value_sums(sum, width_, which.data(), weights.data(),
                                 static_cast<index_t>(filled));
            filled = 0;
        };
        for (std::size_t s = 0; s < skipped.size(); ++s) {
            if (skipped[s] > 0.0f) {
                total += skipped[s];
                which[filled] = static_cast<std::int32_t>(s);
                weights[filled++] = skipped[s] * (1.0f / static_cast<float>(segment));
                if (filled == which.size()) {
                    flush();
                }
            }
        }
        flush();
        team_at(t).skipped = total;
    }
    [[nodiscard]] prefill_pages::team page_team(team_state const& team) noexcept {
        prefill_pages::team of;
        sads::row_rule const& first = row(team.first).rule;
        sads::row_rule const& last = row(team.end() - 1).rule;
        of.least_sees = first.visible;
        of.most_sees = last.visible;
        of.sinks = first.sinks;
        of.window_to = last.visible - last.after_window;
        of.window_from = std::max<index_t>(0, first.visible - first.after_window - first.window);
        of.at_least = last.at_least;
        of.loss = first.drop.measure == sads::drop_measure::nothing ? 0.0 : team.loss;
        return of;
    }
    void ask(index_t slot, team_state const& team, dlzs::page_sketches const& sketches) noexcept {
        double* const sum = wide_;
        double* const squares = wide_ + key_width_;
        std::fill_n(wide_, 2 * key_width_, 0.0);
        for (index_t i = team.first; i < team.end(); ++i) {
            float const* const query = queries_ + i * key_width_;
            for (index_t d = 0; d < dim_; ++d) {
                auto const q = static_cast<double>(query[d]);
                sum[d] += q;
                squares[d] += q * q; // exact
            }
        }
        auto const count = static_cast<std::size_t>(dim_);
        pages_.ask(slot, sketches, team.rows, std::span<double const>(sum, count),
                   std::span<double const>(squares, count), std::span(real_, count));
    }

    /// Gives teams from `from` on their places; returns the first for which there are none left.
    [[nodiscard]] index_t find_room(index_t from, index_t teams) noexcept {
        std::int16_t* next = positions_;
        for (index_t t = from; t < teams; ++t) {
            team_state const& team = team_at(t);
            index_t const all = pages_.begin(t, pages_.tiles());
            index_t const stride = row_places(all);
            if (t > from && next + team.rows * stride > positions_ + places_) {
                return t;
            }
            // All keys that some row of the team does not see are in pages that it looks at.
            index_t const in_pages = ceil_div(team.sees, exec::page_keys) * exec::page_keys;
            for (index_t i = team.first; i < team.end(); ++i) {
                row(i).places = next;
                row(i).looks_at = all - (in_pages - row(i).sees());
                next += stride;
            }
        }
        return teams;
    }

    template <class K, class V, class OnKept>
    void attend_teams(index_t from, index_t to, prefill_index<Predictor> const& index,
                      key_view<K const> keys, value_view<V const> values,
                      OnKept& on_kept) noexcept {
        index_t seen = 0;
        for (index_t t = from; t < to; ++t) {
            predict(t, index.panels());
            for (index_t i = team_at(t).first; i < team_at(t).end(); ++i) {
                cut(i, t);
                begin_output(i, t);
            }
            seen = std::max(seen, team_at(t).sees);
        }
        for (index_t first = 0; first < seen; first += tile_keys) {
            load_tile(index, keys, values, first, std::min(tile_keys, seen - first));
            attend_tile(from, to, first, seen, values, on_kept);
        }
    }

    /// Positions of the keys that a team looks at; behind them there may be others.
    void predict(index_t t, dlzs::key_panels const& panels) noexcept {
        team_state const& team = team_at(t);
        std::array<std::uint8_t const*, static_cast<std::size_t>(exec::tile_pages)> pages;
        index_t filled = 0;
        index_t place = 0;
        auto const flush = [&] {
            for (index_t part = 0; part < exec::page_tiles; ++part) {
                exec::int8_tile(team.rows,
                                {packed_ + team.first * steps_, steps_, starts_.data() + team.first,
                                 exec::columns_of(pages, part), scores_.data(), exec::tile_width,
                                 panels.steps()});
                for (index_t r = 0; r < team.rows; ++r) {
                    row_state const& of = row(team.first + r);
                    put_positions(scores_.data() + r * exec::tile_width, of.positions,
                                  of.places + place);
                }
                place += exec::tile_width;
            }
            filled = 0;
        };
        for (index_t tile = 0; tile < pages_.tiles(); ++tile) {
            index_t const first = tile * prefill_pages::tile_pages;
            for (std::uint32_t bits = pages_.looked(t, tile); bits != 0; bits &= bits - 1) {
                pages[static_cast<std::size_t>(filled++)] =
                    panels.page(first + std::countr_zero(bits));
                if (filled == exec::tile_pages) {
                    flush();
                }
            }
        }
        if (filled > 0) {
            std::fill(pages.begin() + filled, pages.end(), pages.front());
            flush();
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
    /// In whole segments.
    [[nodiscard]] static std::size_t places_of(index_t keys) noexcept {
        return static_cast<std::size_t>(ceil_div(keys, segment) * segment);
    }

    void cut(index_t i, index_t t) noexcept {
        row_state& state = row(i);
        if (state.sees() == 0) {
            return;
        }
        // Pages with forced keys are looked at, so that sinks and window have places side by side.
        sads::row_rule rule = state.rule;
        rule.visible = state.looks_at;
        rule.at_least = std::min(rule.at_least, rule.visible);
        if (rule.window > 0 && rule.after_window > 0) {
            index_t const last = state.sees() - rule.after_window - 1;
            rule.after_window = state.looks_at - pages_.place(t, last) - 1;
        }
        std::fill_n(state.places + state.looks_at, exec::short_width, sads::no_key);
        state.cut = find_cut_(std::span(state.places, places_of(state.looks_at)), rule);
        constexpr auto octave = static_cast<double>(1 << sads::weight_scale::position_bits);
        state.reference = static_cast<float>(state.line.offset * std::numbers::log2e +
                                             static_cast<double>(state.cut.top) / octave);
        double const within = std::floor(Source::exact_within * std::numbers::log2e * octave);
        state.computed = static_cast<std::int16_t>(
            std::max<double>(static_cast<double>(state.cut.top) - within - 1.0, sads::no_key));
    }

    /// What stands for the pages that the team skips. No estimate weighs more beside the row's best
    /// key than it does beside the best page.
    void begin_output(index_t i, index_t t) noexcept {
        row_state& state = row(i);
        float* const output = output_ + i * width_;
        float unit = 0.0f;
        if (Compensates && team_at(t).skipped > 0.0f) {
            constexpr auto octaves =
                1.0f / static_cast<float>(1 << sads::weight_scale::position_bits);
            unit =
                std::exp2(static_cast<float>(std::min(0, pages_.top(t) - state.cut.top)) * octaves);
        }
        state.sum = team_at(t).skipped * unit;
        for (index_t d = 0; d < width_; ++d) {
            output[d] = unit > 0.0f ? stand_ins_[t * width_ + d] * unit : 0.0f;
        }
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

    template <class V, class OnKept>
    void attend_tile(index_t from, index_t to, index_t first, index_t seen,
                     value_view<V const> values, OnKept& on_kept) noexcept {
        // A row's keys are asked for, and a part of the next tile's values, while the row before it is
        // attended.
        index_t const number = first / tile_keys;
        auto const next_looking = [&](index_t t) {
            while (t < to && pages_.looked(t, number) == 0) {
                ++t;
            }
            return t;
        };
        index_t t = next_looking(from);
        if (t == to) {
            return;
        }
        index_t const begin = team_at(t).first;
        index_t const rows = team_at(to - 1).end() - begin;
        sads::looked_pages pages(pages_.looked(t, number));
        index_t i = begin;
        std::size_t turn = 0; // two rows take turns in tiles_
        choose(tiles_[turn], i, t, pages, first);
        while (t < to) {
            prefetch_next(i - begin, rows, values, first + tile_keys, seen);
            index_t next = i + 1;
            if (next == team_at(t).end()) {
                t = next_looking(t + 1);
                if (t < to) {
                    next = team_at(t).first;
                    pages = sads::looked_pages(pages_.looked(t, number));
                }
            }
            if (t < to) {
                choose(tiles_[1 - turn], next, t, pages, first);
            }
            attend(tiles_[turn], i, first);
            on_kept(i, first, tiles_[turn].keys());
            i = next;
            turn = 1 - turn;
        }
    }
    /// Keys of the tile that a row sees.
    [[nodiscard]] index_t visible(index_t i, index_t first) noexcept {
        return std::clamp<index_t>(row(i).sees() - first, 0, tile_keys);
    }
    [[gnu::always_inline]] void choose(prefill_tile& tile, index_t i, index_t t,
                                       sads::looked_pages const& pages, index_t first) noexcept {
        row_state const& state = row(i);
        index_t const begin = pages_.begin(t, first / tile_keys);
        index_t const end = std::min(state.looks_at, pages_.begin(t, first / tile_keys + 1));
        index_t const places =
            ceil_div(std::max<index_t>(0, end - begin), exec::page_keys) * exec::page_keys;
        tile.template choose<Compensates>(
            std::span(state.places + begin, static_cast<std::size_t>(places)), pages, state.cut);
        for (auto const& run : sads::forced_keys(state.rule, first, first + visible(i, first))) {
            for (index_t key = run.from; key < run.to; ++key) {
                tile.add(static_cast<std::int16_t>(key - first), state.cut.top);
            }
        }
        tile.list(state.cut.top, state.computed);
        tile.ask_for(tile_keys_, key_width_);
    }

    void attend(prefill_tile& tile, index_t i, index_t first) noexcept {
        row_state& state = row(i);
        state.sum += tile.weigh(state.reference, queries_ + i * key_width_, key_width_, tile_keys_);
        if constexpr (Compensates) {
            state.sum += tile.compensate(visible(i, first));
        }
        tile.add_values(output_ + i * width_, width_, tile_values_, sums_);
    }

    index_t dim_;
    index_t value_dim_;
    index_t key_width_;
    index_t width_;
    index_t steps_;
    index_t places_; ///< of positions_
    prefill_pages pages_;
    double* wide_;            ///< [2, dim]
    float* values_;           ///< [key, width], where they cannot be read as they lie
    float* sums_;             ///< [segment, width], of the tile's values
    float* keys_;             ///< [key, key_width], the same
    float* stand_ins_;        ///< [team, width], for skipped pages
    float* output_;           ///< [row, width]
    float* queries_;          ///< [row, key_width], in octaves
    float* real_;             ///< [dim]
    std::int32_t* packed_;    ///< [row, step]
    std::int8_t* codes_;      ///< [dim]
    std::int16_t* positions_; ///< [row, key that it looks at]
    source tile_values_{};
    source tile_keys_{};
    alignas(64) std::array<std::int32_t,
                           static_cast<std::size_t>(exec::tile_rows* exec::tile_width)> scores_{};
    sads::find_cut find_cut_;
    std::array<prefill_tile, 2> tiles_;
    std::array<std::int32_t, static_cast<std::size_t>(rows_most)> starts_;
    std::array<row_state, static_cast<std::size_t>(rows_most)> rows_;
    std::array<team_state, static_cast<std::size_t>(teams_most)> teams_;
};

} // namespace sofattn
