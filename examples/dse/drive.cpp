// SPDX-License-Identifier: MIT
#include "dse/drive.hpp"

#include "attend/progress.hpp"
#include "dse/ranks.hpp"
#include <sofattn/dse/search.hpp>

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <cstdio>
#include <limits>
#include <utility>

namespace sofattn::dse {

namespace {

using clock = std::chrono::steady_clock;

double seconds_since(clock::time_point start) {
    return std::chrono::duration<double>(clock::now() - start).count();
}

std::string progress_text(drive_options const& options, search const& run, index_t finished,
                          double seconds_left) {
    std::array<char, 96> text{};
    double best = best_so_far(run.trials()).back();
    best = options.shown ? options.shown(best) : best;
    std::snprintf(text.data(), text.size(), "%td of %td, best %.5g, %.0f s left", finished,
                  options.evaluations, best, seconds_left);
    return options.name + ": " + text.data();
}

} // namespace

std::vector<double> best_so_far(std::vector<trial> const& trials) {
    std::vector<double> best;
    double least = std::numeric_limits<double>::infinity();
    for (trial const& t : trials) {
        if (t.is_feasible()) {
            least = std::min(least, t.result.objectives[0]);
        }
        best.push_back(least);
    }
    return best;
}

drive_result drive(search_identity const& identity, allowed_points const& allowed,
                   batch_evaluator const& evaluate, drive_options const& options) {
    drive_result result;
    if (!options.state.empty()) {
        if (auto found = read_state(options.state, identity)) {
            result.state = std::move(*found);
        }
    }
    if (ranks const* const all = options.workers.across; all != nullptr && all->count() > 1) {
        // Only the root has read a file.
        std::string const text =
            all->broadcast(all->is_root() ? to_json(identity, result.state).dump() : std::string());
        result.state = state_from(json::parse(text), identity, "search of rank 0");
    }
    for (json const& details : result.state.details) {
        if (options.on_details) {
            options.on_details(details);
        }
    }
    search run(identity.space, identity.options, allowed, result.state.trials);
    auto const save = [&] {
        if (!options.state.empty()) {
            write_state(options.state, identity, {run.trials(), result.state.details});
        }
    };
    attend::progress_bar bar(options.show_progress);
    auto const started = clock::now();
    auto finished = std::ssize(run.trials()) - std::ssize(run.pending());
    std::vector<trial> batch = run.pending(); // of a run that was stopped
    for (;;) {
        if (batch.empty()) {
            auto const asking = clock::now();
            auto const left = options.evaluations - std::ssize(run.trials());
            batch = run.ask(std::min(identity.batch, left));
            result.search_seconds += seconds_since(asking);
            result.state.details.resize(run.trials().size());
            if (batch.empty()) {
                break;
            }
            save();
        }
        auto const evaluating = clock::now();
        evaluate(batch, options.workers, [&](trial const& t, evaluation e) {
            run.tell(t.id, std::move(e.result));
            if (options.on_details) {
                options.on_details(e.details);
            }
            result.state.details[static_cast<std::size_t>(t.id)] = std::move(e.details);
            ++result.evaluated_here;
            ++finished;
            save();
            double const each = seconds_since(started) / static_cast<double>(result.evaluated_here);
            auto const left = static_cast<double>(options.evaluations - finished);
            bar.update(static_cast<double>(finished) / static_cast<double>(options.evaluations),
                       progress_text(options, run, finished, each * left));
        });
        result.evaluation_seconds += seconds_since(evaluating);
        batch.clear();
    }
    result.state.trials = run.trials();
    return result;
}

} // namespace sofattn::dse
