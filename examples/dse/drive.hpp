// SPDX-License-Identifier: MIT
// A search from its first to its last evaluation, with workers, a state file and progress.
#pragma once

#include "dse/state.hpp"
#include "dse/workers.hpp"
#include <sofattn/core/types.hpp>
#include <sofattn/dse/options.hpp>
#include <sofattn/dse/trial.hpp>

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

namespace sofattn::dse {

struct drive_options {
    index_t evaluations = 200;
    worker_options workers{};
    std::filesystem::path state{}; ///< empty: none is kept
    bool show_progress = true;
    std::string name = "search"; ///< for progress
    /// What an evaluation told beside its outcome; of those in the state file first.
    std::function<void(json const&)> on_details{};
    /// The objective as progress shows it; empty: as it is.
    std::function<double(double)> shown{};
};

/// What came of it.
struct drive_result {
    search_state state;
    double search_seconds = 0;     ///< spent on choosing points, by this process
    double evaluation_seconds = 0; ///< spent on waiting for outcomes, by this process
    index_t evaluated_here = 0;    ///< the rest was in the state file
};

/// Asks, evaluates and tells batch by batch until there are so many trials, or no open point is
/// left. The state is written before a batch is evaluated and after every outcome, so whoever kills
/// this process loses what is being evaluated and nothing else; a second run with the same identity
/// goes on there and ends as the first would have. Throws `error` for a state file that is not this
/// search's, before anything is evaluated.
[[nodiscard]] drive_result drive(search_identity const& identity, allowed_points const& allowed,
                                 batch_evaluator const& evaluate, drive_options const& options);

/// Best value of the first objective among feasible trials, after each trial; infinity before there
/// is one.
[[nodiscard]] std::vector<double> best_so_far(std::vector<trial> const& trials);

} // namespace sofattn::dse
