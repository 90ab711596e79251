// SPDX-License-Identifier: MIT
// Attention of one row over kept keys, on vector registers.
#pragma once

#include <sofattn/core/assert.hpp>
#include <sofattn/core/order.hpp>
#include <sofattn/core/score_line.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/exec/xsimd_lanes.hpp>
#include <sofattn/sufa/logit_source.hpp>
#include <sofattn/sufa/register_rows.hpp>
#include <sofattn/sufa/softmax_state.hpp>
#include <sofattn/sufa/weighted_rows.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numbers>
#include <span>
#include <vector>

namespace sofattn::sufa {

/// What one row attends to.
struct register_inputs {
    float const* query; ///< [keys.width]
    row_of_registers keys;
    row_of_registers values;
    float scale; ///< logits = scale * q.k
};

/// Buffers of register_attend, made once for the longest list of kept keys.
struct register_attend_scratch {
    register_attend_scratch() = default;
    explicit register_attend_scratch(index_t keys)
        : logits(static_cast<std::size_t>(keys + exec::vector_width)),
          which(static_cast<std::size_t>(keys + exec::vector_width)),
          near(static_cast<std::size_t>(keys + exec::vector_width)) {}

    std::vector<float> logits;       ///< [kept], then weights
    std::vector<std::int32_t> which; ///< [kept], keys
    std::vector<std::int32_t> near;  ///< places in the list that are computed
};

/// The state takes in logits with their rows: one rescaling at most, where some is larger than m.
/// pre: logits [count] and up to a register more, which is overwritten
inline void absorb(float* logits, std::int32_t const* which, index_t count, row_of_registers values,
                   softmax_state<float>& state) noexcept {
    constexpr auto octaves = static_cast<float>(std::numbers::log2e);
    constexpr float nothing = -1e30f;
    if (count == 0) {
        return;
    }
    index_t const whole = ceil_div(count, exec::vector_width) * exec::vector_width;
    std::fill(logits + count, logits + whole, nothing);
    exec::vector_float most = exec::load(logits);
    for (index_t n = exec::vector_width; n < whole; n += exec::vector_width) {
        most = exec::larger(most, exec::load(logits + n));
    }
    std::array<float, static_cast<std::size_t>(exec::vector_width)> lanes;
    exec::store(lanes.data(), most);
    float const top = std::ranges::max(lanes);
    if (state.is_empty()) {
        state.m = top;
    } else if (state.m < top) {
        float const factor = std::exp(state.m - top);
        state.m = top;
        state.l *= factor;
        for (float& o : state.o) {
            o *= factor;
        }
    }
    exec::vector_float const best(state.m);
    exec::vector_float sum(0.0f);
    for (index_t n = 0; n < whole; n += exec::vector_width) {
        exec::vector_float const weight =
            exec::exp2_of_negative((exec::load(logits + n) - best) * exec::vector_float(octaves));
        exec::store(logits + n, weight);
        sum = sum + weight;
    }
    state.l += exec::sum_of(sum);
    add_weighted_rows(state.o.data(), values.width, values.data, values.row, which, logits, count);
}

/// Attends one row to kept keys, continuing `state`: what sorted_updating, flash_attention_2 and
/// two_pass compute. In registers the three differ in nothing: a maximum over a list costs less than
/// a sign per key, so a list is rescaled to at most once, and in no order.
///
/// in     in           query, keys, values in whole registers
///        kept         keys, in any order
///        line, scores where `Source` reuses: logits of the keys that are not computed; scores[key -
///                     first] of the keys first, first + 1, ...
///        on_computed  called with keys whose q.k is computed, where `Source` reuses
/// out    state        (m, l, o) of everything seen so far; o has a place per column of the values'
///                     registers, those beyond value_dim stay 0
/// pre    scratch has room for the list (SOFATTN_ASSERT); inputs are finite
/// error  none
/// events none: this is no circuit
/// exact  deterministic for a target; outputs within 2e-5 (relative, Frobenius) of a
///        double-precision oracle on the same set and the same choice of computed keys. That choice is
///        made in double, with a best logit so far that is rounded to float
/// paper  SU-FA, section III-C, without its order
template <logit_source Source>
struct register_attend {
    template <class Score>
    void operator()(register_inputs const& in, std::span<ranked<Score> const> kept,
                    register_attend_scratch& scratch, softmax_state<float>& state) const noexcept
        requires(!Source::reuses) {
        SOFATTN_ASSERT(scratch.which.size() >= kept.size() + exec::vector_width);
        auto const count = std::ssize(kept);
        for (std::size_t i = 0; i < kept.size(); ++i) {
            scratch.which[i] = kept[i].key;
        }
        for (index_t n = 0; n < count; n += exec::vector_width) {
            exec::store(
                scratch.logits.data() + n,
                products(in, scratch.which.data() + n, std::min(exec::vector_width, count - n)));
        }
        absorb(scratch.logits.data(), scratch.which.data(), count, in.values, state);
    }

    template <class Score, class OnComputed>
    void operator()(register_inputs const& in, std::span<ranked<Score> const> kept, score_line line,
                    std::span<Score const> scores, index_t first, register_attend_scratch& scratch,
                    softmax_state<float>& state, OnComputed on_computed) const noexcept
        requires(Source::reuses) {
        SOFATTN_ASSERT(scratch.which.size() >= kept.size() + exec::vector_width);
        auto const count = std::ssize(kept);
        if (count == 0) {
            return;
        }
        auto const score_of = [&](std::size_t i) {
            return scores[static_cast<std::size_t>(kept[i].key - first)];
        };
        Score best = score_of(0);
        for (std::size_t i = 1; i < kept.size(); ++i) {
            best = std::max(best, score_of(i));
        }
        double top = line.logit(static_cast<double>(best));
        if (!state.is_empty()) {
            top = std::max(top, static_cast<double>(state.m));
        }
        double const least = top - Source::exact_within;
        index_t computed = 0;
        for (std::size_t i = 0; i < kept.size(); ++i) {
            double const logit = line.logit(static_cast<double>(score_of(i)));
            scratch.which[i] = kept[i].key;
            scratch.logits[i] = static_cast<float>(logit);
            if (!(logit < least)) {
                scratch.near[static_cast<std::size_t>(computed++)] = static_cast<std::int32_t>(i);
                on_computed(kept[i].key);
            }
        }
        constexpr auto width = static_cast<std::size_t>(exec::vector_width);
        for (index_t n = 0; n < computed; n += exec::vector_width) {
            auto const near = std::span(scratch.near)
                                  .subspan(static_cast<std::size_t>(n),
                                           std::min(width, static_cast<std::size_t>(computed - n)));
            std::array<std::int32_t, width> which{};
            for (std::size_t i = 0; i < near.size(); ++i) {
                which[i] = scratch.which[static_cast<std::size_t>(near[i])];
            }
            std::array<float, width> logits;
            exec::store(logits.data(), products(in, which.data(), std::ssize(near)));
            for (std::size_t i = 0; i < near.size(); ++i) {
                scratch.logits[static_cast<std::size_t>(near[i])] = logits[i];
            }
        }
        absorb(scratch.logits.data(), scratch.which.data(), count, in.values, state);
    }

private:
    [[nodiscard]] static exec::vector_float
    products(register_inputs const& in, std::int32_t const* which, index_t count) noexcept {
        return products_of_rows(in.query, in.keys.width, in.keys.data, in.keys.row, which, count) *
               exec::vector_float(in.scale);
    }
};

} // namespace sofattn::sufa
