// SPDX-License-Identifier: MIT
// Run-time choices of a run: budgets, tile size, who shares a selection.
#pragma once

#include <sofattn/attention/problem.hpp>
#include <sofattn/core/error.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/sads/budget.hpp>

#include <string>
#include <vector>

namespace sofattn {

/// Which query heads select together.
enum class selection_scope {
    per_query_head, ///< every query head has its own selection, as in the paper
    per_group ///< the heads of one KV head share one, by their largest score: K and V of a key
              ///< are loaded once for all of them. Not in the paper, which has no GQA
};

/// Options that are numbers, not types.
struct attention_options {
    sads::budget budget{};
    /// A budget per query head instead; empty, or as many as there are query heads. Heads that
    /// share a selection must have equal ones.
    std::vector<sads::budget> head_budgets{};
    /// Keys per tile: predicted, selected and consumed before the next tile; also the length of a
    /// SADS segment, the paper's Bc.
    index_t tile_keys = 128;
    selection_scope scope = selection_scope::per_query_head;
    /// Looks for NaN and infinity first, which no score may be: one pass over the inputs.
    bool check_finite = true;

    [[nodiscard]] sads::budget const& budget_of(index_t head) const noexcept {
        return head_budgets.empty() ? budget : head_budgets[static_cast<std::size_t>(head)];
    }
    /// Query heads per selection.
    [[nodiscard]] index_t heads_per_selection(problem_shape const& shape) const noexcept {
        return scope == selection_scope::per_group ? shape.group() : 1;
    }

    /// Throws `error` for options that do not fit the problem.
    void validate(problem_shape const& shape) const {
        if (tile_keys < 1) {
            throw error("attention: keys per tile", std::to_string(tile_keys), "at least 1");
        }
        if (!head_budgets.empty() && std::ssize(head_budgets) != shape.heads) {
            throw error("attention: number of head budgets", std::to_string(head_budgets.size()),
                        "0 or the number of query heads, " + std::to_string(shape.heads));
        }
        for (index_t h = 0; h < shape.heads; ++h) {
            budget_of(h).validate(shape.keys);
            index_t const leader = h - h % heads_per_selection(shape);
            if (!(budget_of(h) == budget_of(leader))) {
                throw error("attention: budget of query head " + std::to_string(h),
                            "another than that of head " + std::to_string(leader),
                            "the same, since the group selects together");
            }
        }
    }
};

} // namespace sofattn
