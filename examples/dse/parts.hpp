// SPDX-License-Identifier: MIT
// Evaluations made of parts that points share.
#pragma once

#include "dse/state.hpp"
#include "dse/workers.hpp"
#include <sofattn/dse/space.hpp>
#include <sofattn/dse/trial.hpp>

#include <functional>
#include <vector>

namespace sofattn::dse {

/// An objective whose parts are run on their own. Points of a batch mostly differ in few of their parts: a
/// process per point runs common ones twice, and one per batch has the longest way to go while others idle.
struct parted_objective {
    /// What a point needs and nobody has run yet, as numbers that `run` understands.
    std::function<std::vector<point>(point const&)> missing;
    /// One part, in another process.
    objective_function run;
    /// Hears, in this process, of every part that is done.
    std::function<void(point const& part, evaluation const&)> keep;
    /// The evaluation of a point that misses nothing; in this process, so it should take no time.
    objective_function combine;
};

/// evaluate_all, part by part: each once, for all trials that need it. A trial is over with its last part; a
/// part that fails or takes too long fails all that need it. options.most_seconds is a part's time. A process
/// takes several parts where many are left and there is no limit on their time; what such a process did not
/// survive is run again, each part alone, so that the outcomes do not depend on how many processes there are.
void evaluate_parts(std::vector<trial> const& trials, parted_objective const& objective,
                    worker_options const& options, outcome_listener const& on_done);

} // namespace sofattn::dse
