// SPDX-License-Identifier: MIT
// Tail compensation on vector registers.
#pragma once

#include <sofattn/core/assert.hpp>
#include <sofattn/core/order.hpp>
#include <sofattn/core/score_line.hpp>
#include <sofattn/core/tensor.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/exec/score_lanes.hpp>
#include <sofattn/exec/xsimd_lanes.hpp>
#include <sofattn/sufa/register_rows.hpp>
#include <sofattn/sufa/softmax_state.hpp>
#include <sofattn/sufa/tail.hpp>
#include <sofattn/sufa/weighted_rows.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <numbers>
#include <span>
#include <vector>

namespace sofattn::sufa {

/// What stands in for dropped values, as rows that kernels read: sums of segments, or every value in
/// 8 bits.
template <tail_policy Tail>
class register_tail_rows {
public:
    register_tail_rows() noexcept = default;
    /// Of a KV head with `keys` values of `value_dim`.
    register_tail_rows(tail_values<Tail> const& prepared, index_t keys, index_t value_dim)
        : rows_({tail_values<Tail>::has_sums ? ceil_div(keys, Tail::segment) : keys, value_dim}) {
        for (index_t r = 0; r < rows_.template extent<axis::key>(); ++r) {
            for (index_t d = 0; d < value_dim; ++d) {
                if constexpr (tail_values<Tail>::has_sums) {
                    rows_(r, d) = static_cast<float>(prepared.sum(r, d));
                } else if constexpr (Tail::by == stand_in::int8_values) {
                    rows_(r, d) = prepared.coded(r, d);
                }
            }
        }
    }

    [[nodiscard]] row_of_registers rows() const noexcept {
        return register_rows<axis::key, axis::value_dim>(rows_).rows();
    }

private:
    tensor<float, axis::key, axis::value_dim> rows_; ///< [segment or key, value_dim]
};

/// Buffers of register_tail, made once for the longest run.
struct register_tail_scratch {
    register_tail_scratch() = default;
    explicit register_tail_scratch(index_t keys, index_t segment, index_t value_width)
        : weights(static_cast<std::size_t>(keys + exec::vector_width)),
          which(static_cast<std::size_t>(2 * keys + 1)),
          factors(static_cast<std::size_t>(2 * keys + 1)),
          segments(static_cast<std::size_t>(keys / segment + 2)),
          shares(static_cast<std::size_t>(keys / segment + 2)),
          share_of(static_cast<std::size_t>(keys / segment + 2)),
          kept_in(static_cast<std::size_t>(keys / segment + 2)),
          sum(static_cast<std::size_t>(value_width)) {}

