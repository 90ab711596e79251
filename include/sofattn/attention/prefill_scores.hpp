// SPDX-License-Identifier: MIT
// Sparse prefill up to the cut: which pages the rows of a block look at, what their keys are predicted
// to score, and which scores stay.
#pragma once

#include <sofattn/attention/page_choice.hpp>
#include <sofattn/attention/prefill_index.hpp>
#include <sofattn/attention/prefill_pages.hpp>
#include <sofattn/attention/prefill_teams.hpp>
#include <sofattn/core/assert.hpp>
#include <sofattn/core/element.hpp>
#include <sofattn/core/score_line.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/core/view.hpp>
#include <sofattn/dlzs/key_panels.hpp>
#include <sofattn/exec/int8_tile.hpp>
#include <sofattn/exec/short_lanes.hpp>
#include <sofattn/exec/xsimd_lanes.hpp>
#include <sofattn/sads/kept_tile.hpp>
#include <sofattn/sads/row_cut.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numbers>
#include <span>

namespace sofattn {

/// Queries of a block on the way to their cuts.
///
/// A row is cut when all the scores of the pages it looks at are known, so they are kept, as positions
/// of 16 bits: predicting them twice would cost as much as all the rest. As many teams as there is
/// room for are predicted together; at least one always finds room.
template <dlzs::byte_policy Predictor>
class prefill_scores {
public:
    static constexpr index_t teams_most = prefill_pages::teams_most;
    static constexpr index_t rows_most = teams_most * team_rows;

    struct row_state {
        sads::row_rule rule;
        sads::row_cut cut;
        score_line line;                ///< logits
        float positions = 0;            ///< per unit of score
        index_t looks_at = 0;           ///< keys
        std::int16_t* places = nullptr; ///< [looks_at] positions, and no_key behind them

        [[nodiscard]] index_t sees() const noexcept { return rule.visible; }
    };
    struct team_state {
        index_t first = 0; ///< row
        index_t rows = 0;
        double loss = 0;
        index_t sees = 0; ///< keys, its last row

        [[nodiscard]] index_t end() const noexcept { return first + rows; }
    };
    /// Scratch with room for `places` positions, bytes.
    [[nodiscard]] static constexpr std::size_t bytes(index_t keys, index_t dim,
                                                     index_t places) noexcept {
        // Numbers of a query as 8 bytes, 4 and, rounded up, 1.
        index_t const floats = (rows_most + 4) * padded(dim) + rows_most * padded_steps(dim);
        return static_cast<std::size_t>(floats) * sizeof(float) + page_choice::bytes(keys, dim) +
               static_cast<std::size_t>(places) * sizeof(std::int16_t);
    }
    /// Positions of one team that looks at all keys.
    [[nodiscard]] static constexpr index_t team_places(index_t keys) noexcept {
        return team_rows * row_places(keys);
    }

    /// `memory` [bytes(keys, dim, places)], aligned to a cache line.
    prefill_scores(index_t keys, index_t dim, index_t places, std::byte* memory) noexcept
        : dim_(dim), key_width_(padded(dim)), steps_(padded_steps(dim)), places_(places),
          choice_(keys, dim, memory) {
        SOFATTN_ASSERT(places >= team_places(keys));
        auto* next = reinterpret_cast<float*>(memory + page_choice::bytes(keys, dim));
        auto const take = [&](index_t count) {
            float* const start = next;
            next += count;
            return start;
        };
        wide_ = reinterpret_cast<double*>(take(2 * key_width_));
        queries_ = take(rows_most * key_width_);
        real_ = take(key_width_);
        packed_ = reinterpret_cast<std::int32_t*>(take(rows_most * steps_));
        codes_ = reinterpret_cast<std::int8_t*>(take(key_width_));
        positions_ = reinterpret_cast<std::int16_t*>(next);
    }

