// SPDX-License-Identifier: MIT
// The first level of sparse prefill: which pages of keys a team of queries looks at.
#pragma once

#include <sofattn/core/assert.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/dlzs/key_panels.hpp>
#include <sofattn/dlzs/page_sketch.hpp>
#include <sofattn/exec/int8_tile.hpp>
#include <sofattn/exec/integer_lanes.hpp>
#include <sofattn/exec/short_lanes.hpp>
#include <sofattn/exec/xsimd_lanes.hpp>
#include <sofattn/sads/budget.hpp>
#include <sofattn/sads/drop_rule.hpp>
#include <sofattn/sads/kept_tile.hpp>
#include <sofattn/sads/row_cut.hpp>
#include <sofattn/sads/softmax_weight.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>

namespace sofattn {

/// Rows whose prediction shares a tile: queries of one head that follow each other.
inline constexpr index_t team_rows = exec::tile_rows;

/// The pages that teams look at. The others are never predicted: a tail may give them what their
/// sketches say.
///
/// A page competes if all rows of a team see all of its segment, whose values may then stand for it;
/// it is dropped as sads::find_cut drops keys, with the estimated mass of pages in the place of keys'.
/// Others that some row sees, and those that have forced keys, are looked at.
///
/// in     sketches, queries of a team, its rows' budgets
/// out    per team and tile of kept_tile::most keys: a bit for each page, and the place of its first
///        looked-at key among all of the row; per segment the weight of the other pages
/// events none: this is no circuit
/// exact  pages and tops on every target; weights of skipped pages within 2e-6 of one another
/// paper  not in the paper, which predicts all keys
class prefill_pages {
public:
    static constexpr index_t tile_keys = sads::kept_tile::most;
    static constexpr index_t tile_pages = tile_keys / exec::page_keys;
    static_assert(tile_pages == 32, "a tile's pages are the bits of a word");
    static constexpr index_t teams_most = 32;

    [[nodiscard]] static constexpr std::size_t bytes(index_t keys, index_t dim,
                                                     index_t teams) noexcept {
        index_t const tiles = ceil_div(keys, tile_keys);
        index_t const words = parts * team_rows * padded_steps(dim) +
                              padded_words(tiles * tile_segments) +
                              teams * (padded_words(tiles) + padded_words(tiles + 1));
        return static_cast<std::size_t>(words) * sizeof(std::int32_t) +
               static_cast<std::size_t>((team_rows + 1) * places(keys)) * sizeof(std::int16_t);
    }
    /// memory [bytes(keys, dim, teams)], aligned to a cache line.
    prefill_pages(index_t keys, index_t dim, index_t teams, std::byte* memory) noexcept
        : steps_(padded_steps(dim)), places_(places(keys)), tiles_(ceil_div(keys, tile_keys)) {
        SOFATTN_ASSERT(teams <= teams_most);
        auto* next = reinterpret_cast<std::int32_t*>(memory);
        auto const take = [&](index_t count) {
            auto* const start = next;
            next += count;
            return start;
        };
        packed_ = take(parts * team_rows * steps_);
        skipped_ = reinterpret_cast<float*>(take(padded_words(tiles_ * tile_segments)));
        looked_ = reinterpret_cast<std::uint32_t*>(take(teams * padded_words(tiles_)));
        begins_ = take(teams * padded_words(tiles_ + 1));
        positions_ = reinterpret_cast<std::int16_t*>(next);
    }

    /// Pages that follow each other.
    struct page_run {
        index_t from = 0;
        index_t to = 0;

        [[nodiscard]] constexpr bool empty() const noexcept { return from >= to; }
    };

    /// What a team of `rows` rows makes of these pages: query(r) [dim in whole cache lines] in octaves per
    /// unit of the key, 0 beyond dim; real: scratch as long.
    template <std::invocable<index_t> Query>
    void estimate(dlzs::page_sketches const& sketches, index_t rows, Query query, page_run pages,
                  float* real) noexcept {
        constexpr auto octave = static_cast<float>(1 << sads::weight_scale::position_bits);
        std::array<std::array<std::int32_t, rows_of_team>, dlzs::sketch_parts> starts{};
        std::array<std::array<float, dlzs::sketch_parts>, rows_of_team> scales{};
        for (std::size_t r = 0; r < static_cast<std::size_t>(rows); ++r) {
            auto const row = static_cast<index_t>(r);
            dlzs::sketch_query const asked = dlzs::code_sketch_query(
                sketches, query(row), octave, real, packed_ + row * steps_, team_rows * steps_);
            scales[r] = asked.positions;
            for (std::size_t i = 0; i < dlzs::sketch_parts; ++i) {
                starts[i][r] = asked.start[i];
            }
        }
        for (index_t first = base_of(pages); first < pages.to; first += exec::tile_width) {
            for (std::size_t i = 0; i < dlzs::sketch_parts; ++i) {
                auto const& panels = sketches.panels(static_cast<dlzs::sketch_part>(i));
                exec::int8_tile(rows,
                                {packed_ + static_cast<index_t>(i) * team_rows * steps_, steps_,
                                 starts[i].data(),
                                 exec::columns_of(panels.tile_from(first / exec::page_keys),
                                                  first / exec::tile_width % exec::page_tiles),
                                 scores_[i].data(), exec::tile_width, panels.steps()});
            }
            for (index_t r = 0; r < rows; ++r) {
                put_positions(r, scales[static_cast<std::size_t>(r)], first);
            }
        }
        combine(rows, pages);
    }

