// SPDX-License-Identifier: MIT
// Attenders that SU-FA is compared with: FlashAttention-2 and the textbook's two passes.
#pragma once

#include <sofattn/core/assert.hpp>
#include <sofattn/core/order.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/exec/executor.hpp>
#include <sofattn/sufa/row_arithmetic.hpp>
#include <sofattn/sufa/softmax_state.hpp>

#include <cmath>
#include <cstddef>
#include <span>

namespace sofattn::sufa {

/// FlashAttention-2: per tile finds the max, rescales l and o to it, then adds the tile.
///
/// in     in, kept, logits as for sorted_updating; kept in any order
/// out    state            (m, l, o) of everything seen so far
/// pre    logits has a place per kept key (SOFATTN_ASSERT); inputs are finite
/// error  none
/// events products as for sorted_updating; per key: compare for the max, add, exp, add for l; per
///        tile: add, exp, multiply for l, value_dim multiply for o (unconditional, as in its
///        published form; the first tile too)
/// exact  deterministic; within 2e-6 of a double-precision oracle on the same set
/// paper  the rival of section III-C, Fig. 5 and 10a
struct flash_attention_2 {
    static constexpr char const* name = "flash_attention_2";
    static constexpr bool tile_ready = true;
    static constexpr bool from_back = false;

    template <exec::executor_like X, class Inputs, class Score>
    void operator()(X& x, Inputs const& in, std::span<ranked<Score> const> kept,
                    std::span<detail::real_number<X>> logits,
                    softmax_state<detail::real_number<X>>& state) const noexcept {
        using real = detail::real_number<X>;
        using std::exp;
        if (kept.empty()) {
            return;
        }
        SOFATTN_ASSERT(logits.size() >= kept.size());
        detail::kept_logits<X>(in, kept, logits);
        real max = state.m;
        for (std::size_t i = 0; i < kept.size(); ++i) {
            max = max < logits[i] ? logits[i] : max;
        }
        real const factor = exp(state.m - max); // 0 for the first tile, whose m is -infinity
        state.l = state.l * factor;
        for (real& o : state.o) {
            o = o * factor;
        }
        state.m = max;
        for (std::size_t i = 0; i < kept.size(); ++i) {
            real const weight = exp(logits[i] - max);
            state.l = state.l + weight;
            detail::add_weighted<X>(in, kept[i].key, weight, state.o);
        }
        auto const keys = static_cast<std::uint64_t>(kept.size());
        auto cost = detail::attend_cost::of_products(in, std::ssize(kept));
        cost.compares += keys;
        cost.adds += 2 * keys + 1;
        cost.exps += keys + 1;
        cost.multiplies += 1 + static_cast<std::uint64_t>(state.o.size());
        cost.emit(x);
    }
};

/// The textbook: all logits and their max first, then exponentials and sums. Needs the whole row.
///
/// in     in, kept, logits as for sorted_updating; kept in any order, all of the row's
/// out    state            (m, l, o) of the row
/// pre    state is empty, logits has a place per kept key (SOFATTN_ASSERT); inputs are finite
/// error  none
/// events products as for sorted_updating; per key: compare (one less), add, exp, add for l
/// exact  deterministic; within 2e-6 of a double-precision oracle on the same set
/// paper  not in the paper: the softmax that FlashAttention replaced
struct two_pass {
    static constexpr char const* name = "two_pass";
    static constexpr bool tile_ready = false;
    static constexpr bool from_back = false;

    template <exec::executor_like X, class Inputs, class Score>
    void operator()(X& x, Inputs const& in, std::span<ranked<Score> const> kept,
                    std::span<detail::real_number<X>> logits,
                    softmax_state<detail::real_number<X>>& state) const noexcept {
        using real = detail::real_number<X>;
        using std::exp;
        if (kept.empty()) {
            return;
        }
        SOFATTN_ASSERT(state.is_empty() && logits.size() >= kept.size());
        detail::kept_logits<X>(in, kept, logits);
        state.m = logits[0];
        for (std::size_t i = 1; i < kept.size(); ++i) {
            state.m = state.m < logits[i] ? logits[i] : state.m;
        }
        for (std::size_t i = 0; i < kept.size(); ++i) {
            real const weight = exp(logits[i] - state.m);
            state.l = state.l + weight;
            detail::add_weighted<X>(in, kept[i].key, weight, state.o);
        }
        auto const keys = static_cast<std::uint64_t>(kept.size());
        auto cost = detail::attend_cost::of_products(in, std::ssize(kept));
        cost.compares += keys - 1;
        cost.adds += 2 * keys;
        cost.exps += keys;
        cost.emit(x);
    }
};

/// Divides o by l.
///
/// in     state       (m, l, o)
/// out    row         [value_dim]; zeros if no key was seen
/// pre    equal value_dim (SOFATTN_ASSERT)
/// error  none
/// events divide per output element
/// exact  deterministic
/// paper  the division units of section IV-D
struct normalise {
    template <exec::executor_like X, class Real>
    void operator()(X& x, softmax_state<Real> const& state, std::span<float> row) const noexcept {
        state.finish(row);
        detail::attend_cost cost;
        cost.divides = state.is_empty() ? 0 : static_cast<std::uint64_t>(row.size());
        cost.emit(x);
    }
};

} // namespace sofattn::sufa