    std::vector<float> weights;         ///< [key of the run], 0 where kept
    std::vector<std::int32_t> which;    ///< rows of values
    std::vector<float> factors;         ///< theirs
    std::vector<std::int32_t> segments; ///< rows of sums
    std::vector<float> shares;          ///< theirs
    std::vector<float> share_of;        ///< [segment], each dropped key's weight there
    std::vector<std::int32_t> kept_in;  ///< [segment], keys
    std::vector<float> sum;             ///< [value_width], of dropped values
};

/// What tail_compensation does with a run's dropped keys. Weights of a segment are summed apart from
/// its values: the mean of the dropped ones is the segment's sum less the kept ones.
///
/// in     values, stand_ins  in whole registers
///        line, first, scores, kept as for tail_compensation
/// out    state, tail        as for tail_compensation; o and sum have a place per column of registers
/// pre    scratch has room for the run (SOFATTN_ASSERT)
/// error  none
/// events none: this is no circuit
/// exact  deterministic for a target; weights within 1e-6 relatively, and 1e-7 for each octave that
///        they lie below the best dropped one
/// paper  not in the paper
template <tail_policy Tail>
struct register_tail {
    template <class Score>
    void operator()(row_of_registers values, row_of_registers stand_ins, score_line line,
                    index_t first, std::span<Score const> scores,
                    std::span<ranked<Score> const> kept, register_tail_scratch& scratch,
                    softmax_state<float>& state, tail_state<float>& tail) const noexcept {
        auto const keys = std::ssize(scores);
        SOFATTN_ASSERT(std::ssize(scratch.weights) >= keys + exec::vector_width);
        if (Tail::by == stand_in::nobody || std::ssize(kept) == keys) {
            return;
        }
        double const logit = weigh(line, first, scores, kept, scratch);
        auto top = static_cast<float>(logit);
        float unit = 1.0f; // what weights are worth
        if constexpr (Tail::by != stand_in::row_mean) {
            unit = make_room(top, state);
            top = state.m;
        }
        float* const into = Tail::by == stand_in::row_mean ? scratch.sum.data() : state.o.data();
        if constexpr (Tail::by == stand_in::row_mean) {
            std::ranges::fill(scratch.sum, 0.0f);
        }
        float weight = 0.0f;
        if constexpr (Tail::by == stand_in::int8_values) {
            weight = unit * add_each(stand_ins, unit, first, keys, scratch, into);
        } else {
            weight = unit * add_means(values, stand_ins, unit, first, keys, kept, scratch, into);
        }
        if constexpr (Tail::by == stand_in::row_mean) {
            tail_state<float> all;
            all.m = top;
            all.weight = weight;
            all.count = static_cast<float>(keys - std::ssize(kept));
            all.sum = scratch.sum;
            tail.merge(all);
        } else {
            state.l += weight;
        }
    }

private:
    static constexpr float nothing = -1e30f;

    /// Weights beside the best dropped key, whose logit is returned.
    template <class Score>
    static double weigh(score_line line, index_t first, std::span<Score const> scores,
                        std::span<ranked<Score> const> kept,
                        register_tail_scratch& scratch) noexcept {
        float* const weights = scratch.weights.data();
        auto const keys = std::ssize(scores);
        index_t const whole = ceil_div(keys, exec::vector_width) * exec::vector_width;
        // Octaves from the best score of all, exact but for the rounding of a product.
        auto const per_score = static_cast<float>(line.per_score * std::numbers::log2e);
        Score best{};
        if constexpr (exec::lane_score<Score>) {
            best = exec::extremes(scores).most;
            index_t i = 0;
            for (; i + exec::vector_width <= keys; i += exec::vector_width) {
                exec::store(weights + i, exec::below_top(best, scores.data() + i) *
                                             exec::vector_float(-per_score));
            }
            for (; i < keys; ++i) {
                weights[i] =
                    -per_score * static_cast<float>(best - scores[static_cast<std::size_t>(i)]);
            }
        } else {
            best = std::ranges::max(scores);
            for (index_t i = 0; i < keys; ++i) {
                weights[i] =
                    -per_score * static_cast<float>(best - scores[static_cast<std::size_t>(i)]);
            }
        }
        std::fill(weights + keys, weights + whole, nothing);
        for (auto const& entry : kept) {
            weights[entry.key - first] = nothing;
        }
        exec::vector_float most = exec::load(weights);
        for (index_t i = exec::vector_width; i < whole; i += exec::vector_width) {
            most = exec::larger(most, exec::load(weights + i));
        }
        std::array<float, static_cast<std::size_t>(exec::vector_width)> lanes;
        exec::store(lanes.data(), most);
        float const top = std::ranges::max(lanes);
        for (index_t i = 0; i < whole; i += exec::vector_width) {
            exec::store(weights + i,
                        exec::exp2_of_negative(exec::load(weights + i) - exec::vector_float(top)));
        }
        return line.logit(static_cast<double>(best)) + static_cast<double>(top) * std::numbers::ln2;
    }

    /// Makes the state's reference at least `top`; returns the weight that a logit of `top` then has.
    static float make_room(float top, softmax_state<float>& state) noexcept {
        if (state.is_empty()) {
            state.m = top;
            return 1.0f;
        }
        if (top <= state.m) {
            return std::exp(top - state.m);
        }
        float const factor = std::exp(state.m - top);
        state.m = top;
        state.l *= factor;
        for (float& o : state.o) {
            o *= factor;
        }
        return 1.0f;
    }

