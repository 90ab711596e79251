// SPDX-License-Identifier: MIT
// Evaluations in processes of their own: they may crash, hang and run side by side.
#pragma once

#include "dse/state.hpp"
#include <sofattn/core/types.hpp>
#include <sofattn/dse/trial.hpp>

#include <functional>
#include <vector>

namespace sofattn::dse {

/// An outcome, and whatever else was measured; null if nothing.
struct evaluation {
    outcome result{};
    json details{};
};

/// May throw: that is a failed trial.
using objective_function = std::function<evaluation(point const&)>;

struct worker_options {
    index_t count = 1;        ///< processes at a time
    double most_seconds = 0;  ///< per evaluation; 0: any time
    index_t threads_each = 0; ///< of OpenMP, where there is one; 0: its own choice
};

/// Evaluates all trials, each in a process forked from this one, and hands out the outcomes as they
/// come, in any order. What throws, exits, crashes or takes too long is a failed or timed-out trial
/// with a note; the others are not touched. Throws `error` where no process can be started.
void evaluate_all(std::vector<trial> const& trials, objective_function const& objective,
                  worker_options const& options,
                  std::function<void(trial const&, evaluation)> const& on_done);

} // namespace sofattn::dse
