// SPDX-License-Identifier: MIT
// Certificates of recorded rows, held against the truth: bounds that hold, estimates that are close.
#pragma once

#include "attend/dataset.hpp"
#include "attend/study.hpp"
#include <sofattn/core/types.hpp>
#include <sofattn/io/fields.hpp>

#include <nlohmann/json.hpp>

#include <cstdint>
#include <string>
#include <vector>

namespace sofattn::attend {

/// Ratios over rows.
struct spread_of_ratios {
    double low = 0; ///< 2.5th percentile
    double median = 0;
    double high = 0; ///< 97.5th

    [[nodiscard]] static spread_of_ratios of(std::vector<double> ratios);
};

/// One policy on one layer, all judged rows.
struct certified_layer {
    std::string model;
    int layer = 0;
    std::string policy; ///< as sofattn-attend --policy names it
    double mass = 0;    ///< the budget, 0 where it is an output error
    std::uint64_t rows_count = 0;
    double kept_share = 0;
    double kept_mass = 0;         ///< true, mean over rows
    double kept_mass_reached = 0; ///< share of rows whose true kept mass is at least `mass` - 0.01
    spread_of_ratios mass_estimate; ///< estimated dropped mass / true
    spread_of_ratios mass_bound;    ///< bound of the dropped mass / true
    std::uint64_t mass_bound_violations_count = 0;
    spread_of_ratios error_estimate; ///< true output error / estimated
    double error_within_2x = 0;      ///< share of rows
    spread_of_ratios error_bound;    ///< bound of the output error / true
    std::uint64_t error_bound_violations_count = 0;
};

/// The mass rule at 0.8 to 0.99 and the recommended error budget, with and without reused scores.
[[nodiscard]] std::vector<certified_layer>
study_certificates(dataset const& data, std::vector<std::size_t> const& layers, index_t first_row,
                   study_progress const& progress);

[[nodiscard]] std::string to_text(std::vector<certified_layer> const& layers);
[[nodiscard]] nlohmann::ordered_json to_json(std::vector<certified_layer> const& layers);

} // namespace sofattn::attend

BOOST_HANA_ADAPT_STRUCT(sofattn::attend::spread_of_ratios, low, median, high);
BOOST_HANA_ADAPT_STRUCT(sofattn::attend::certified_layer, model, layer, policy, mass, rows_count,
                        kept_share, kept_mass, kept_mass_reached, mass_estimate, mass_bound,
                        mass_bound_violations_count, error_estimate, error_within_2x, error_bound,
                        error_bound_violations_count);
