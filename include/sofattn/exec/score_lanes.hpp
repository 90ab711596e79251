// SPDX-License-Identifier: MIT
// Integer scores side by side, of 32 or 64 bits: extremes, counts, and who reaches a limit.
#pragma once

#include <sofattn/core/types.hpp>
#include <sofattn/exec/integer_lanes.hpp>
#include <sofattn/exec/nibbles.hpp>
#include <sofattn/exec/xsimd_lanes.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>

namespace sofattn::exec {

/// Scores that registers compare.
template <class T>
concept lane_score = std::same_as<T, std::int32_t> || std::same_as<T, std::int64_t>;

template <lane_score Score>
struct score_extremes {
    Score least;
    Score most;
};

namespace detail {

template <lane_score Score>
using score_batch = xsimd::batch<Score>;

template <lane_score Score>
[[nodiscard]] inline std::array<Score, score_batch<Score>::size>
lanes_of_scores(score_batch<Score> x) noexcept {
    std::array<Score, score_batch<Score>::size> lanes;
    x.store_unaligned(lanes.data());
    return lanes;
}

} // namespace detail

/// pre: not empty
template <lane_score Score>
[[nodiscard]] inline score_extremes<Score> extremes(std::span<Score const> scores) noexcept {
    using batch = detail::score_batch<Score>;
    constexpr std::size_t together = 4; // comparisons that wait for no other
    constexpr std::size_t step = together * batch::size;
    score_extremes<Score> found{scores[0], scores[0]};
    std::size_t i = 0;
    if (scores.size() >= step) {
        std::array<batch, together> least;
        std::array<batch, together> most;
        least.fill(batch(scores[0]));
        most.fill(batch(scores[0]));
        for (; i + step <= scores.size(); i += step) {
            for (std::size_t j = 0; j < together; ++j) {
                batch const x = batch::load_unaligned(scores.data() + i + j * batch::size);
                least[j] = xsimd::min(least[j], x);
                most[j] = xsimd::max(most[j], x);
            }
        }
        for (std::size_t j = 1; j < together; ++j) {
            least[0] = xsimd::min(least[0], least[j]);
            most[0] = xsimd::max(most[0], most[j]);
        }
        found.least = std::ranges::min(detail::lanes_of_scores<Score>(least[0]));
        found.most = std::ranges::max(detail::lanes_of_scores<Score>(most[0]));
    }
    for (; i < scores.size(); ++i) {
        found.least = std::min(found.least, scores[i]);
        found.most = std::max(found.most, scores[i]);
    }
    return found;
}

namespace detail {

/// How many of the first whole registers' scores are at least `limit`; `end`: behind them.
template <lane_score Score>
[[nodiscard]] inline index_t count_whole_registers(std::span<Score const> scores, Score limit,
                                                   std::size_t& end) noexcept {
    using batch = score_batch<Score>;
    std::size_t i = 0;
    index_t count = 0;
#if defined(__AVX512F__)
    for (; i + batch::size <= scores.size(); i += batch::size) {
        __m512i const x = _mm512_loadu_si512(scores.data() + i);
        if constexpr (sizeof(Score) == sizeof(std::int32_t)) {
            count += std::popcount(
                static_cast<unsigned>(_mm512_cmpge_epi32_mask(x, _mm512_set1_epi32(limit))));
        } else {
            count += std::popcount(
                static_cast<unsigned>(_mm512_cmpge_epi64_mask(x, _mm512_set1_epi64(limit))));
        }
    }
#else
    batch const bound(limit);
    batch below(0);
    for (; i + batch::size <= scores.size(); i += batch::size) {
        batch const x = batch::load_unaligned(scores.data() + i);
        below = below + xsimd::select(x < bound, batch(1), batch(0));
    }
    count = static_cast<index_t>(i);
    for (Score const lane : lanes_of_scores<Score>(below)) {
        count -= static_cast<index_t>(lane);
    }
#endif
    end = i;
    return count;
}

} // namespace detail

/// How many are at least `limit`.
template <lane_score Score>
[[nodiscard]] inline index_t count_at_least(std::span<Score const> scores, Score limit) noexcept {
    std::size_t i = 0;
    index_t count = detail::count_whole_registers(scores, limit, i);
    for (; i < scores.size(); ++i) {
        count += scores[i] < limit ? 0 : 1;
    }
    return count;
}

/// Keys first, first + 1, ... of the scores that are at least `least`, ascending, into `keys`;
/// returns how many. pre: places for a register more than that
[[nodiscard]] inline index_t collect_at_least(std::int64_t const* scores, index_t count,
                                              std::int64_t least, key_id first,
                                              key_id* keys) noexcept {
    index_t found = 0;
    for (index_t i = 0; i < count; ++i) {
        keys[found] = static_cast<key_id>(first + i);
        found += scores[i] >= least ? 1 : 0;
    }
    return found;
}

/// Sum of the costs of the scores below `limit`. pre: as many costs as scores, below 2^31
template <lane_score Score>
[[nodiscard]] inline std::uint64_t cost_below(std::span<Score const> scores,
                                              std::int32_t const* costs, Score limit) noexcept {
    std::uint64_t sum = 0;
    std::size_t i = 0;
    if constexpr (std::same_as<Score, std::int32_t>) {
        vector_int32 const bound(limit);
        wide_sum wide;
        constexpr auto width = static_cast<std::size_t>(vector_width);
        for (; i + width <= scores.size(); i += width) {
            wide.add(
                xsimd::select(load(scores.data() + i) < bound, load(costs + i), vector_int32(0)));
        }
        sum = wide.total();
    }
    for (; i < scores.size(); ++i) {
        sum += scores[i] < limit ? static_cast<std::uint64_t>(costs[i]) : 0u;
    }
    return sum;
}

/// top - score as floats, rounded once, of vector_width scores. pre: the differences are representable
[[nodiscard]] inline vector_float below_top(std::int32_t top, std::int32_t const* scores) noexcept {
    return to_float(vector_int32(top) - load(scores));
}
[[nodiscard]] inline vector_float below_top(std::int64_t top, std::int64_t const* scores) noexcept {
    std::array<float, static_cast<std::size_t>(vector_width)> below;
    for (std::size_t i = 0; i < below.size(); ++i) {
        below[i] = static_cast<float>(top - scores[i]);
    }
    return load(below.data());
}

/// Scores as floats, rounded once.
[[nodiscard]] inline vector_float as_float(std::int32_t const* scores) noexcept {
    return to_float(load(scores));
}
[[nodiscard]] inline vector_float as_float(std::int64_t const* scores) noexcept {
    std::array<float, static_cast<std::size_t>(vector_width)> wide;
    for (std::size_t i = 0; i < wide.size(); ++i) {
        wide[i] = static_cast<float>(scores[i]);
    }
    return load(wide.data());
}

} // namespace sofattn::exec
