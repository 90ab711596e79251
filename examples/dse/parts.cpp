// SPDX-License-Identifier: MIT
#include "dse/parts.hpp"

#include "dse/ranks.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <exception>
#include <map>
#include <optional>
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

/// In another process. A part that throws fails alone.
json run_one(parted_objective const& objective, point const& part) {
    evaluation e;
    try {
        e = objective.run(part);
    } catch (std::exception const& thrown) {
        e = {outcome::failure(thrown.what()), {}};
    } catch (...) {
        e = {outcome::failure("an unknown exception"), {}};
    }
    for (auto const* values : {&e.result.objectives, &e.result.violations}) {
        if (!std::all_of(values->begin(), values->end(),
                         [](double v) { return std::isfinite(v); })) {
            e = {outcome::failure("a value is not finite"), {}}; // JSON has no word for it
            break;
        }
    }
    return {{"result", to_json(e.result)}, {"details", e.details}};
}
evaluation answer_of(json const& answer) {
    return {outcome_from(answer.at("result"), "worker process"), answer.at("details")};
}

/// Parts by their places, so many a process that twice as many processes could share what is left ("guided
/// self-scheduling"): a process costs 2.5 ms beside its work, and a part of a recorded layer some 30 ms, but all
/// should end at about the same time.
std::vector<trial> bundles_of(std::size_t parts, worker_options const& options) {
    index_t const ranks_count = options.across == nullptr ? 1 : options.across->count();
    auto const processes =
        static_cast<std::size_t>(ranks_count * std::max<index_t>(options.count, 1));
    std::vector<trial> bundles;
    for (std::size_t next = 0; next < parts;) {
        std::size_t const left = parts - next;
        std::size_t const size =
            options.most_seconds > 0 ? 1 : std::max<std::size_t>(left / (2 * processes), 1);
        point bundle;
        for (; bundle.size() < size; ++next) {
            bundle.push_back(static_cast<index_t>(next));
        }
        bundles.push_back({std::ssize(bundles), std::move(bundle), {}});
    }
    return bundles;
}

} // namespace

void evaluate_parts(std::vector<trial> const& trials, parted_objective const& objective,
                    worker_options const& options, outcome_listener const& on_done) {
    std::vector<point> parts;
    std::map<point, std::size_t> place_of;         // among the parts
    std::vector<std::vector<std::size_t>> needing; // [part], trials
    std::vector<std::size_t> missing(trials.size());
    for (std::size_t t = 0; t < trials.size(); ++t) {
        for (point const& part : objective.missing(trials[t].at)) {
            auto const [found, is_new] = place_of.try_emplace(part, parts.size());
            if (is_new) {
                parts.push_back(part);
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
    struct failure {
        std::size_t part;
        outcome result;
    };
    std::vector<std::optional<failure>> failures(trials.size());
    auto const over = [&](std::size_t part, evaluation const& e) {
        bool const is_done = e.result.status == trial_status::done;
        if (is_done) {
            objective.keep(parts[part], e);
        }
        for (std::size_t const t : needing[part]) {
            auto& why = failures[t];
            if (!is_done && (!why || part < why->part)) { // the first, whichever came first
                why = failure{part, e.result};
            }
            if (--missing[t] == 0) {
                on_done(trials[t],
                        why ? evaluation{why->result, {}} : combined(objective, trials[t].at));
            }
        }
    };
    auto const run = [&](point const& bundle) {
        evaluation all{{trial_status::done, {}, {}, {}}, json::array()};
        for (index_t const part : bundle) {
            all.details.push_back(run_one(objective, parts[static_cast<std::size_t>(part)]));
        }
        return all;
    };
    std::vector<trial> again;
    evaluate_all(bundles_of(parts.size(), options), run, options,
                 [&](trial const& bundle, evaluation const& e) {
                     if (e.result.status == trial_status::done) {
                         for (std::size_t i = 0; i < bundle.at.size(); ++i) {
                             over(static_cast<std::size_t>(bundle.at[i]),
                                  answer_of(e.details.at(i)));
                         }
                     } else if (bundle.at.size() == 1) {
                         over(static_cast<std::size_t>(bundle.at.front()), e);
                     } else {
                         for (index_t const part : bundle.at) {
                             again.push_back({std::ssize(again), {part}, {}});
                         }
                     }
                 });
    if (again.empty()) {
        return; // as all ranks know: they have heard the same
    }
    evaluate_all(again, run, options, [&](trial const& one, evaluation const& e) {
        over(static_cast<std::size_t>(one.at.front()),
             e.result.status == trial_status::done ? answer_of(e.details.at(0)) : e);
    });
}

} // namespace sofattn::dse
