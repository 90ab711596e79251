// SPDX-License-Identifier: MIT
// What a run found, as fields with units in their names; and its two writers, JSON and a screen.
#pragma once

#include "attend/evaluate.hpp"
#include <sofattn/io/fields.hpp>
#include <sofattn/probe/complexity.hpp>
#include <sofattn/probe/ledger.hpp>

#include <nlohmann/json.hpp>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace sofattn::attend {

/// The budget a policy ran with.
struct budget_report {
    std::optional<double> keep_ratio;
    std::optional<index_t> keep_count_keys;
    std::optional<double> keep_mass;
    std::optional<double> output_error_spreads;
    std::optional<double> radius_logits;
    index_t minimum_keys = 0;
    std::optional<index_t> maximum_keys;
    index_t sink_keys = 0;
    index_t window_keys = 0;
    index_t tile_keys = 0;
    std::string selection_scope;
};

struct group_report {
    index_t kv_head = 0;
    std::vector<int> query_heads;
    mean_quality quality;
};

/// A ledger under one table of weights, by stage and in all.
struct complexity_report {
    std::string weights;
    std::string unit;
    double prediction = 0;
    double selection = 0;
    double attention = 0;
    double total = 0;
};

struct policy_report {
    std::string policy;
    std::string predictor;
    std::string selector;
    std::string attender;
    std::string tail;
    budget_report budget;
    mean_quality overall;
    std::vector<group_report> groups;
    probe::ledger operations;
    std::vector<complexity_report> complexity;
    std::uint64_t key_loads_count = 0;
    double time_seconds = 0;
};

struct layer_report {
    std::string model;
    int layer = 0;
    index_t query_heads = 0;
    index_t kv_heads = 0;
    index_t query_tokens = 0;
    index_t key_tokens = 0;
    index_t head_dim = 0;
    index_t value_dim = 0;
    bool causal = false;
    index_t first_judged_row = 0;
    std::vector<policy_report> policies;
};

/// One step of the ladder of Fig. 17.
struct rung_report {
    std::string design;
    std::string policy;
    std::vector<complexity_report> complexity;
};

struct weights_report {
    std::string name;
    std::string unit;
    std::string source;
    std::vector<std::pair<std::string, double>> weight;
};

struct run_report {
    std::string input;
    std::vector<layer_report> layers;
    std::vector<rung_report> ladder; ///< summed over layers; empty if not asked for
    std::vector<weights_report> complexity_weights;
    double time_seconds = 0;
};

/// All tables of probe/complexity.hpp.
[[nodiscard]] std::vector<complexity_report> complexities_of(probe::ledger const& counts);
[[nodiscard]] std::vector<weights_report> all_weights();
[[nodiscard]] budget_report budget_fields(attention_options const& options);

/// Same names and units as the structs.
[[nodiscard]] nlohmann::ordered_json to_json(run_report const& report);

/// A screen of text: quality per head group and overall, operations per stage, the ladder under
/// `weights`. `all_groups`: also where there are many.
[[nodiscard]] std::string to_text(run_report const& report, std::string const& weights,
                                  bool all_groups);

/// Every table of weights, in columns.
[[nodiscard]] std::string weights_text();

/// "12.3 M": three digits and an SI prefix.
[[nodiscard]] std::string short_count(double value);

} // namespace sofattn::attend

// clang-format off
BOOST_HANA_ADAPT_STRUCT(sofattn::attend::budget_report,
    keep_ratio, keep_count_keys, keep_mass, output_error_spreads, radius_logits, minimum_keys,
    maximum_keys, sink_keys, window_keys, tile_keys,
    selection_scope);
BOOST_HANA_ADAPT_STRUCT(sofattn::attend::mean_quality,
    kept_share, recall, mass, output_error_relative);
BOOST_HANA_ADAPT_STRUCT(sofattn::attend::group_report, kv_head, query_heads, quality);
BOOST_HANA_ADAPT_STRUCT(sofattn::attend::complexity_report,
    weights, unit, prediction, selection, attention, total);
BOOST_HANA_ADAPT_STRUCT(sofattn::attend::policy_report,
    policy, predictor, selector, attender, tail, budget, overall, groups, operations, complexity,
    key_loads_count, time_seconds);
BOOST_HANA_ADAPT_STRUCT(sofattn::attend::layer_report,
    model, layer, query_heads, kv_heads, query_tokens, key_tokens, head_dim, value_dim, causal,
    first_judged_row, policies);
BOOST_HANA_ADAPT_STRUCT(sofattn::attend::rung_report, design, policy, complexity);
BOOST_HANA_ADAPT_STRUCT(sofattn::attend::weights_report, name, unit, source, weight);
BOOST_HANA_ADAPT_STRUCT(sofattn::attend::run_report,
    input, layers, ladder, complexity_weights, time_seconds);
// clang-format on