    struct team {
        index_t least_sees = 0; ///< of its rows, keys up to here
        index_t most_sees = 0;
        index_t least_from = 0; ///< from here on
        index_t most_from = 0;
        index_t sinks = 0;
        index_t window_from = 0; ///< keys that some row is forced to keep
        index_t window_to = 0;
        index_t at_least = 0;
        double loss = 0; ///< share of the mass that skipped pages may have; 0: none is skipped
    };
    /// Those of the segments that all of its rows see.
    [[nodiscard]] static constexpr page_run competing(team const& of) noexcept {
        return of.loss > 0.0 ? page_run{ceil_div(of.most_from, segment) * segment_pages,
                                        of.least_sees / segment * segment_pages}
                             : page_run{};
    }
    /// Pages of team `t`, which was estimated last.
    void decide(index_t t, index_t rows, team const& of) noexcept {
        constexpr index_t page = exec::page_keys;
        page_run const seen{of.least_from / page, ceil_div(of.most_sees, page)};
        page_run const in = competing(of);
        auto const looked =
            std::span(looked_ + t * padded_words(tiles_), static_cast<std::size_t>(tiles_));
        std::ranges::fill(looked, 0u);
        std::fill_n(skipped_, tiles_ * tile_segments, 0.0f);
        if (in.empty()) {
            tops_[static_cast<std::size_t>(t)].fill(sads::no_key);
            set(looked, seen.from, seen.to);
        } else {
            // Pages count from `base` on. Those before the first that competes are no keys, but where sinks
            // reach behind them they are forced like these.
            index_t const base = base_of(in);
            sads::row_rule rule;
            rule.visible = in.to - base;
            auto const within = [&](index_t p) { return std::clamp(p, in.from, in.to) - base; };
            index_t const sinks = within(ceil_div(of.sinks, page));
            index_t const no_keys = in.from - base;
            bool const has_sinks = sinks > no_keys;
            rule.sinks = has_sinks ? sinks : 0;
            index_t const from = within(of.window_from / page);
            index_t const to = std::max(from, within(ceil_div(of.window_to, page)));
            rule.window = to - from;
            rule.after_window = rule.visible - to;
            rule.at_least =
                std::min(in.to - in.from, ceil_div(of.at_least, page)) + (has_sinks ? no_keys : 0);
            rule.drop = sads::drop_rule::of_mass(1.0 - of.loss, sads::weight_scale());
            std::int16_t* const positions = combined() + base;
            index_t const lanes =
                ceil_div<index_t>(rule.visible, exec::short_width) * exec::short_width;
            sads::row_cut const cut =
                find_cut_(std::span(positions, static_cast<std::size_t>(lanes)), rule);
            tops_[static_cast<std::size_t>(t)] = row_tops_;
            for (auto const& [begin, end] : sads::forced_keys(rule, 0, rule.visible)) {
                set(looked, std::max(base + begin, in.from), base + end);
            }
            take_above(looked, in, cut);
            weigh_skipped(looked, in, rows);
            set(looked, seen.from, in.from);
            set(looked, in.to, seen.to);
        }
        std::int32_t* const begins = begins_ + t * padded_words(tiles_ + 1);
        std::int32_t place = 0;
        for (index_t i = 0; i < tiles_; ++i) {
            begins[i] = place;
            place += static_cast<std::int32_t>(std::popcount(looked[static_cast<std::size_t>(i)]) *
                                               page);
        }
        begins[tiles_] = place;
    }

