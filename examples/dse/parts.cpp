// SPDX-License-Identifier: MIT
#include "dse/parts.hpp"

#include <cstddef>
#include <exception>
#include <map>
#include <utility>

namespace sofattn::dse {

namespace {

evaluation combined(parted_objective const& objective, point const& at) {
    try {
        return objective.combine(at);
    } catch (std::exception const& e) {
        return {outcome::failure(e.what()), {}};
    }
}

} // namespace

void evaluate_parts(std::vector<trial> const& trials, parted_objective const& objective,
                    worker_options const& options, outcome_listener const& on_done) {
    std::vector<trial> parts;
    std::map<point, std::size_t> place_of;         // among the parts
    std::vector<std::vector<std::size_t>> needing; // [part], trials
    std::vector<std::size_t> missing(trials.size());
    for (std::size_t t = 0; t < trials.size(); ++t) {
        for (point const& part : objective.missing(trials[t].at)) {
            auto const [found, is_new] = place_of.try_emplace(part, parts.size());
            if (is_new) {
                parts.push_back({std::ssize(parts), part, {}});
                needing.emplace_back();
            }
            needing[found->second].push_back(t);
            ++missing[t];
        }
    }
    for (std::size_t t = 0; t < trials.size(); ++t) {
        if (missing[t] == 0) {
            on_done(trials[t], combined(objective, trials[t].at));
        }
    }
    evaluate_all(parts, objective.run, options, [&](trial const& part, evaluation const& e) {
        bool const is_done = e.result.status == trial_status::done;
        if (is_done) {
            objective.keep(part.at, e);
        }
        for (std::size_t const t : needing[static_cast<std::size_t>(part.id)]) {
            if (missing[t] == 0) {
                continue; // over, for another part's failure
            }
            missing[t] = is_done ? missing[t] - 1 : 0;
            if (missing[t] == 0) {
                on_done(trials[t],
                        is_done ? combined(objective, trials[t].at) : evaluation{e.result, {}});
            }
        }
    });
}

} // namespace sofattn::dse
