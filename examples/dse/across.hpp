// SPDX-License-Identifier: MIT
// Trials shared by several ranks.
#pragma once

#include "dse/workers.hpp"
#include <sofattn/dse/trial.hpp>

#include <vector>

namespace sofattn::dse {

/// evaluate_all with options.across. The root hands out trials, to itself too, whoever has a process to
/// spare; in the end it tells all ranks what came, in the order in which it came.
void evaluate_across(std::vector<trial> const& trials, objective_function const& objective,
                     worker_options const& options, outcome_listener const& on_done);

} // namespace sofattn::dse
