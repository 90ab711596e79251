// SPDX-License-Identifier: MIT
// A table of output-error budgets per layer and query head, as sofattn-calibrate writes it.
#pragma once

#include "attend/dataset.hpp"
#include <sofattn/io/fields.hpp>
#include <sofattn/sads/budget.hpp>

#include <filesystem>
#include <string>
#include <vector>

namespace sofattn::attend {

/// What one query head is given, and what that gave on the data of the calibration.
struct head_budget {
    int query_head = 0; ///< number in the model
    double output_error_spreads = 0;
    double kept_share = 0;
    double output_error_relative = 0;
};

struct layer_budgets {
    std::string model;
    int layer = 0;
    std::vector<head_budget> heads; ///< in the order of the recorded heads
};

struct budget_table {
    std::string format = "sofattn-budgets-1";
    std::string policy;
    double kept_share = 0;            ///< mean over all heads
    double output_error_relative = 0; ///< mean over all heads
    std::vector<layer_budgets> layers;
};

/// Throws sofattn::error for a file that is no such table, naming file, field, value and limit.
[[nodiscard]] budget_table read_budgets(std::filesystem::path const& file);
[[nodiscard]] std::string to_json_text(budget_table const& table);

/// A budget per recorded query head of the layer: `base` with the table's output errors. Throws
/// sofattn::error, in the name of `file`, if the table lacks the layer or one of its heads.
[[nodiscard]] std::vector<sads::budget> budgets_of(budget_table const& table,
                                                   std::filesystem::path const& file,
                                                   layer_info const& layer,
                                                   sads::budget const& base);

} // namespace sofattn::attend

// clang-format off
BOOST_HANA_ADAPT_STRUCT(sofattn::attend::head_budget,
    query_head, output_error_spreads, kept_share, output_error_relative);
BOOST_HANA_ADAPT_STRUCT(sofattn::attend::layer_budgets, model, layer, heads);
BOOST_HANA_ADAPT_STRUCT(sofattn::attend::budget_table,
    format, policy, kept_share, output_error_relative, layers);
// clang-format on
