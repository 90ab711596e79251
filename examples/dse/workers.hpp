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

class ranks;

struct worker_options {
    index_t count = 1;        ///< processes at a time, of each rank
    double most_seconds = 0;  ///< per evaluation; 0: any time
    index_t threads_each = 0; ///< of OpenMP, where there is one; 0: its own choice
    ranks* across = nullptr;  ///< null: this program alone
};

/// Hears of every trial that is over.
using outcome_listener = std::function<void(trial const&, evaluation)>;

/// Processes forked from this one, each of which evaluates one trial. What throws, exits, crashes or takes
/// too long is a failed or timed-out trial with a note; the others are not touched.
class worker_pool {
public:
    /// Both must outlive the pool.
    worker_pool(objective_function const& objective, worker_options const& options);
    worker_pool(worker_pool const&) = delete;
    worker_pool& operator=(worker_pool const&) = delete;
    ~worker_pool(); ///< kills what still runs

    [[nodiscard]] bool has_room() const noexcept;
    [[nodiscard]] bool is_idle() const noexcept { return running_.empty(); }
    /// Throws `error` where no process can be started.
    void start(trial const& of);
    /// Waits for an answer or the end of somebody's time, for at most so long; negative: as long as it
    /// takes. Returns at once where nothing runs and nothing is to be waited for.
    void wait(int most_milliseconds, outcome_listener const& on_done);

private:
    struct worker;

    objective_function const& objective_;
    worker_options const& options_;
    std::vector<worker> running_;
};

/// Evaluates a batch: evaluate_all with an objective, or what takes its place.
using batch_evaluator =
    std::function<void(std::vector<trial> const&, worker_options const&, outcome_listener const&)>;

/// Evaluates all trials, each in a process of its own, and hands out the outcomes as they come, in any
/// order. With ranks, all of them call this with the same trials and share the work; every rank hears of
/// every outcome, in the same order.
void evaluate_all(std::vector<trial> const& trials, objective_function const& objective,
                  worker_options const& options, outcome_listener const& on_done);
[[nodiscard]] batch_evaluator one_by_one(objective_function objective);

} // namespace sofattn::dse
