// SPDX-License-Identifier: MIT
// Where the best of some integer scores end, by counting on vector registers; and their order.
#pragma once

#include <sofattn/core/assert.hpp>
#include <sofattn/core/order.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/exec/score_lanes.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <type_traits>
#include <utility>

namespace sofattn::sads {

/// A set of best scores in the total order: all above `above`, and of those equal to it the first
/// `ties`.
template <class Score>
struct best_cut {
    Score above{};
    index_t ties = 0;

    /// The same without what is below `least`.
    [[nodiscard]] best_cut and_at_least(Score least) const noexcept {
        return least > above ? best_cut{static_cast<Score>(least - 1), 0} : *this;
    }
};

/// The cut that leaves the `wanted` best of `scores`. A bisection of the range of scores, which ends
/// at the first gap that will do.
///
/// pre: 0 < wanted <= scores, within half of their type's range
template <exec::lane_score Score>
[[nodiscard]] best_cut<Score> cut_of_best(std::span<Score const> scores, index_t wanted,
                                          exec::score_extremes<Score> range) noexcept {
    SOFATTN_DASSERT(wanted > 0 && wanted <= std::ssize(scores));
    Score low = range.least; // at least `wanted` scores reach it
    Score high = range.most; // fewer than that are above it
    index_t above_high = 0;  // scores
    if (wanted == std::ssize(scores)) {
        return {static_cast<Score>(low - 1), 0};
    }
    while (low < high) {
        auto const middle = static_cast<Score>(low + (high - low + 1) / 2);
        index_t const count = exec::count_at_least(scores, middle);
        if (count == wanted) {
            return {static_cast<Score>(middle - 1), 0};
        }
        if (count > wanted) {
            low = middle;
        } else {
            high = static_cast<Score>(middle - 1);
            above_high = count;
        }
    }
    return {low, wanted - above_high};
}

/// Takes the keys of a cut out of the scores of keys first, first + 1, ..., in key order; `ties` are
/// used up. Returns how many. pre: as many places, and a register of `keys` more
template <exec::lane_score Score>
index_t collect(std::span<Score const> scores, key_id first, best_cut<Score>& cut, key_id* keys,
                ranked<Score>* kept) noexcept {
    bool const with_ties = cut.ties > 0;
    index_t const found =
        exec::collect_at_least(scores.data(), std::ssize(scores),
                               static_cast<Score>(cut.above + (with_ties ? 0 : 1)), first, keys);
    Score const* const of = scores.data() - first;
    if (!with_ties) {
        for (index_t i = 0; i < found; ++i) {
            kept[i] = {of[keys[i]], keys[i]};
        }
        return found;
    }
    index_t filled = 0;
    for (index_t i = 0; i < found; ++i) {
        Score const score = of[keys[i]];
        bool const is_tied = score == cut.above;
        kept[filled] = {score, keys[i]};
        filled += !is_tied || cut.ties > 0 ? 1 : 0;
        cut.ties -= is_tied && cut.ties > 0 ? 1 : 0;
    }
    return filled;
}

/// Brings entries, which are in key order, into the total order. `spare` has as many places.
///
/// Few by counting who comes before each; many digit by digit of how far they are from the best,
/// which leaves equal ones in key order.
template <exec::lane_score Score>
void put_best_first(std::span<ranked<Score>> entries, std::span<ranked<Score>> spare) noexcept {
    SOFATTN_ASSERT(spare.size() >= entries.size());
    if (entries.size() < 2) {
        return;
    }
    using unsigned_score = std::make_unsigned_t<Score>;
    auto const [low, high] = std::ranges::minmax(entries, {}, &ranked<Score>::score);
    constexpr std::size_t few = 32;
    constexpr int place_bits = 5;
    constexpr auto most_apart = static_cast<unsigned_score>(std::numeric_limits<Score>::max());
    if (entries.size() <= few) {
        if (static_cast<unsigned_score>(high.score) - static_cast<unsigned_score>(low.score) >=
            (most_apart >> place_bits)) {
            std::ranges::sort(entries,
                              [](auto const& a, auto const& b) { return comes_before(a, b); });
            return;
        }
        // Scores with their places below them: no two are equal.
        alignas(64) std::array<Score, few> words;
        constexpr auto whole = static_cast<std::size_t>(64 / sizeof(Score)); // a register or more
        std::size_t const end = ceil_div(entries.size(), whole) * whole;
        for (std::size_t i = 0; i < entries.size(); ++i) {
            words[i] = static_cast<Score>(((entries[i].score - low.score) << place_bits) +
                                          static_cast<Score>(few - 1 - i));
            spare[i] = entries[i];
        }
        std::fill(words.begin() + std::ssize(entries), words.begin() + static_cast<index_t>(end),
                  Score{-1});
        auto const all = std::span<Score const>(words).first(end);
        for (std::size_t i = 0; i < spare.size() && i < entries.size(); ++i) {
            entries[static_cast<std::size_t>(exec::count_at_least(all, words[i]) - 1)] = spare[i];
        }
        return;
    }
    Score const top = high.score;
    auto const away = [top](ranked<Score> const& entry) {
        return static_cast<unsigned_score>(static_cast<unsigned_score>(top) -
                                           static_cast<unsigned_score>(entry.score));
    };
    constexpr int digit_bits = 8;
    constexpr unsigned_score digits = unsigned_score{1} << digit_bits;
    auto from = entries;
    auto to = spare.first(entries.size());
    for (int shift = 0; shift < static_cast<int>(std::bit_width(away(low))); shift += digit_bits) {
        std::array<std::uint32_t, std::size_t{digits}> start{};
        for (auto const& entry : from) {
            ++start[static_cast<std::size_t>((away(entry) >> shift) % digits)];
        }
        std::uint32_t sum = 0;
        for (std::uint32_t& s : start) {
            sum += std::exchange(s, sum);
        }
        for (auto const& entry : from) {
            to[start[static_cast<std::size_t>((away(entry) >> shift) % digits)]++] = entry;
        }
        std::swap(from, to);
    }
    if (from.data() != entries.data()) {
        std::ranges::copy(from, entries.begin());
    }
}

} // namespace sofattn::sads