    /// Pages of tile `i` that team `t` looks at, page p in bit p.
    [[nodiscard]] std::uint32_t looked(index_t t, index_t i) const noexcept {
        return looked_[t * padded_words(tiles_) + i];
    }
    /// Keys of looked-at pages before tile `i`; in all for the number of tiles.
    [[nodiscard]] index_t begin(index_t t, index_t i) const noexcept {
        return begins_[t * padded_words(tiles_ + 1) + i];
    }
    /// Place of a key whose page is looked at.
    [[nodiscard]] index_t place(index_t t, index_t key) const noexcept {
        index_t const tile = key / tile_keys;
        index_t const page = key % tile_keys / exec::page_keys;
        std::uint32_t const before = looked(t, tile) & ((std::uint32_t{1} << page) - 1);
        return begin(t, tile) + std::popcount(before) * exec::page_keys + key % exec::page_keys;
    }
    [[nodiscard]] index_t tiles() const noexcept { return tiles_; }
    /// Weights of the skipped pages of each segment beside a row's best page, in the mean over the team's rows; of
    /// the team that was decided on last.
    [[nodiscard]] std::span<float const> skipped() const noexcept {
        return {skipped_, static_cast<std::size_t>(tiles_ * tile_segments)};
    }
    /// Position of the best page of row r of team t.
    [[nodiscard]] std::int16_t top(index_t t, index_t r) const noexcept {
        return tops_[static_cast<std::size_t>(t)][static_cast<std::size_t>(r)];
    }

private:
    static constexpr index_t tile_segments = sads::kept_tile::segments;
    static constexpr auto parts = static_cast<index_t>(dlzs::sketch_parts);
    static constexpr auto rows_of_team = static_cast<std::size_t>(team_rows);
    static constexpr index_t segment = sads::kept_tile::segment;
    static constexpr index_t segment_pages = segment / exec::page_keys;

    /// Where whole tiles of pages, and words of their bits, begin.
    [[nodiscard]] static constexpr index_t base_of(page_run pages) noexcept {
        constexpr index_t step = std::max(exec::tile_width, tile_pages);
        static_assert(step % tile_pages == 0 && step % exec::tile_width == 0);
        return pages.from / step * step;
    }
    [[nodiscard]] static constexpr index_t padded_words(index_t count) noexcept {
        return ceil_div<index_t>(count, 16) * 16;
    }
    [[nodiscard]] static constexpr index_t padded_steps(index_t dim) noexcept {
        return padded_words(dlzs::dot_steps(dim));
    }
    [[nodiscard]] std::int16_t* combined() const noexcept {
        return positions_ + team_rows * places_;
    }
    [[nodiscard]] static constexpr index_t places(index_t keys) noexcept {
        return ceil_div<index_t>(ceil_div(keys, exec::page_keys), 64) * 64;
    }

    /// Positions of row r: the larger of what a page's outlier alone and its others alone make of it.
    void put_positions(index_t r, std::array<float, dlzs::sketch_parts> const& scale,
                       index_t first) noexcept {
        constexpr int octave = 1 << sads::weight_scale::position_bits;
        constexpr int outlier_share = 4 * octave; // one of 16
        static_assert(exec::page_keys == 16);
        std::int16_t* const into = positions_ + r * places_ + first;
        index_t const row = r * exec::tile_width;
        auto const shorts = [&](std::size_t part, index_t k, int lowest, int highest) {
            auto const at = [&](index_t j) {
                exec::vector_float const x =
                    exec::to_float(exec::load(scores_[part].data() + row + j)) *
                    exec::vector_float(scale[part]);
                return exec::larger(
                    exec::smaller(x, exec::vector_float(static_cast<float>(highest))),
                    exec::vector_float(static_cast<float>(lowest)));
            };
            return exec::rounded_shorts(at(k), at(k + exec::vector_width));
        };
        for (index_t k = 0; k < exec::tile_width; k += exec::short_width) {
            exec::vector_int16 const others =
                shorts(0, k, sads::weight_scale::lowest_position, 64 * octave - 1) +
                shorts(1, k, 0, 64 * octave);
            exec::vector_int16 const outlier =
                shorts(2, k, sads::weight_scale::lowest_position + outlier_share,
                       sads::weight_scale::highest_position) -
                exec::all_shorts(outlier_share);
            exec::store(into + k, exec::larger(others, outlier));
        }
    }

