// SPDX-License-Identifier: MIT
// Everything a run of the pipeline needs, made before its loops.
#pragma once

#include <sofattn/attention/register_stages.hpp>
#include <sofattn/attention/result.hpp>
#include <sofattn/core/order.hpp>
#include <sofattn/core/query_mask.hpp>
#include <sofattn/core/score_line.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/rass/schedule.hpp>
#include <sofattn/sads/budget.hpp>
#include <sofattn/sads/candidates.hpp>
#include <sofattn/sufa/register_attend.hpp>
#include <sofattn/sufa/register_tail.hpp>
#include <sofattn/sufa/softmax_state.hpp>
#include <sofattn/sufa/tail.hpp>

#include <algorithm>
#include <cstddef>
#include <vector>

namespace sofattn::detail {

/// What buffers are made for.
struct workspace_sizes {
    index_t heads;        ///< per selection
    index_t run_keys;     ///< of the longest run
    index_t value_dim;    ///< of outputs
    index_t tail_segment; ///< keys; 0: dropped keys have no tail
    bool reuses;          ///< attenders take predicted logits
    bool on_registers;
};

/// Buffers for a block of queries of the heads of one selection.
template <class Score, class Real>
struct attention_workspace {
    explicit attention_workspace(workspace_sizes const& of)
        : heads(of.heads), run_keys(of.run_keys),
          value_width(of.on_registers ? sufa::register_width(of.value_dim) : of.value_dim),
          scores(
              count(run_keys * (of.on_registers ? std::max(heads, dlzs::rows_together) : heads))),
          shared(count(heads > 1 ? run_keys : 0)), select(run_keys), kept(count(run_keys)),
          rules(count(query_block)), outputs(count(heads * query_block * value_width)),
          states(count(heads * query_block)), lines(count(heads * query_block)),
          rows(count(query_block)), wanted_by(count(run_keys)),
          computed_by(count(of.reuses ? run_keys : 0)), wanted(count(run_keys)), order(run_keys),
          row(count(value_width)) {
        if (of.on_registers) {
            attend = sufa::register_attend_scratch(run_keys);
        } else {
            logits.resize(count(run_keys));
        }
        if (of.tail_segment > 0) {
            tail_sums.resize(outputs.size());
            tails.resize(states.size());
            if (of.on_registers) {
                tail_rows = sufa::register_tail_scratch(run_keys, of.tail_segment, value_width);
            } else {
                tail = sufa::tail_scratch<Real>(run_keys, of.value_dim);
            }
        }
    }

    index_t heads;             ///< per selection
    index_t run_keys;          ///< longest run
    index_t value_width;       ///< of a row of outputs
    attention_result result{}; ///< of the work that was done with these buffers
    std::vector<Score> scores;
    std::vector<Score> shared;
    sads::select_scratch<Score> select;
    std::vector<ranked<Score>> kept;
    std::vector<sads::row_rule> rules;
    std::vector<Real> logits;
    sufa::register_attend_scratch attend;
    predicted_ahead ahead;
    std::vector<Real> outputs;
    std::vector<sufa::softmax_state<Real>> states;
    std::vector<score_line> lines;
    std::vector<score_line> certified_lines; ///< calibrated, where certificates are asked for
    std::vector<sads::running_row<Score>> rows;
    std::vector<Real> tail_sums;
    std::vector<sufa::tail_state<Real>> tails;
    sufa::tail_scratch<Real> tail;
    sufa::register_tail_scratch tail_rows;
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
