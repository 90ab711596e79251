// SPDX-License-Identifier: MIT
// Everything a run of the pipeline needs, made before its loops.
#pragma once

#include <sofattn/core/order.hpp>
#include <sofattn/core/query_mask.hpp>
#include <sofattn/core/score_line.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/rass/schedule.hpp>
#include <sofattn/sads/budget.hpp>
#include <sofattn/sads/candidates.hpp>
#include <sofattn/sufa/softmax_state.hpp>
#include <sofattn/sufa/tail.hpp>

#include <cstddef>
#include <vector>

namespace sofattn::detail {

/// Buffers for a block of queries of the heads of one selection.
template <class Score, class Real>
struct attention_workspace {
    /// heads: per selection; run_keys: of the longest run; compensates: dropped keys have a tail;
    /// reuses: attenders take predicted logits.
    attention_workspace(index_t value_dim, index_t heads_together, index_t longest_run,
                        bool compensates, bool reuses)
        : heads(heads_together), run_keys(longest_run), scores(count(heads * run_keys)),
          shared(count(heads > 1 ? run_keys : 0)), select(run_keys), kept(count(run_keys)),
          rules(count(query_block)), logits(count(run_keys)),
          outputs(count(heads * query_block * value_dim)), states(count(heads * query_block)),
          lines(count(heads * query_block)), rows(count(query_block)),
          tail_sums(count(compensates ? heads * query_block * value_dim : 0)),
          tails(count(compensates ? heads * query_block : 0)),
          tail(compensates ? run_keys : 0, compensates ? value_dim : 0), wanted_by(count(run_keys)),
          computed_by(count(reuses ? run_keys : 0)), wanted(count(run_keys)), order(run_keys),
          row(count(value_dim)) {}

    index_t heads;    ///< per selection
    index_t run_keys; ///< longest run
    std::vector<Score> scores;
    std::vector<Score> shared;
    sads::select_scratch<Score> select;
    std::vector<ranked<Score>> kept;
    std::vector<sads::row_rule> rules;
    std::vector<Real> logits;
    std::vector<Real> outputs;
    std::vector<sufa::softmax_state<Real>> states;
    std::vector<score_line> lines;
    std::vector<score_line> certified_lines; ///< calibrated, where certificates are asked for
    std::vector<sads::running_row<Score>> rows;
    std::vector<Real> tail_sums;
    std::vector<sufa::tail_state<Real>> tails;
    sufa::tail_scratch<Real> tail;
    std::vector<query_mask> wanted_by;   ///< [key of the run], who attends to it
    std::vector<query_mask> computed_by; ///< [key of the run], who computes its logit
    std::vector<rass::wanted_key> wanted;
    rass::schedule_scratch order;
    std::vector<float> row; ///< one output

private:
    [[nodiscard]] static std::size_t count(index_t n) noexcept {
        return static_cast<std::size_t>(n);
    }
};

} // namespace sofattn::detail