    /// One position for all rows: the logarithm of the sum of what a page weighs beside each row's best page. A
    /// page that a single row needs stays; of the mean of their queries nobody would see it.
    void combine(index_t rows, page_run pages) noexcept {
        index_t const base = base_of(pages);
        index_t const end = ceil_div<index_t>(pages.to, exec::short_width) * exec::short_width;
        for (index_t r = 0; r < rows; ++r) {
            std::int16_t* const row = positions_ + r * places_;
            std::fill(row + base, row + pages.from, sads::no_key);
            std::fill(row + pages.to, row + end, sads::no_key);
            exec::vector_int16 most = exec::all_shorts(sads::no_key);
            for (index_t p = base; p < end; p += exec::short_width) {
                most = exec::larger(most, exec::load(row + p));
            }
            row_tops_[static_cast<std::size_t>(r)] = exec::largest(most);
        }
        for (index_t p = base; p < end; p += exec::short_width) {
            auto const level = [&](index_t r) { // positions above the lowest one that counts
                exec::vector_int16 const away =
                    exec::all_shorts(row_tops_[static_cast<std::size_t>(r)]) -
                    exec::load(positions_ + r * places_ + p);
                return exec::less_by(exec::all_shorts(-sads::weight_scale::lowest_position), away);
            };
            exec::vector_int16 sum = level(0);
            for (index_t r = 1; r < rows; ++r) {
                sum = log_sum(sum, level(r));
            }
            exec::store(combined() + p,
                        sum + exec::all_shorts(sads::weight_scale::lowest_position));
        }
    }
    /// Position of 2^a + 2^b: that of the larger, and for d octaves between them (1 - d / 5)^2 more, which is
    /// log2(1 + 2^-d) within .06. In whole numbers, the same everywhere. pre: not below 0
    [[nodiscard]] static exec::vector_int16 log_sum(exec::vector_int16 a,
                                                    exec::vector_int16 b) noexcept {
        static_assert(sads::weight_scale::position_bits == 8);
        exec::vector_int16 const apart = exec::less_by(a, b) + exec::less_by(b, a);
        exec::vector_int16 const near =
            exec::shifted_left<5>(exec::less_by(exec::all_shorts(5 << 8), apart));
        exec::vector_int16 const square = exec::high_product(near, near); // up to 25600
        return exec::larger(a, b) + exec::high_product(square, exec::all_shorts(655));
    }

    /// Pages [begin, end) are looked at.
    static void set(std::span<std::uint32_t> looked, index_t begin, index_t end) noexcept {
        for (index_t p = begin; p < end;) {
            index_t const word = p / tile_pages;
            index_t const to = std::min(end, (word + 1) * tile_pages);
            std::uint32_t const bits = ~std::uint32_t{0} >> (tile_pages - (to - p));
            looked[static_cast<std::size_t>(word)] |= bits << (p % tile_pages);
            p = to;
        }
    }
    void take_above(std::span<std::uint32_t> looked, page_run pages,
                    sads::row_cut cut) const noexcept {
        exec::vector_int16 const limit = exec::all_shorts(cut.limit);
        std::int16_t const* const positions = combined();
        for (index_t p = base_of(pages); p < pages.to; p += exec::short_width) {
            looked[static_cast<std::size_t>(p / tile_pages)] |=
                exec::lanes_above(exec::load(positions + p), limit) << (p % tile_pages);
        }
        static_assert(tile_pages % exec::short_width == 0);
    }
    /// Positions of pages that do not compete are no_key, and weigh nothing.
    void weigh_skipped(std::span<std::uint32_t const> looked, page_run pages,
                       index_t rows) noexcept {
        constexpr auto octaves = 1.0f / static_cast<float>(1 << sads::weight_scale::position_bits);
        float const of_page = static_cast<float>(exec::page_keys) / static_cast<float>(rows);
        std::int16_t const* const positions = combined();
        std::array<float, static_cast<std::size_t>(tile_pages)> weight;
        for (index_t first = base_of(pages); first < pages.to; first += tile_pages) {
            std::uint32_t const skips = ~looked[static_cast<std::size_t>(first / tile_pages)];
            if (skips == 0) {
                continue;
            }
            for (index_t p = 0; p < tile_pages; p += exec::vector_width) {
                exec::vector_float const away =
                    exec::to_float(exec::load_widened(positions + first + p)) *
                    exec::vector_float(octaves);
                exec::store(weight.data() + p, exec::exp2_of_negative(away));
            }
            for (index_t p = 0; p < tile_pages && first + p < pages.to; ++p) {
                bool const is_skipped = (skips >> p & 1u) != 0;
                skipped_[(first + p) / segment_pages] +=
                    is_skipped ? of_page * weight[static_cast<std::size_t>(p)] : 0.0f;
            }
        }
    }

    index_t steps_;
    index_t places_; ///< of positions, per row
    index_t tiles_;
    std::int32_t* packed_;  ///< [part, row, step]
    float* skipped_;        ///< [segment]
    std::uint32_t* looked_; ///< [team, tile]
    std::int32_t* begins_;  ///< [team, tile + 1]
    std::int16_t*
        positions_; ///< [row, page], of the team that was estimated last; then of all its rows
    std::array<std::int16_t, rows_of_team> row_tops_{};
    std::array<std::array<std::int16_t, rows_of_team>, static_cast<std::size_t>(teams_most)> tops_;
    alignas(64) std::array<
        std::array<std::int32_t, static_cast<std::size_t>(exec::tile_rows* exec::tile_width)>,
        dlzs::sketch_parts> scores_{};
    sads::find_cut find_cut_;
};

} // namespace sofattn