    /// Codes the queries of `of`, a prefill_rows, and chooses pages: on_skipped(t, weights of the skipped pages
    /// per segment).
    template <class Rows, class OnSkipped>
    void begin(Rows const& of, prefill_index<Predictor> const& index,
               OnSkipped on_skipped) noexcept {
        index_t const teams = of.teams();
        SOFATTN_ASSERT(teams > 0 && teams <= teams_most);
        index_t rows = 0;
        for (index_t t = 0; t < teams; ++t) {
            prefill_team const team = of.team(t);
            SOFATTN_ASSERT(team.rows > 0 && team.rows <= team_rows);
            teams_[static_cast<std::size_t>(t)] = {rows, team.rows, team.loss, 0};
            for (index_t const end = rows + team.rows; rows < end; ++rows) {
                begin_row(rows, of, index);
            }
        }
        choice_(
            teams,
            [&](index_t t) {
                auto& team = teams_[static_cast<std::size_t>(t)];
                team.sees = row(team.end() - 1).sees();
                return page_asker::of({row(team.first).rule}, {row(team.end() - 1).rule}, team.loss,
                                      team.first, team.rows);
            },
            [&](index_t i) { return queries_ + i * key_width_; }, index.sketches(), on_skipped);
    }

    /// Predicts and cuts the rows of teams from `from` on; returns the first for which there is no
    /// room.
    [[nodiscard]] index_t predict_some(index_t from, index_t teams,
                                       dlzs::key_panels const& panels) noexcept {
        index_t const to = find_room(from, teams);
        for (index_t t = from; t < to; ++t) {
            predict(t, panels);
            for (index_t i = team(t).first; i < team(t).end(); ++i) {
                cut(i, t);
            }
        }
        return to;
    }

    [[nodiscard]] row_state const& row(index_t i) const noexcept {
        return rows_[static_cast<std::size_t>(i)];
    }
    [[nodiscard]] team_state const& team(index_t t) const noexcept {
        return teams_[static_cast<std::size_t>(t)];
    }
    [[nodiscard]] prefill_pages const& pages() const noexcept { return choice_.pages(); }
    /// [key_width] of row i, in octaves per unit of the key.
    [[nodiscard]] float const* query(index_t i) const noexcept { return queries_ + i * key_width_; }
    /// dim in whole cache lines of floats.
    [[nodiscard]] index_t key_width() const noexcept { return key_width_; }

private:
    static constexpr index_t segment = sads::kept_tile::segment;
    static_assert(segment % exec::short_width == 0);

    [[nodiscard]] static constexpr index_t padded(index_t dims) noexcept {
        return ceil_div<index_t>(dims, 16) * 16;
    }
    [[nodiscard]] static constexpr index_t padded_steps(index_t dim) noexcept {
        return padded(dlzs::dot_steps(dim));
    }
    /// Positions of a row; a cache line more, so that rows do not share their sets, and a register
    /// more of no_key.
    [[nodiscard]] static constexpr index_t row_places(index_t keys) noexcept {
        return (ceil_div(keys, segment) + 1) * segment + 32;
    }
    [[nodiscard]] row_state& row(index_t i) noexcept { return rows_[static_cast<std::size_t>(i)]; }

    template <class Rows>
    void begin_row(index_t i, Rows const& of, prefill_index<Predictor> const& index) noexcept {
        row_state& state = row(i);
        state = {};
        auto const query = of.query(i);
        auto const count = static_cast<std::size_t>(dim_);
        auto const codes = std::span(codes_, count);
        double const product_step = dlzs::query_coder<Predictor>{}(
            query, index.codes(), codes,
            std::span(packed_ + i * steps_, static_cast<std::size_t>(steps_)),
            starts_[static_cast<std::size_t>(i)], std::span(real_, count), std::span(wide_, count));
        state.line = index.means().line(query, view<std::int8_t const, axis::dim>(codes_, {dim_}),
                                        product_step, of.scale(), {}, of.sees(i).to);
        state.rule = of.rule(i, state.line.per_score);
        state.positions = state.rule.drop.weights.positions_per_score();
        // Logits in octaves: the exponential is a power of two.
        auto const octaves = static_cast<float>(of.scale() * std::numbers::log2e);
        float* const into = queries_ + i * key_width_;
        std::fill(into + dim_, into + key_width_, 0.0f);
        for (index_t d = 0; d < dim_; ++d) {
            into[d] = to_float(query(d)) * octaves;
        }
    }

