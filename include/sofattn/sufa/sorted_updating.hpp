// SPDX-License-Identifier: MIT
// SU-FA: attention over keys in sorted order, paper sections III-C and IV-D, Fig. 10 and 14.
#pragma once

#include <sofattn/core/assert.hpp>
#include <sofattn/core/order.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/exec/executor.hpp>
#include <sofattn/sufa/logit_source.hpp>
#include <sofattn/sufa/row_arithmetic.hpp>
#include <sofattn/sufa/softmax_state.hpp>

#include <cmath>
#include <concepts>
#include <cstddef>
#include <span>

namespace sofattn::sufa {

/// In which order the kept keys are consumed.
enum class key_order {
    descending, ///< best predicted first: it is the max, nothing is rescaled later
    ascending   ///< best predicted last: every key is a new max and rescales l and o
};

/// The paper's order.
struct descending {
    static constexpr key_order order = key_order::descending;
};
/// The order the paper compares with.
struct ascending {
    static constexpr key_order order = key_order::ascending;
};

template <class P>
concept policy = requires {
    { P::order } -> std::convertible_to<key_order>;
};

/// Attends one row to kept keys that come sorted by predicted score, continuing `state`.
///
/// The order is a prediction, so the max is assured at run time: the subtraction logit - m, which
/// every key needs, is negative or zero when the order was right. Its sign selects the update:
///   logit <= m:  p = exp(logit - m);  l += p;           o += p * v       (AP module, mode 0)
///   logit >  m:  a = exp(m - logit);  l = l * a + 1;    o = o * a + v;  m = logit      (mode 1)
/// Either takes one exponential and one multiplication per output element; mode 1 adds one for l.
///
/// in     in     query [dim], keys [key, dim], values [key, value_dim], scale
///        kept   [kept]       keys of one tile, in the total order of predicted scores
///        logits [kept]       scratch; where logits are reused, the predicted ones, which are used up
/// out    state               (m, l, o) of everything seen so far, these keys included
/// pre    logits has a place per kept key (SOFATTN_ASSERT); inputs are finite
/// error  none
/// events per kept key: dim + 1 + value_dim multiply, dim + value_dim add for the products, add for
///        logit - m, exp, add for l; multiply for l and max_update for a key that rescales; compare
///        once per tile (mode 1 on a tile switch). Where logits are reused: dim + 1 multiply and dim
///        add for the computed ones only; to tell which, 2 compare per key (but one less for the
///        row's first tile) and add per tile
/// exact  deterministic; within 2e-6 of a double-precision oracle on the same set for any order
/// paper  SU-FA, section III-C, Fig. 10b; AP module: section IV-D, Fig. 14
template <policy Policy = descending, logit_source Source = recomputed>
struct sorted_updating {
    using logits_from = Source;
    static constexpr bool is_descending = Policy::order == key_order::descending;
    static constexpr char const* name =
        is_descending ? (Source::reuses ? "sufa_reusing" : "sufa")
                      : (Source::reuses ? "sufa_ascending_reusing" : "sufa_ascending");
    /// Tiles are consumed as they come.
    static constexpr bool tile_ready = true;
    /// Where a list is consumed in chunks, the last chunk comes first.
    static constexpr bool from_back = !is_descending;

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
        auto cost = tile_logits<Source>::template complete<X>(in, kept, state, logits);
        cost.compares += 1;
        for (std::size_t i = 0; i < kept.size(); ++i) {
            std::size_t const at = is_descending ? i : kept.size() - 1 - i;
            real const logit = logits[at];
            if (state.is_empty()) {
                // The first key is the max by definition: p = exp(0).
                state.m = logit;
            }
            real const above = logit - state.m;
            // A tile starts in mode 1, which compares; from then on the sign bit of the difference
            // is enough, and reading it is not an operation.
            bool const is_new_max = i == 0 ? state.m < logit : static_cast<double>(above) > 0.0;
            if (is_new_max) {
                real const factor = exp(-above);
                state.l = state.l * factor + real(1.0);
                detail::scale_and_add<X>(in, kept[at].key, factor, state.o);
                state.m = logit;
                cost.multiplies += 1;
                cost.max_updates += 1;
            } else {
                real const weight = exp(above);
                state.l = state.l + weight;
                detail::add_weighted<X>(in, kept[at].key, weight, state.o);
            }
        }
        auto const keys = static_cast<std::uint64_t>(kept.size());
        cost.adds += 2 * keys;
        cost.exps += keys;
        cost.emit(x);
    }
};

} // namespace sofattn::sufa
