// SPDX-License-Identifier: MIT
// Bayesian search: the next point from all trials so far.
#pragma once

#include <sofattn/core/types.hpp>
#include <sofattn/dse/acquisition.hpp>
#include <sofattn/dse/candidates.hpp>
#include <sofattn/dse/fit.hpp>
#include <sofattn/dse/gaussian_process.hpp>
#include <sofattn/dse/options.hpp>
#include <sofattn/dse/scalarise.hpp>
#include <sofattn/dse/space.hpp>
#include <sofattn/dse/trial.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <map>
#include <optional>
#include <span>
#include <utility>
#include <vector>

namespace sofattn::dse {

/// Proposes points by models of the objective, of every constraint and of failure. What it proposes
/// depends on space, options and trials only: parameters are fitted anew, from the prior, whenever
/// the trials have grown by a sixth, on the trials up to there. The cache spares the second fit of the
/// same trials and changes nothing.
class bayesian_proposer {
public:
    /// The point for trial `id`, or nothing if there is no open point. Pending trials are taken to
    /// come out as the model expects (Ginsbourger's "kriging believer"), which moves the points of a
    /// batch apart. pre: past the first points; some trial is done
    [[nodiscard]] std::optional<point> operator()(open_points const& open,
                                                  search_options const& options,
                                                  std::span<trial const> trials, index_t id,
                                                  random_stream& random) {
        search_space const& in = open.space();
        std::vector<trial const*> done;
        bool any_failed = false;
        for (trial const& t : trials) {
            if (t.is_done()) {
                done.push_back(&t);
            }
            any_failed = any_failed || t.result.status == trial_status::failed ||
                         t.result.status == trial_status::timed_out;
        }
        std::size_t const stage = stage_of(done.size());

        std::vector<observation> seen = places_of(done, in);
        // The weights of a stage fit its parameters, those of the point choose it.
        auto const weighed = [&](std::span<trial const> ranges_of, detail::purpose p, index_t n) {
            return scalarisation(ranges_of, options.objectives_count, options.seed,
                                 detail::stream_of(p, n));
        };
        auto fitted = seen;
        auto const stage_end = static_cast<std::size_t>(done[stage - 1]->id) + 1;
        scalarisation const stage_weights = weighed(
            trials.first(stage_end), detail::purpose::fit_weights, static_cast<index_t>(stage));
        scalarisation const weights = weighed(trials, detail::purpose::weights, id);
        for (std::size_t i = 0; i < done.size(); ++i) {
            fitted[i].value = stage_weights(done[i]->result.objectives);
            seen[i].value = weights(done[i]->result.objectives);
        }
        fitted.resize(stage);
        standardise(fitted);
        auto const [mean, deviation] = standardise(seen);
        gaussian_process objective = model_of(seen, parameters_for(0, fitted));

        std::vector<gaussian_process> constraints;
        for (std::size_t c = 0; c < options.violations_count; ++c) {
            double squares = 0.0;
            for (std::size_t i = 0; i < done.size(); ++i) {
                seen[i].value = done[i]->result.violations[c];
                squares += seen[i].value * seen[i].value;
            }
            // Scaled but not shifted: 0 stays the border.
            double const size = std::sqrt(squares / static_cast<double>(done.size()));
            for (observation& one : seen) {
                one.value /= size > 0.0 ? size : 1.0;
            }
            constraints.push_back(
                model_of(seen, parameters_for(1 + c, std::span(seen).first(stage))));
        }
        if (any_failed) {
            std::vector<trial const*> finished;
            for (trial const& t : trials) {
                if (t.result.status != trial_status::pending) {
                    finished.push_back(&t);
                }
            }
            seen = places_of(finished, in);
            for (std::size_t i = 0; i < finished.size(); ++i) {
                seen[i].value = finished[i]->is_done() ? -1.0 : 1.0;
            }
            constraints.push_back(
                model_of(seen, parameters_for(1 + options.violations_count,
                                              std::span(seen).first(stage_of(seen.size())))));
        }

        std::vector<double> place(in.size());
        for (trial const& t : trials) {
            if (t.result.status == trial_status::pending) {
                in.place(t.at, place);
                objective.add(place, objective.predict(place).mean);
                for (gaussian_process& c : constraints) {
                    c.add(place, c.predict(place).mean);
                }
            }
        }
        std::vector<std::pair<double, index_t>> order; // feasible trials, best first
        for (trial const* t : done) {
            if (t->is_feasible()) {
                order.emplace_back(weights(t->result.objectives), t->id);
            }
        }
        std::sort(order.begin(), order.end());
        std::vector<point> starts;
        for (std::size_t n = 0; n < std::min<std::size_t>(order.size(), best_starts); ++n) {
            starts.push_back(trials[static_cast<std::size_t>(order[n].second)].at);
        }
        std::optional<double> best;
        if (!order.empty()) {
            best = (order.front().first - mean) / deviation;
        }
        return most_promising(promise(objective, constraints, best), starts, open, climb_options{},
                              random);
    }

private:
    static constexpr std::size_t best_starts = 3;
    static constexpr std::size_t first_stage = 4;

    /// The largest number up to `count` of 4, 5, 6, 7, 9, 11, 13, ...: a sixth more each time.
    [[nodiscard]] static std::size_t stage_of(std::size_t count) noexcept {
        std::size_t stage = std::min(count, first_stage);
        while (stage >= first_stage && stage + stage / 6 + 1 <= count) {
            stage += stage / 6 + 1;
        }
        return stage;
    }
    [[nodiscard]] static std::vector<observation> places_of(std::span<trial const* const> trials,
                                                            search_space const& in) {
        std::vector<observation> list(trials.size());
        for (std::size_t i = 0; i < trials.size(); ++i) {
            list[i].place.resize(in.size());
            in.place(trials[i]->at, list[i].place);
        }
        return list;
    }
    /// Mean 0 and variance 1; returns what they were. The deviation of equal values counts as 1.
    static std::pair<double, double> standardise(std::span<observation> of) noexcept {
        auto const count = static_cast<double>(of.size());
        double mean = 0.0;
        for (observation const& one : of) {
            mean += one.value / count;
        }
        double variance = 0.0;
        for (observation const& one : of) {
            variance += (one.value - mean) * (one.value - mean) / count;
        }
        double const deviation = variance > 0.0 ? std::sqrt(variance) : 1.0;
        for (observation& one : of) {
            one.value = (one.value - mean) / deviation;
        }
        return {mean, deviation};
    }
    [[nodiscard]] static gaussian_process model_of(std::span<observation const> of,
                                                   kernel_parameters const& parameters) {
        gaussian_process process(parameters);
        for (observation const& one : of) {
            process.add(one.place, one.value);
        }
        return process;
    }
    [[nodiscard]] kernel_parameters const& parameters_for(std::size_t model,
                                                          std::span<observation const> of) {
        cached& c = cache_[model];
        bool const same = std::equal(
            c.of.begin(), c.of.end(), of.begin(), of.end(),
            [](auto const& a, auto const& b) { return a.value == b.value && a.place == b.place; });
        if (!same || of.empty()) {
            c.of.assign(of.begin(), of.end());
            c.parameters = fit_kernel(of);
        }
        return c.parameters;
    }

    struct cached {
        std::vector<observation> of{};
        kernel_parameters parameters{};
    };
    std::map<std::size_t, cached> cache_;
};

} // namespace sofattn::dse
