// SPDX-License-Identifier: MIT
// A predictor's word on logits: one line per query.
#pragma once

namespace sofattn {

/// One query's estimate: logit = offset + per_score * score. What a predictor hands to whoever
/// weighs scores: budgets of mass and error need `per_score` only, compensation both.
struct score_line {
    double offset = 0;    ///< logits
    double per_score = 1; ///< logits per unit of score, positive

    [[nodiscard]] constexpr double logit(double score) const noexcept {
        return offset + per_score * score;
    }
};

} // namespace sofattn
