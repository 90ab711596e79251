// SPDX-License-Identifier: MIT
#include "dse/model_search.hpp"

#include "dse/level.hpp"
#include <sofattn/core/assert.hpp>
#include <sofattn/core/error.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <utility>

namespace sofattn::dse {

namespace {

/// Weights from a half to two: the sum of heads is close to the model, and on minimind2-small
/// weights from a quarter to four were nowhere better and mostly 10 to 20 % worse.
constexpr index_t steps_each_way = 4;
constexpr double steps_per_doubling = 4;

std::string number(double value) {
    std::array<char, 32> text{};
    std::snprintf(text.data(), text.size(), "%.9g", value);
    return text.data();
}

char const* name_of(part p) {
    return p == part::search ? "search" : p == part::settle ? "settle" : "judge";
}

/// Budgets by their bits: a run's name says which it was.
std::string name_of(std::vector<std::vector<double>> const& spreads) {
    std::uint64_t hash = 14695981039346656037u; // FNV-1a, by words
    for (auto const& layer : spreads) {
        for (double const s : layer) {
            hash = (hash ^ std::bit_cast<std::uint64_t>(s)) * 1099511628211u;
            hash ^= hash >> 32;
        }
    }
    std::array<char, 32> text{};
    std::snprintf(text.data(), text.size(), "heads %016llx", static_cast<unsigned long long>(hash));
    return text.data();
}

error unreachable(double most_kl, double least_kl, char const* budgets) {
    return {"mean KL to reach", number(most_kl),
            "at least that of " + std::string(budgets) + ", " + number(least_kl)};
}

json to_json(std::vector<head_sample> const& samples) {
    json list = json::array();
    for (head_sample const& s : samples) {
        list.push_back({s.spreads, s.kept_share, s.kl, s.error_relative});
    }
    return list;
}
std::vector<head_sample> samples_from(json const& list) {
    std::vector<head_sample> samples;
    for (json const& s : list) {
        samples.push_back({s.at(0).get<double>(), s.at(1).get<double>(), s.at(2).get<double>(),
                           s.at(3).get<double>()});
    }
    return samples;
}

} // namespace

model_search::model_search(model_problem const& problem, run_log& log, run_options const& options,
                           index_t threads)
    : problem_(&problem), log_(&log), options_(options), threads_(threads) {}

search_space model_search::space_of(index_t layers) {
    std::vector<dimension> all;
    for (index_t l = 0; l < layers; ++l) {
        all.push_back(
            {"weight_steps_" + std::to_string(l), -steps_each_way, steps_each_way, 1, {}});
    }
    return search_space(std::move(all));
}

point model_search::even() const {
    return point(static_cast<std::size_t>(problem_->model().layers), steps_each_way);
}

std::vector<double> model_search::weights_of(point const& p) const {
    search_space const all = space();
    std::vector<double> weights;
    for (std::size_t l = 0; l < p.size(); ++l) {
        weights.push_back(std::exp2(static_cast<double>(all.value(p, l)) / steps_per_doubling));
    }
    return weights;
}

lm::attention_method model_search::method_of(head_allocation const& a) {
    auto spreads = a.spreads();
    std::string name = name_of(spreads);
    return lm::with_output_errors(std::move(name), std::move(spreads), 0);
}

std::vector<model_figures> model_search::windows_of(part p, lm::attention_method const& method) {
    std::vector<named_run> runs;
    for (index_t w = 0; w < problem_->options().windows_of(p); ++w) {
        runs.push_back({std::string(name_of(p)) + " " + std::to_string(w) + ", " + method.name,
                        [this, p, w, &method] {
                            return to_json(problem_->run(p, w, method, exec::openmp(threads_)));
                        }});
    }
    std::vector<model_figures> all;
    for (json const& f : log_->figures(runs, options_, method.name)) {
        all.push_back(model_figures_from(f));
    }
    return all;
}

model_level model_search::uniform(part p, uniform_budget kind, double most_kl) {
    bool const is_mass = kind == uniform_budget::mass;
    auto const method_at = [&](double x) {
        return lm::find_method(
            is_mass ? "mass:" + number(1 - std::exp(x)) : "error:" + number(std::exp(x)), 0);
    };
    double least_kl = 0;
    auto const kl_at = [&](double x) { return least_kl = mean_of(windows_of(p, method_at(x))).kl; };
    level wanted;
    wanted.most = most_kl;
    wanted.first = std::log(is_mass ? 0.08 : 0.006);
    wanted.least_at = std::log(is_mass ? 1e-6 : 1e-7);
    wanted.most_at = std::log(is_mass ? 0.99 : 100.0);
    wanted.slope = is_mass ? 1 : 2; // about, on minimind2-small
    auto const x = find_level(kl_at, wanted);
    if (!x) {
        throw unreachable(most_kl, least_kl,
                          is_mass ? "mass budgets close to 1" : "the smallest output errors");
    }
    auto const method = method_at(*x);
    auto const windows = windows_of(p, method);
    return {method.name, mean_of(windows), windows};
}

void model_search::measure(double most_kl) {
    most_kl_ = most_kl;
    auto const start = uniform(part::search, uniform_budget::output_error, most_kl);
    double const middle = std::stod(start.name.substr(start.name.find(':') + 1));
    std::vector<double> const spreads{middle / 3, middle, middle * 3, middle * 9};
    auto const& model = problem_->model();
    std::vector<named_run> runs;
    for (index_t l = 0; l < model.layers; ++l) {
        for (index_t h = 0; h < model.heads; ++h) {
            runs.push_back({"layer " + std::to_string(l) + ", head " + std::to_string(h) +
                                " from " + number(spreads.front()),
                            [this, l, h, &spreads] {
                                return to_json(
                                    problem_->measure_head(l, h, spreads, exec::openmp(threads_)));
                            }});
        }
    }
    auto const figures = log_->figures(runs, options_, "heads, one at a time");
    std::vector<std::vector<std::vector<head_sample>>> samples;
    for (std::size_t i = 0; i < figures.size(); ++i) {
        if (i % static_cast<std::size_t>(model.heads) == 0) {
            samples.emplace_back();
        }
        samples.back().push_back(samples_from(figures[i]));
    }
    curves_.emplace(samples);
    predicted_kl_ = most_kl;
    predicted_kl_ = heads(part::search, even(), most_kl).heads.predicted_kl;
}

model_level model_search::heads(part p, point const& weights, double most_kl) {
    SOFATTN_ASSERT(curves_);
    auto const layer_weights = weights_of(weights);
    auto const at = [&](double x) { return curves_->at(layer_weights, std::exp(x)); };
    double least_kl = 0;
    auto const kl_at = [&](double x) {
        return least_kl = mean_of(windows_of(p, method_of(at(x)))).kl;
    };
    level wanted;
    wanted.most = most_kl;
    wanted.first = std::log(predicted_kl_ * most_kl / most_kl_);
    wanted.least_at = wanted.first - std::log(1e4);
    wanted.most_at = wanted.first + std::log(1e4);
    auto const x = find_level(kl_at, wanted);
    if (!x) {
        throw unreachable(most_kl, least_kl, "the smallest budgets of heads that were measured");
    }
    auto allocation = at(*x);
    auto const method = method_of(allocation);
    auto const windows = windows_of(p, method);
    return {method.name, mean_of(windows), windows, std::move(allocation)};
}

model_level model_search::judge(model_level const& settled) {
    model_level judged = settled;
    judged.windows = windows_of(part::judge, method_of(settled.heads));
    judged.figures = mean_of(judged.windows);
    return judged;
}

model_figures model_search::run_search(head_allocation const& a) const {
    std::vector<model_figures> all;
    auto const method = method_of(a);
    for (index_t w = 0; w < problem_->options().search_windows; ++w) {
        all.push_back(problem_->run(part::search, w, method, exec::openmp(threads_)));
    }
    return mean_of(all);
}

evaluation model_search::evaluate(point const& p) const {
    SOFATTN_ASSERT(curves_);
    auto const weights = weights_of(p);
    auto const first = run_search(curves_->at(weights, predicted_kl_));
    // The KL grows about as the sum of the heads' does.
    auto const second = run_search(curves_->at(weights, predicted_kl_ * most_kl_ / first.kl));
    // Along the line through both, in logarithms; where they hardly differ, the second as it is.
    double const run = std::log(second.kl / first.kl);
    double const rise = std::log(second.kept_share / first.kept_share);
    double const slope = std::abs(run) > 0.02 ? std::clamp(rise / run, -1.0, 0.0) : 0.0;
    double const kept = second.kept_share * std::pow(most_kl_ / second.kl, slope);
    evaluation e;
    e.result.objectives = {kept};
    e.details = {{"kept_share", kept}, {"runs", {to_json(first), to_json(second)}}};
    return e;
}

double model_search::settle_kl(point const& weights, double most_kl) {
    auto const windows =
        windows_of(part::settle, method_of(curves_->at(weights_of(weights), predicted_kl_)));
    double const mean = mean_of(windows).kl;
    double squares = 0;
    for (model_figures const& f : windows) {
        squares += (f.kl / mean - 1) * (f.kl / mean - 1);
    }
    auto const settled = static_cast<double>(windows.size());
    auto const judged = static_cast<double>(problem_->options().judge_windows);
    double const variance = settled > 1 ? squares / (settled - 1) : 0.0;
    constexpr double one_in_twenty = 1.645; // standard deviations of a normal distribution
    return most_kl / (1 + one_in_twenty * std::sqrt(variance * (1 / settled + 1 / judged)));
}

} // namespace sofattn::dse