    [[nodiscard]] static float sum_of(float const* weights, index_t from, index_t to) noexcept {
        exec::vector_float sum(0.0f);
        index_t i = from;
        for (; i + exec::vector_width <= to; i += exec::vector_width) {
            sum = sum + exec::load(weights + i);
        }
        float total = exec::sum_of(sum);
        for (; i < to; ++i) {
            total += weights[i];
        }
        return total;
    }

    /// into += the mean of the dropped values of every segment, with the weight that was dropped
    /// there, or, for the row's mean, their sum; returns the weight of all. In segments that are cut
    /// no sum is at hand, so all of their values are added.
    template <class Score>
    static float add_means(row_of_registers values, row_of_registers sums, float unit,
                           index_t first, index_t keys, std::span<ranked<Score> const> kept,
                           register_tail_scratch& scratch, float* into) noexcept {
        constexpr index_t length = Tail::segment;
        index_t const begin = first / length; // segments
        index_t const end = ceil_div(first + keys, length);
        auto const kept_in =
            std::span(scratch.kept_in).first(static_cast<std::size_t>(end - begin));
        std::ranges::fill(kept_in, 0);
        for (auto const& entry : kept) {
            ++kept_in[static_cast<std::size_t>(entry.key / length - begin)];
        }
        float total = 0.0f;
        std::size_t rows = 0;    // of sums
        std::size_t singles = 0; // of values
        for (index_t s = begin; s < end; ++s) {
            auto const at = static_cast<std::size_t>(s - begin);
            index_t const from = std::max(s * length, first);
            index_t const to = std::min((s + 1) * length, first + keys);
            index_t const dropped = to - from - kept_in[at];
            float& share = scratch.share_of[at];
            share = 0.0f;
            if (dropped == 0) {
                continue;
            }
            float const weight = sum_of(scratch.weights.data(), from - first, to - first);
            total += weight;
            share =
                Tail::by == stand_in::row_mean ? 1.0f : unit * weight / static_cast<float>(dropped);
            if (to - from == length) {
                scratch.segments[rows] = static_cast<std::int32_t>(s);
                scratch.shares[rows++] = share;
            } else {
                for (index_t k = from; k < to; ++k) {
                    scratch.which[singles] = static_cast<std::int32_t>(k);
                    scratch.factors[singles++] = share;
                }
            }
        }
        for (auto const& entry : kept) {
            float const share =
                scratch.share_of[static_cast<std::size_t>(entry.key / length - begin)];
            scratch.which[singles] = entry.key;
            scratch.factors[singles] = -share;
            singles += share == 0.0f ? 0 : 1;
        }
        add_weighted_rows(into, sums.width, sums.data, sums.row, scratch.segments.data(),
                          scratch.shares.data(), static_cast<index_t>(rows));
        add_weighted_rows(into, values.width, values.data, values.row, scratch.which.data(),
                          scratch.factors.data(), static_cast<index_t>(singles));
        return total;
    }

    /// into += every dropped key's own stand-in; returns the weight of all.
    static float add_each(row_of_registers stand_ins, float unit, index_t first, index_t keys,
                          register_tail_scratch& scratch, float* into) noexcept {
        std::size_t count = 0;
        for (index_t i = 0; i < keys; ++i) {
            float const weight = unit * scratch.weights[static_cast<std::size_t>(i)];
            scratch.which[count] = static_cast<std::int32_t>(first + i);
            scratch.factors[count] = weight;
            count += weight == 0.0f ? 0 : 1;
        }
        add_weighted_rows(into, stand_ins.width, stand_ins.data, stand_ins.row,
                          scratch.which.data(), scratch.factors.data(),
                          static_cast<index_t>(count));
        return sum_of(scratch.weights.data(), 0, keys);
    }
};

} // namespace sofattn::sufa
