// SPDX-License-Identifier: MIT
// What keeping more keys buys: kept share against output error, for budgets and compensations.
#pragma once

#include "attend/dataset.hpp"
#include "attend/evaluate.hpp"
#include "attend/study.hpp"
#include <sofattn/io/fields.hpp>

#include <nlohmann/json.hpp>

#include <cstddef>
#include <string>
#include <vector>

namespace sofattn::attend {

/// One budget of one series, measured.
struct frontier_point {
    double setting = 0; ///< a ratio, a mass, or an output error in spreads of the values
    mean_quality quality;
};

/// One way to choose keys and to compensate, over its budgets.
struct frontier_series {
    std::string name;   ///< "int8, mass, segment means"
    std::string budget; ///< what `setting` is: "ratio", "mass" or "output_error"
    std::vector<frontier_point> points;
};

/// All series on one layer, or on the mean over the layers of a model.
struct frontier {
    std::string model;
    std::string layers; ///< "5", or "0,5,11" for a mean
    std::vector<frontier_series> series;
};

/// Measures every series on every layer, means over a model's layers first. Sinks 1, window 16, at
/// least 16 keys, whole rows; the paper's preset as it is.
[[nodiscard]] std::vector<frontier> study_frontier(dataset const& data,
                                                   std::vector<std::size_t> const& layers,
                                                   index_t first_row,
                                                   study_progress const& progress);

/// Error at a kept share, between measured points linear in the logarithms of both; negative where
/// the series does not reach.
[[nodiscard]] double error_at(frontier_series const& series, double kept_share);

/// Tables of error at 2, 5, 10, 15, 20 and 30 % kept, one per frontier.
[[nodiscard]] std::string to_text(std::vector<frontier> const& frontiers);
[[nodiscard]] nlohmann::ordered_json to_json(std::vector<frontier> const& frontiers);

/// The means over each model's layers, as an SVG picture of log-log plots side by side.
[[nodiscard]] std::string to_svg(std::vector<frontier> const& frontiers);

} // namespace sofattn::attend

BOOST_HANA_ADAPT_STRUCT(sofattn::attend::frontier_point, setting, quality);
BOOST_HANA_ADAPT_STRUCT(sofattn::attend::frontier_series, name, budget, points);
BOOST_HANA_ADAPT_STRUCT(sofattn::attend::frontier, model, layers, series);
