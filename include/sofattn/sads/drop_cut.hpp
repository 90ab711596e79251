// SPDX-License-Identifier: MIT
// How many of some keys an adaptive budget lets go, on vector registers and without sorting.
#pragma once

#include <sofattn/core/types.hpp>
#include <sofattn/exec/integer_lanes.hpp>
#include <sofattn/exec/score_lanes.hpp>
#include <sofattn/exec/short_lanes.hpp>
#include <sofattn/exec/xsimd_lanes.hpp>
#include <sofattn/sads/best_cut.hpp>
#include <sofattn/sads/drop_rule.hpp>
#include <sofattn/sads/softmax_weight.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace sofattn::sads {

namespace detail {

/// weight_scale's arithmetic, lane by lane.
struct weighed_lanes {
    /// Of vector_width scores.
    template <exec::lane_score Score>
    static weighed_lanes of(weight_scale scale, Score top, Score const* scores) noexcept {
        exec::vector_float const away = exec::smaller(
            exec::below_top(top, scores) * exec::vector_float(scale.steps_per_score()),
            exec::vector_float(static_cast<float>(weight_scale::farthest)));
        exec::vector_int32 const steps = exec::truncated(away);
        constexpr int bits = weight_scale::step_bits;
        exec::vector_int32 const f = steps & exec::vector_int32((1 << bits) - 1);
        auto const constant = [](std::uint32_t c) {
            return exec::vector_int32(static_cast<std::int32_t>(c));
        };
        exec::vector_int32 r =
            constant(weight_scale::c2) - ((constant(weight_scale::c3) * f) >> bits);
        r = constant(weight_scale::c1) - ((r * f) >> bits);
        return {constant(1u << 16) - ((r * f) >> bits), steps >> bits};
    }

    exec::vector_int32 mantissa; ///< 2^-16
    exec::vector_int32 octaves;

    [[nodiscard]] exec::vector_int32 weight() const noexcept {
        return exec::shifted_right(mantissa << (weight_scale::unit_bits - 16), octaves);
    }
    [[nodiscard]] exec::vector_int32 squared() const noexcept {
        exec::vector_int32 const half = mantissa >> 1;
        return exec::shifted_right(half * half, octaves + octaves);
    }
};

} // namespace detail

/// The sum of the weights of some scores beside `top`, and what each costs to drop.
///
/// in     rule, top
///        scores [key]
/// out    costs  [key]  if not null; returns the sum
/// exact  the bits of weight_scale::weight and drop_rule::cost
template <exec::lane_score Score>
std::uint64_t weigh_scores(drop_rule const& rule, Score top, std::span<Score const> scores,
                           std::int32_t* costs) noexcept {
    bool const squares = rule.measure == drop_measure::error;
    exec::wide_sum sum;
    constexpr auto width = static_cast<std::size_t>(exec::vector_width);
    std::size_t i = 0;
    for (; i + width <= scores.size(); i += width) {
        auto const lanes = detail::weighed_lanes::of(rule.weights, top, scores.data() + i);
        exec::vector_int32 const weight = lanes.weight();
        sum.add(weight);
        if (costs != nullptr) {
            exec::store(costs + i, squares ? lanes.squared() : weight);
        }
    }
    std::uint64_t total = sum.total();
    for (; i < scores.size(); ++i) {
        total += rule.weights.weight(top, scores[i]);
        if (costs != nullptr) {
            costs[i] = static_cast<std::int32_t>(rule.cost(top, scores[i]));
        }
    }
    return total;
}

/// What an adaptive rule may do with some competing keys.
struct drop_limits {
    std::uint64_t dropped = 0;   ///< cost of what is gone already
    std::uint64_t allowance = 0; ///< of all that goes
    index_t least = 0;           ///< keys that stay, whatever the allowance; may be negative
    index_t most = 0;            ///< keys that may stay
    bool drops_for_weight = false;
};

/// What is left of the competing keys.
template <class Score>
struct drop_result {
    best_cut<Score> cut{};
    index_t kept = 0;
    std::uint64_t dropped = 0; ///< cost of all that is gone
};

