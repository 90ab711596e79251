// SPDX-License-Identifier: MIT
// Pipelines by name: predictor/selector/attender/tail, a preset, or dense.
#pragma once

#include <sofattn/attention/options.hpp>
#include <sofattn/attention/problem.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/core/view.hpp>
#include <sofattn/probe/ledger.hpp>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace sofattn::attend {

/// What a run of one pipeline gives beside its output.
struct run_output {
    probe::ledger counts;                       ///< empty for the exact predictor
    std::vector<std::vector<key_id>> kept_keys; ///< [head * queries + query]
    std::uint64_t key_loads = 0;
};

/// Runs a pipeline on a problem; output [head, query, value_dim].
using runner = run_output (*)(problem<float> const&, attention_options const&,
                              view<float, axis::head, axis::query, axis::value_dim> output);

/// A pipeline with its default options.
struct named_policy {
    std::string name; ///< as the user wrote it
    std::string predictor;
    std::string selector;
    std::string attender;
    std::string tail;
    attention_options options;
    runner run = nullptr;

    /// Whether the selector reads a ratio or a count, or a mass or an error.
    [[nodiscard]] bool reads_count() const;
    [[nodiscard]] bool reads_weights() const;
};

/// "paper", "recommended", "dense", or "predictor/selector/attender", with "/tail" where dropped
/// keys are not ignored. Throws sofattn::error, which lists the names there are.
[[nodiscard]] named_policy find_policy(std::string const& name);

/// Names for help texts and errors, separated by ", ".
struct policy_names {
    std::string predictors;
    std::string selectors;
    std::string attenders;
    std::string tails;
};
[[nodiscard]] policy_names list_policies();

namespace detail {

/// One per attender, each compiled in a source of its own, since every one of them instantiates
/// all predictors and selectors; null if a name is unknown.
[[nodiscard]] runner find_sufa(std::string_view predictor, std::string_view selector);
[[nodiscard]] runner find_sufa_ascending(std::string_view predictor, std::string_view selector);
[[nodiscard]] runner find_flash_attention_2(std::string_view predictor, std::string_view selector);
[[nodiscard]] runner find_two_pass(std::string_view predictor, std::string_view selector);

/// One per tail, all with sufa; adaptive selectors, and full_topk where there is a tail.
[[nodiscard]] runner find_no_tail(std::string_view predictor, std::string_view selector);
[[nodiscard]] runner find_mean_tail(std::string_view predictor, std::string_view selector);
[[nodiscard]] runner find_segment_tail(std::string_view predictor, std::string_view selector);
[[nodiscard]] runner find_int8_tail(std::string_view predictor, std::string_view selector);

/// sufa with the predictor's logits, without a tail or with segment means.
[[nodiscard]] runner find_reusing(std::string_view predictor, std::string_view selector,
                                  std::string_view tail);

} // namespace detail
} // namespace sofattn::attend
