// SPDX-License-Identifier: MIT
// Two fixed comparisons on recorded data, and their check against recorded figures.
#pragma once

#include "attend/dataset.hpp"
#include "attend/evaluate.hpp"
#include <sofattn/io/fields.hpp>

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

namespace sofattn::attend {

/// One cell of a study: means over the heads of the layers that were asked for.
struct study_row {
    std::string study; ///< "ranking" or "keys"
    std::string model;
    std::string layers;  ///< "5,11,16,21"
    std::string ranking; ///< what keys were ranked by
    double keep_ratio = 0;
    mean_quality quality;
};

/// Called with the share done and what is worked on.
using study_progress = std::function<void(double share, std::string const& what)>;

/// Keys ranked by predicted scores of several predictors, exact top-k, dropped keys ignored, at 5,
/// 10 and 20 %: a fixed ratio with no minimum. Means over the given layers of each model, and once
/// more without the diffuse first three of a decoder.
[[nodiscard]] std::vector<study_row> study_ranking(dataset const& data,
                                                   std::vector<std::size_t> const& layers,
                                                   index_t first_row,
                                                   study_progress const& progress);

/// Keys predicted from X and Wk (phase 1.1), rotated and quantised, ranking the true ones at 10 %;
/// layers without X are passed over.
[[nodiscard]] std::vector<study_row> study_keys(dataset const& data,
                                                std::vector<std::size_t> const& layers,
                                                index_t first_row, study_progress const& progress);

[[nodiscard]] std::string to_text(std::vector<study_row> const& rows);

/// Compares with a JSON file of {tolerance_recall, tolerance_mass, tolerance_error, rows: [...]};
/// every figure that `rows` has too must agree. Returns a line per figure that does not, and how
/// many were compared. Throws sofattn::error if the file cannot be read or nothing is comparable.
struct study_check {
    std::vector<std::string> deviations;
    int compared = 0;
};
[[nodiscard]] study_check check_study(std::vector<study_row> const& rows,
                                      std::filesystem::path const& expected);

} // namespace sofattn::attend

BOOST_HANA_ADAPT_STRUCT(sofattn::attend::study_row, study, model, layers, ranking, keep_ratio,
                        quality);
