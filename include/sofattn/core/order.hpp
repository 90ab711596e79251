// SPDX-License-Identifier: MIT
// The total order of scores: value descending, then key index ascending (design: exact contracts).
#pragma once

#include <sofattn/core/types.hpp>

#include <compare>

namespace sofattn {

/// A key and its predicted score; what the predictor hands to the selector, and the selector, best
/// first, to the attender.
template <class Score>
struct ranked {
    Score score{};
    key_id key = 0;

    friend constexpr bool operator==(ranked const&, ranked const&) = default;
};

/// True if `a` is selected before `b`. One comparator of the circuit: it sees value and index as
/// one word, so this counts as one comparison. Scores hold no NaN (checked at the boundary).
template <class Score>
[[nodiscard]] constexpr bool comes_before(ranked<Score> const& a, ranked<Score> const& b) noexcept {
    auto const order = a.score <=> b.score;
    return order > 0 || (order == 0 && a.key < b.key);
}

} // namespace sofattn
