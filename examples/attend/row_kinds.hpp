// SPDX-License-Identifier: MIT
// Kinds of score rows (paper Fig. 8): where a row has the keys that matter to it.
#pragma once

#include "attend/dataset.hpp"
#include "attend/study.hpp"
#include <sofattn/core/types.hpp>
#include <sofattn/io/fields.hpp>

#include <nlohmann/json.hpp>

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace sofattn::attend {

enum class row_kind {
    few,         ///< I: a few dominant tokens
    spread,      ///< II: several, all over the row
    concentrated ///< III: several, most of them in one region
};

/// When a row is of which kind. The paper draws the kinds and gives no rule; this one is ours. A
/// row's dominant keys are the fewest that carry `mass` of its softmax.
struct row_rule {
    double mass = 0.8;          ///< in (0, 1]
    index_t few_keys = 4;       ///< as many dominant keys or fewer: I
    index_t regions = 4;        ///< equal parts of the visible keys, the paper's n for S = 1024
    double region_share = 0.75; ///< this share of the dominant keys in one region: III
};

/// weights [key]: the row's softmax; best_first [key]: keys in its order. Neither empty.
[[nodiscard]] row_kind kind_of(row_rule const& rule, std::span<double const> weights,
                               std::span<key_id const> best_first);

/// One layer under one rule: shares of its rows.
struct layer_row_kinds {
    std::string model;
    int layer = 0;
    bool causal = false;
    double mass = 0; ///< of the rule
    std::uint64_t rows_count = 0;
    double few_share = 0;
    double spread_share = 0;
    double concentrated_share = 0;
};

/// Every head and row, from `first_row` on where rows are causal; the rule at masses of 0.5, 0.8
/// and 0.9, on exact logits.
[[nodiscard]] std::vector<layer_row_kinds> study_row_kinds(dataset const& data,
                                                           std::vector<std::size_t> const& layers,
                                                           index_t first_row,
                                                           study_progress const& progress);

[[nodiscard]] std::string to_text(std::vector<layer_row_kinds> const& layers);
[[nodiscard]] nlohmann::ordered_json to_json(std::vector<layer_row_kinds> const& layers);

} // namespace sofattn::attend

BOOST_HANA_ADAPT_STRUCT(sofattn::attend::layer_row_kinds, model, layer, causal, mass, rows_count,
                        few_share, spread_share, concentrated_share);
