// SPDX-License-Identifier: MIT
#include "attend/frontier.hpp"

#include "attend/compose.hpp"
#include "attend/json.hpp"
#include "attend/report.hpp"
#include <sofattn/attention/presets.hpp>
#include <sofattn/io/table.hpp>
#include <sofattn/sads/adaptive.hpp>
#include <sofattn/sufa/sorted_updating.hpp>
#include <sofattn/sufa/tail.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <map>

namespace sofattn::attend {

namespace {

std::string number(char const* format, double value) {
    std::array<char, 64> text{};
    std::snprintf(text.data(), text.size(), format, value);
    return text.data();
}

// --- what is compared ---

/// Uncounted: a frontier is about results.
template <class Predictor, class Selector, class Tail>
constexpr runner silent =
    &detail::run<Predictor, Selector, sufa::sorted_updating<>, Tail, exec::reference>;

struct series_plan {
    char const* name;
    char const* budget;
    runner run;
};

using sads::adaptive;
using sads::full_topk;
using sads::segment_topk;
constexpr std::array plans{
    series_plan{"paper preset", "ratio",
                silent<dlzs::dlzs16, segment_topk<sads::contiguous>, sufa::no_tail>},
    series_plan{"int8, ratio", "ratio", silent<dlzs::int8_per_query, full_topk, sufa::no_tail>},
    series_plan{"int8, ratio, mean", "ratio",
                silent<dlzs::int8_per_query, full_topk, sufa::mean_tail>},
    series_plan{"int8, ratio, segment means", "ratio",
                silent<dlzs::int8_per_query, full_topk, sufa::segment_tail>},
    series_plan{"int8, mass", "mass", silent<dlzs::int8_per_query, adaptive<>, sufa::no_tail>},
    series_plan{"int8, mass, mean", "mass",
                silent<dlzs::int8_per_query, adaptive<>, sufa::mean_tail>},
    series_plan{"int8, mass, segment means", "mass",
                silent<dlzs::int8_per_query, adaptive<>, sufa::segment_tail>},
    series_plan{"int8, error, mean", "output_error",
                silent<dlzs::int8_per_query, adaptive<>, sufa::mean_tail>},
    series_plan{"int8, error, segment means", "output_error",
                silent<dlzs::int8_per_query, adaptive<>, sufa::segment_tail>},
    series_plan{"int8, error, running, segment means", "output_error",
                silent<dlzs::int8_per_query, adaptive<sads::tile_by_tile>, sufa::segment_tail>},
    series_plan{"dlzs8, ratio, segment means", "ratio",
                silent<dlzs::dlzs8, full_topk, sufa::segment_tail>},
    series_plan{"dlzs8, mass, segment means", "mass",
                silent<dlzs::dlzs8, adaptive<>, sufa::segment_tail>},
    series_plan{"dlzs8, error, segment means", "output_error",
                silent<dlzs::dlzs8, adaptive<>, sufa::segment_tail>},
};

std::vector<double> settings_of(std::string const& budget) {
    if (budget == "ratio") {
        return {0.02, 0.05, 0.10, 0.15, 0.20, 0.30};
    }
    if (budget == "mass") {
        return {0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99};
    }
    return {0.16, 0.08, 0.04, 0.02, 0.01, 0.005, 0.0025, 0.00125, 0.0006};
}

named_policy policy_of(series_plan const& plan, double setting) {
    named_policy policy;
    policy.name = plan.name;
    policy.run = plan.run;
    auto& budget = policy.options.budget;
    if (plan.budget == std::string("ratio")) {
        budget.ratio = setting;
    } else if (plan.budget == std::string("mass")) {
        budget.mass = setting;
    } else {
        budget.output_error = setting;
    }
    if (&plan != plans.data()) { // the paper has neither
        budget.at_least = 16;
        budget.sinks = 1;
        budget.window = 16;
    }
    return policy;
}

/// Series without points, in the order of the plans.
std::vector<frontier_series> empty_series() {
    std::vector<frontier_series> series;
    for (auto const& plan : plans) {
        series.push_back({plan.name, plan.budget, {}});
    }
    return series;
}

frontier mean_of(std::vector<frontier> const& layers) {
    frontier mean = layers.front();
    auto const weight = 1.0 / static_cast<double>(layers.size());
    for (std::size_t s = 0; s < mean.series.size(); ++s) {
        for (std::size_t p = 0; p < mean.series[s].points.size(); ++p) {
            mean_quality sum;
            for (auto const& layer : layers) {
                mean_quality const& q = layer.series[s].points[p].quality;
                sum.kept_share += weight * q.kept_share;
                sum.recall += weight * q.recall;
                sum.mass += weight * q.mass;
                sum.output_error_relative += weight * q.output_error_relative;
            }
            mean.series[s].points[p].quality = sum;
        }
    }
    for (std::size_t l = 1; l < layers.size(); ++l) {
        mean.layers += "," + layers[l].layers;
    }
    return mean;
}

} // namespace

std::vector<frontier> study_frontier(dataset const& data, std::vector<std::size_t> const& layers,
                                     index_t first_row, study_progress const& progress) {
    std::vector<named_policy> policies;
    for (auto const& plan : plans) {
        for (double const setting : settings_of(plan.budget)) {
            policies.push_back(policy_of(plan, setting));
        }
    }
    std::map<std::string, std::vector<frontier>> by_model;
    double done = 0;
    for (std::size_t const at : layers) {
        layer const given = data.load(at);
        layer_info const& info = given.info;
        auto const outcomes =
            evaluate(layer_views::of(given), policies, policies.size(),
                     info.causal ? std::min(first_row, info.queries - 1) : 0, [&](double share) {
                         progress((done + share) / static_cast<double>(layers.size()),
                                  info.model + ", layer " + std::to_string(info.layer));
                     });
        frontier one{info.model, std::to_string(info.layer), empty_series()};
        std::size_t next = 0;
        for (auto& series : one.series) {
            for (double const setting : settings_of(series.budget)) {
                series.points.push_back({setting, mean_quality::of(outcomes[next++].heads)});
            }
        }
        by_model[info.model].push_back(std::move(one));
        done += 1;
    }
    std::vector<frontier> result;
    for (auto const& entry : by_model) {
        if (entry.second.size() > 1) {
            result.push_back(mean_of(entry.second));
        }
        result.insert(result.end(), entry.second.begin(), entry.second.end());
    }
    return result;
}

double error_at(frontier_series const& series, double kept_share) {
    std::vector<frontier_point> points = series.points;
    std::ranges::sort(points, {}, [](auto const& p) { return p.quality.kept_share; });
    constexpr double close = 1.02; // a ratio's nearest count, a minimum: still the share asked for
    for (std::size_t p = 0; p < points.size(); ++p) {
        double const here = points[p].quality.kept_share;
        double const error = points[p].quality.output_error_relative;
        if (here <= kept_share * close && kept_share <= here * close) {
            return error;
        }
        if (here > kept_share && p > 0) {
            double const before = points[p - 1].quality.kept_share;
            double const before_error = points[p - 1].quality.output_error_relative;
            double const along = std::log(kept_share / before) / std::log(here / before);
            return before_error > 0 && error > 0
                       ? before_error * std::pow(error / before_error, along)
                       : error;
        }
        if (here > kept_share) {
            break;
        }
    }
    return -1;
}

std::string to_text(std::vector<frontier> const& frontiers) {
    constexpr std::array shares{0.02, 0.05, 0.10, 0.15, 0.20, 0.30};
    std::string text;
    for (auto const& one : frontiers) {
        std::vector<std::string> header{"error at"};
        for (double const share : shares) {
            header.push_back(number("%.0f %%", 100 * share));
        }
        io::table table(header);
        for (auto const& series : one.series) {
            std::vector<std::string> row{series.name};
            for (double const share : shares) {
                double const error = error_at(series, share);
                row.push_back(error < 0 ? "" : number("%.4f", error));
            }
            table.add(row);
        }
        text += one.model + ", layers " + one.layers + "\n" + table.markdown() + "\n";
    }
    return text;
}

nlohmann::ordered_json to_json(std::vector<frontier> const& frontiers) {
    return {{"frontiers", detail::value_to_json(frontiers)}};
}

} // namespace sofattn::attend
