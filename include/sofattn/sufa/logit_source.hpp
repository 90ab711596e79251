// SPDX-License-Identifier: MIT
// Where the logits of kept keys come from: computed again, or the predictor's.
#pragma once

#include <sofattn/core/order.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/exec/executor.hpp>
#include <sofattn/sufa/row_arithmetic.hpp>
#include <sofattn/sufa/softmax_state.hpp>

#include <array>
#include <concepts>
#include <cstddef>
#include <limits>
#include <span>

namespace sofattn::sufa {

/// q.k of every kept key in full precision, as in the paper.
struct recomputed {
    static constexpr bool reuses = false;
    static constexpr double exact_within = std::numeric_limits<double>::infinity();
};

/// The predicted logits, but for keys near the row's best, whose errors count most: those are
/// computed. Saves the loads and products of all other keys; few of them in ascending order, where
/// the best comes last. Not in the paper. On recorded data 4
/// logits compute 0.3 to 2.4 % of the keys of peaked layers and bring the output error of 8-bit
/// logits under 0.005 (bench/RESULTS.md).
struct reused {
    static constexpr bool reuses = true;
    static constexpr double exact_within = 4.0; ///< logits below the best so far
};

template <class P>
concept logit_source = requires {
    { P::reuses } -> std::convertible_to<bool>;
    { P::exact_within } -> std::convertible_to<double>;
};

namespace detail {

template <class Attender>
struct source_of {
    using type = recomputed;
};
template <class Attender>
    requires requires { typename Attender::logits_from; }
struct source_of<Attender> {
    using type = typename Attender::logits_from;
};

} // namespace detail

/// An attender's source: those that name none compute.
template <class Attender>
using logits_from = typename detail::source_of<Attender>::type;

/// Whether an attender takes predicted logits, which must then be calibrated.
template <class Attender>
inline constexpr bool reuses_scores = logits_from<Attender>::reuses;

/// Logits of kept keys of one tile, from `Source`.
template <logit_source Source>
struct tile_logits {
    /// From where on a key's logit is computed: so far below the row's best yet, this tile's
    /// predicted ones included. The order of `predicted` does not matter, as heads that select
    /// together do not share one. pre: predicted ones
    template <class Real>
    [[nodiscard]] static Real least_computed(softmax_state<Real> const& state,
                                             std::span<Real const> predicted) noexcept {
        Real best = predicted[0];
        for (Real const& logit : predicted.subspan(1)) {
            best = best < logit ? logit : best;
        }
        if (!state.is_empty()) {
            best = best < state.m ? state.m : best;
        }
        return best - Real(Source::exact_within);
    }

    /// in     in, kept     the tile; logits [kept]: predicted ones where the source reuses
    ///        state        the row so far
    /// out    logits       the ones to attend with; returns what they and p * v cost
    template <class X, class Inputs, class Score>
    static detail::attend_cost complete(Inputs const& in, std::span<ranked<Score> const> kept,
                                        softmax_state<detail::real_number<X>> const& state,
                                        std::span<detail::real_number<X>> logits) noexcept {
        using real = detail::real_number<X>;
        auto const count = std::ssize(kept);
        if constexpr (!Source::reuses) {
            detail::kept_logits<X>(in, kept, logits);
            return detail::attend_cost::of_products(in, count);
        } else {
            // Blocks of as many keys as there are lanes, so that no list has to be kept.
            constexpr index_t width = X::lanes_type::width;
            real const least = least_computed<real>(state, logits.first(kept.size()));
            std::array<index_t, static_cast<std::size_t>(width)> at{};
            index_t waiting = 0;
            index_t computed = 0;
            for (index_t i = 0; i < count; ++i) {
                if (!(logits[static_cast<std::size_t>(i)] < least)) {
                    at[static_cast<std::size_t>(waiting++)] = i;
                }
                if (waiting == width || (i + 1 == count && waiting > 0)) {
                    detail::for_each_logit<X>(
                        in, waiting,
                        [&](index_t j) {
                            return kept[static_cast<std::size_t>(at[static_cast<std::size_t>(j)])]
                                .key;
                        },
                        [&](index_t j, real logit) {
                            logits[static_cast<std::size_t>(at[static_cast<std::size_t>(j)])] =
                                logit;
                        });
                    computed += waiting;
                    waiting = 0;
                }
            }
            auto cost = detail::attend_cost::of_products(in, count, computed);
            cost.adds += 1;
            cost.compares += 2 * kept.size() - (state.is_empty() ? 1 : 0);
            return cost;
        }
    }
};

} // namespace sofattn::sufa
