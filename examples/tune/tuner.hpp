// SPDX-License-Identifier: MIT
// The search for sizes that take the least time, and whether what it found is better than nothing.
#pragma once

#include <sofattn/core/types.hpp>
#include <sofattn/dse/interleaved.hpp>
#include <sofattn/dse/space.hpp>

#include <cstdint>
#include <functional>
#include <string>

namespace sofattn::tune {

/// Something whose time depends on sizes.
struct tunable {
    std::string name;
    dse::search_space space;
    dse::point defaults{};
    /// What is timed, with these sizes; called again and again.
    std::function<void(dse::point const&)> run;
};

struct clocks {
    std::function<double()> processor; ///< seconds of this thread: what is measured
    std::function<double()> wall;      ///< seconds: how long the search may take
};
/// Of this machine.
[[nodiscard]] clocks machine_clocks();

struct tune_options {
    index_t evaluations = 40; ///< at most, the default sizes among them
    double most_seconds = 10; ///< of the search; one evaluation more may be under way
    std::uint64_t seed = 1;
    dse::interleaving search{};                   ///< pairs of an evaluation
    dse::interleaving verdict{31, 31, 0.99};      ///< pairs of a verdict
    index_t verdicts = 3;                         ///< candidates that get one, at most
    std::function<void(double share)> progress{}; ///< of the time or the evaluations
};

/// What came of it.
struct tuned {
    dse::point best; ///< the defaults where nothing is surely better
    bool is_default = true;
    dse::time_ratio ratio; ///< of `best` to the defaults, measured anew; of the defaults to
                           ///< themselves where they stay
    dse::time_ratio noise; ///< of the defaults to themselves
    double promised = 1;   ///< the least ratio that the search saw
    index_t evaluations = 0;
};

/// Every evaluation times sizes in turns with the defaults, in the same process. Of many noisy
/// measurements the least is too low, so the best few are measured anew, more often: what is not faster
/// then at 99 % confidence is not taken.
/// error  as dse::interleaved_ratio
[[nodiscard]] tuned tune(tunable const& what, tune_options const& options, clocks const& time);

} // namespace sofattn::tune