    /// Gives teams from `from` on their places; returns the first for which there are none left.
    [[nodiscard]] index_t find_room(index_t from, index_t teams) noexcept {
        std::int16_t* next = positions_;
        for (index_t t = from; t < teams; ++t) {
            team_state const& of = team(t);
            index_t const all = pages().begin(t, pages().tiles());
            index_t const stride = row_places(all);
            if (t > from && next + of.rows * stride > positions_ + places_) {
                return t;
            }
            // All keys that some row of the team does not see are in pages that it looks at.
            index_t const in_pages = ceil_div(of.sees, exec::page_keys) * exec::page_keys;
            for (index_t i = of.first; i < of.end(); ++i) {
                row(i).places = next;
                row(i).looks_at = all - (in_pages - row(i).sees());
                next += stride;
            }
        }
        return teams;
    }

    /// Positions of the keys that a team looks at; behind them there may be others.
    void predict(index_t t, dlzs::key_panels const& panels) noexcept {
        team_state const& of = team(t);
        std::array<std::uint8_t const*, static_cast<std::size_t>(exec::tile_pages)> asked;
        index_t filled = 0;
        index_t place = 0;
        auto const flush = [&] {
            for (index_t part = 0; part < exec::page_tiles; ++part) {
                exec::int8_tile(of.rows, {packed_ + of.first * steps_, steps_,
                                          starts_.data() + of.first, exec::columns_of(asked, part),
                                          scores_.data(), exec::tile_width, panels.steps()});
                for (index_t r = 0; r < of.rows; ++r) {
                    row_state const& state = row(of.first + r);
                    put_positions(scores_.data() + r * exec::tile_width, state.positions,
                                  state.places + place);
                }
                place += exec::tile_width;
            }
            filled = 0;
        };
        for (index_t tile = 0; tile < pages().tiles(); ++tile) {
            index_t const first = tile * prefill_pages::tile_pages;
            for (std::uint32_t bits = pages().looked(t, tile); bits != 0; bits &= bits - 1) {
                asked[static_cast<std::size_t>(filled++)] =
                    panels.page(first + std::countr_zero(bits));
                if (filled == exec::tile_pages) {
                    flush();
                }
            }
        }
        if (filled > 0) {
            std::fill(asked.begin() + filled, asked.end(), asked.front());
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
            rule.after_window = state.looks_at - pages().place(t, last) - 1;
        }
        std::fill_n(state.places + state.looks_at, exec::short_width, sads::no_key);
        state.cut = find_cut_(std::span(state.places, places_of(state.looks_at)), rule);
    }

    index_t dim_;
    index_t key_width_;
    index_t steps_;
    index_t places_; ///< of positions_
    page_choice choice_;
    double* wide_;            ///< [dim]
    float* queries_;          ///< [row, key_width], in octaves
    float* real_;             ///< [dim]
    std::int32_t* packed_;    ///< [row, step]
    std::int8_t* codes_;      ///< [dim]
    std::int16_t* positions_; ///< [row, key that it looks at]
    alignas(64) std::array<std::int32_t,
                           static_cast<std::size_t>(exec::tile_rows* exec::tile_width)> scores_{};
    sads::find_cut find_cut_;
    std::array<std::int32_t, static_cast<std::size_t>(rows_most)> starts_;
    std::array<row_state, static_cast<std::size_t>(rows_most)> rows_;
    std::array<team_state, static_cast<std::size_t>(teams_most)> teams_;
};

} // namespace sofattn