/// The worst go while their cost stays within the allowance, beside those out of `reach` and beyond
/// `limits.most`, which have to: what `adaptive` does with a sorted row, found by counting.
///
/// pre: not empty; a cost per score
template <exec::lane_score Score>
[[nodiscard]] drop_result<Score> drop_worst(std::span<Score const> scores,
                                            std::int32_t const* costs, Score reach,
                                            drop_limits const& limits) noexcept {
    auto const count = std::ssize(scores);
    auto const range = exec::extremes(scores);
    auto const cost_of = [&](Score score) { // of any with this score
        auto const at = std::ranges::find(scores, score);
        return static_cast<std::uint64_t>(costs[at - scores.begin()]);
    };
    auto const leaving = [&](index_t kept) {
        drop_result<Score> result;
        result.kept = kept;
        if (kept == 0) {
            result.cut = {range.most, 0};
            result.dropped = limits.dropped + exec::cost_below(scores, costs, range.most) +
                             static_cast<std::uint64_t>(std::ranges::count(scores, range.most)) *
                                 cost_of(range.most);
            return result;
        }
        result.cut = cut_of_best(scores, kept, range);
        Score const above = result.cut.above;
        result.dropped = limits.dropped + exec::cost_below(scores, costs, above);
        if (index_t const tied = std::ranges::count(scores, above); tied > 0) {
            result.dropped += static_cast<std::uint64_t>(tied - result.cut.ties) * cost_of(above);
        }
        return result;
    };
    index_t const reached = reach <= range.least ? count : exec::count_at_least(scores, reach);
    index_t const stay_most = std::clamp<index_t>(limits.most, 0, reached);
    index_t const stay_least = std::clamp<index_t>(limits.least, 0, count);
    if (!limits.drops_for_weight || stay_most <= stay_least || limits.dropped > limits.allowance) {
        return leaving(stay_most);
    }
    // The lowest score that cannot go with all of its equals; beyond the best, if all can.
    std::uint64_t const allowed = limits.allowance - limits.dropped;
    Score low = range.least;                        // all below it can go
    auto high = static_cast<Score>(range.most + 1); // not all below it can, unless it stays that
    std::uint64_t below = 0;
    while (low < high) {
        auto const middle = static_cast<Score>(low + (high - low + 1) / 2);
        std::uint64_t const cost = exec::cost_below(scores, costs, middle);
        if (cost <= allowed) {
            low = middle;
            below = cost;
        } else {
            high = static_cast<Score>(middle - 1);
        }
    }
    index_t stay = low > range.most ? 0 : exec::count_at_least(scores, low);
    if (stay > 0) {
        // Of equal ones the last go first.
        std::uint64_t const each = cost_of(low);
        auto const go = static_cast<index_t>((allowed - below) / each);
        index_t const tied =
            stay -
            (low == range.most ? 0 : exec::count_at_least(scores, static_cast<Score>(low + 1)));
        stay -= go;
        if (stay >= stay_least && stay <= stay_most) {
            return {{low, tied - go},
                    stay,
                    limits.dropped + below + static_cast<std::uint64_t>(go) * each};
        }
    }
    return leaving(std::min(stay_most, std::max(stay, stay_least)));
}

/// 16-bit positions of scores (weight_scale::position), bit for bit; places behind the last score, up to a whole
/// register, hold anything.
template <exec::lane_score Score>
void put_positions(weight_scale scale, std::span<Score const> scores, std::int16_t* to) noexcept {
    constexpr auto lowest = static_cast<float>(weight_scale::lowest_position);
    constexpr auto highest = static_cast<float>(weight_scale::highest_position);
    exec::vector_float const unit(scale.positions_per_score());
    constexpr auto width = static_cast<std::size_t>(exec::vector_width);
    std::size_t i = 0;
    for (; i + 2 * width <= scores.size(); i += 2 * width) {
        auto const at = [&](std::size_t k) {
            return exec::larger(exec::smaller(exec::as_float(scores.data() + k) * unit,
                                              exec::vector_float(highest)),
                                exec::vector_float(lowest));
        };
        exec::store(to + i, exec::rounded_shorts(at(i), at(i + width)));
    }
    for (; i < scores.size(); ++i) {
        to[i] = static_cast<std::int16_t>(scale.position(scores[i]));
    }
}

} // namespace sofattn::sads
