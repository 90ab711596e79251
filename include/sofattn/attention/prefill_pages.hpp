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
/// Pages that do not compete, or that have forced keys, are looked at.
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
    /// Teams that are estimated side by side.
    static constexpr index_t slots = exec::tile_rows;

    [[nodiscard]] static constexpr std::size_t bytes(index_t keys, index_t dim,
                                                     index_t teams) noexcept {
        index_t const tiles = ceil_div(keys, tile_keys);
        index_t const words = 3 * slots * padded_steps(dim) + padded_words(tiles * tile_segments) +
                              teams * (padded_words(tiles) + padded_words(tiles + 1));
        return static_cast<std::size_t>(words) * sizeof(std::int32_t) +
               static_cast<std::size_t>(slots * places(keys)) * sizeof(std::int16_t);
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
        packed_ = take(3 * slots * steps_);
        skipped_ = reinterpret_cast<float*>(take(padded_words(tiles_ * tile_segments)));
        looked_ = reinterpret_cast<std::uint32_t*>(take(teams * padded_words(tiles_)));
        begins_ = take(teams * padded_words(tiles_ + 1));
        positions_ = reinterpret_cast<std::int16_t*>(next);
    }

    /// What a team asks; sum, squares: of dlzs::code_sketch_query.
    void ask(index_t slot, dlzs::page_sketches const& sketches, index_t rows,
             std::span<double const> sum, std::span<double const> squares,
             std::span<float> scratch) noexcept {
        constexpr auto positions = static_cast<double>(1 << sads::weight_scale::position_bits);
        auto const stride = static_cast<std::size_t>(slots * steps_);
        queries_[static_cast<std::size_t>(slot)] = dlzs::code_sketch_query(
            sketches, rows, sum, squares, positions, scratch,
            std::span(packed_ + slot * steps_,
                      (dlzs::sketch_parts - 1) * stride + static_cast<std::size_t>(steps_)),
            stride);
    }

    /// Estimates of the first `pages` pages for slots [0, count).
    void estimate(index_t count, dlzs::page_sketches const& sketches, index_t pages) noexcept {
        for (index_t first = 0; first < pages; first += exec::tile_width) {
            for (std::size_t i = 0; i < dlzs::sketch_parts; ++i) {
                auto const& panels = sketches.panels(static_cast<dlzs::sketch_part>(i));
                std::array<std::int32_t, static_cast<std::size_t>(slots)> starts{};
                for (std::size_t s = 0; s < starts.size(); ++s) {
                    starts[s] = queries_[s].start[i];
                }
                exec::int8_tile(count,
                                {packed_ + static_cast<index_t>(i) * slots * steps_, steps_,
                                 starts.data(),
                                 exec::columns_of(panels.tile_from(first / exec::page_keys),
                                                  first / exec::tile_width % exec::page_tiles),
                                 scores_[i].data(), exec::tile_width, panels.steps()});
            }
            for (index_t s = 0; s < count; ++s) {
                put_positions(s, first);
            }
        }
    }

    struct team {
        index_t least_sees = 0; ///< keys, of its rows
        index_t most_sees = 0;
        index_t sinks = 0;
        index_t window_from = 0; ///< keys that some row is forced to keep
        index_t window_to = 0;
        index_t at_least = 0;
        double loss = 0; ///< share of the mass that skipped pages may have; 0: none is skipped
    };
    /// The first pages, so many.
    [[nodiscard]] static constexpr index_t competing_pages(team const& of) noexcept {
        return of.loss > 0.0 ? of.least_sees / sads::kept_tile::segment * segment_pages : 0;
    }
    /// Pages of team `t`, whose estimates are those of `slot`.
    void decide(index_t t, index_t slot, team const& of) noexcept {
        constexpr index_t page = exec::page_keys;
        index_t const pages = ceil_div(of.most_sees, page);
        index_t const competing = competing_pages(of);
        auto const looked =
            std::span(looked_ + t * padded_words(tiles_), static_cast<std::size_t>(tiles_));
        std::ranges::fill(looked, 0u);
        std::fill_n(skipped_, tiles_ * tile_segments, 0.0f);
        index_t sure = 0; // pages from here on are looked at
        if (competing > 0) {
            sads::row_rule rule;
            rule.visible = competing;
            rule.sinks = std::min(competing, ceil_div(of.sinks, page));
            index_t const from = std::min(competing, of.window_from / page);
            index_t const to = std::clamp(ceil_div(of.window_to, page), from, competing);
            rule.window = to - from;
            rule.after_window = competing - to;
            rule.at_least = std::min(competing, ceil_div(of.at_least, page));
            rule.drop = sads::drop_rule::of_mass(1.0 - of.loss, sads::weight_scale());
            std::int16_t* const positions = positions_ + slot * places_;
            sads::row_cut const cut = find_cut_(
                std::span(positions,
                          static_cast<std::size_t>(ceil_div<index_t>(competing, 64) * 64)),
                rule);
            tops_[static_cast<std::size_t>(t)] = cut.top;
            for (auto const& [begin, end] : sads::forced_keys(rule, 0, competing)) {
                set(looked, begin, end);
            }
            take_above(looked, positions, competing, cut);
            weigh_skipped(looked, positions, competing, cut.top);
            sure = competing;
        } else {
            tops_[static_cast<std::size_t>(t)] = sads::no_key;
        }
        set(looked, sure, pages);
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
    /// Weights of the skipped pages of each segment, beside a key of position `top`; of the team that
    /// was decided on last.
    [[nodiscard]] std::span<float const> skipped() const noexcept {
        return {skipped_, static_cast<std::size_t>(tiles_ * tile_segments)};
    }
    /// Position of the best page.
    [[nodiscard]] std::int16_t top(index_t t) const noexcept {
        return tops_[static_cast<std::size_t>(t)];
    }

private:
    static constexpr index_t tile_segments = sads::kept_tile::segments;
    static constexpr index_t segment_pages = sads::kept_tile::segment / exec::page_keys;

    [[nodiscard]] static constexpr index_t padded_words(index_t count) noexcept {
        return ceil_div<index_t>(count, 16) * 16;
    }
    [[nodiscard]] static constexpr index_t padded_steps(index_t dim) noexcept {
        return padded_words(dlzs::dot_steps(dim));
    }
    [[nodiscard]] static constexpr index_t places(index_t keys) noexcept {
        return ceil_div<index_t>(ceil_div(keys, exec::page_keys), 64) * 64;
    }

    /// The larger of what a page's outlier alone and its others alone make of it.
    void put_positions(index_t slot, index_t first) noexcept {
        constexpr int octave = 1 << sads::weight_scale::position_bits;
        constexpr int outlier_share = 4 * octave; // one of 16
        static_assert(exec::page_keys == 16);
        auto const& scale = queries_[static_cast<std::size_t>(slot)].positions;
        std::int16_t* const into = positions_ + slot * places_ + first;
        index_t const row = slot * exec::tile_width;
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
    static void take_above(std::span<std::uint32_t> looked, std::int16_t const* positions,
                           index_t pages, sads::row_cut cut) noexcept {
        exec::vector_int16 const limit = exec::all_shorts(cut.limit);
        for (index_t p = 0; p < pages; p += exec::short_width) {
            looked[static_cast<std::size_t>(p / tile_pages)] |=
                exec::lanes_above(exec::load(positions + p), limit) << (p % tile_pages);
        }
        static_assert(tile_pages % exec::short_width == 0);
    }
    /// Positions of pages that do not compete are no_key, and weigh nothing.
    void weigh_skipped(std::span<std::uint32_t const> looked, std::int16_t const* positions,
                       index_t pages, std::int16_t top) noexcept {
        constexpr auto octaves = 1.0f / static_cast<float>(1 << sads::weight_scale::position_bits);
        exec::vector_int32 const best(top);
        std::array<float, static_cast<std::size_t>(tile_pages)> weight;
        for (index_t first = 0; first < pages; first += tile_pages) {
            std::uint32_t const skips = ~looked[static_cast<std::size_t>(first / tile_pages)];
            if (skips == 0) {
                continue;
            }
            for (index_t p = 0; p < tile_pages; p += exec::vector_width) {
                exec::vector_float const away =
                    exec::to_float(exec::load_widened(positions + first + p) - best) *
                    exec::vector_float(octaves);
                exec::store(weight.data() + p, exec::exp2_of_negative(away));
            }
            for (index_t p = 0; p < tile_pages && first + p < pages; ++p) {
                bool const is_skipped = (skips >> p & 1u) != 0;
                skipped_[(first + p) / segment_pages] +=
                    is_skipped
                        ? static_cast<float>(exec::page_keys) * weight[static_cast<std::size_t>(p)]
                        : 0.0f;
            }
        }
    }

    index_t steps_;
    index_t places_; ///< of positions, per slot
    index_t tiles_;
    std::int32_t* packed_;    ///< [part, slot, step]
    float* skipped_;          ///< [segment]
    std::uint32_t* looked_;   ///< [team, tile]
    std::int32_t* begins_;    ///< [team, tile + 1]
    std::int16_t* positions_; ///< [slot, page]
    std::array<dlzs::sketch_query, static_cast<std::size_t>(slots)> queries_;
    std::array<std::int16_t, static_cast<std::size_t>(teams_most)> tops_;
    alignas(64) std::array<
        std::array<std::int32_t, static_cast<std::size_t>(exec::tile_rows* exec::tile_width)>,
        dlzs::sketch_parts> scores_{};
    sads::find_cut find_cut_;
};

} // namespace sofattn
