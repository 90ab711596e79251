// SPDX-License-Identifier: MIT
#include "dse/layers.hpp"

#include "attend/evaluate.hpp"
#include "support/generators.hpp"
#include "support/tool.hpp"
#include <sofattn/core/error.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <utility>
#include <vector>

using namespace sofattn;
using namespace sofattn::dse;

namespace {

std::vector<attend::layer> two_layers() {
    test::recorded_folder const recorded;
    auto const data = attend::dataset::of_folder(recorded.folder.path());
    return {data.load(0), data.load(1)};
}

} // namespace

TEST_CASE("dse.layers: a point is what the policy does with each layer at its setting") {
    layer_options options;
    options.queries = 3;
    options.most_error = 0.5;
    layer_problem problem(two_layers(), options);
    REQUIRE(problem.space().size() == 4);
    point p = problem.uniform({2, 50});
    p[1] = 2; // layer 1: Tc = 6
    p[3] = 3; // k = 20 %
    auto const settings = problem.settings_of(p);
    CHECK(settings == std::vector<layer_setting>{{2, 50}, {6, 20}});
    auto const found = problem.evaluate(p);

    double error_sum = 0;
    double operations = 0;
    for (std::size_t l = 0; l < 2; ++l) {
        auto policy = attend::find_policy("paper");
        policy.options.budget.ratio = static_cast<double>(settings[l].kept_percent) / 100;
        policy.options.tile_keys = l == 0 ? 3 : 1; // 6 keys
        auto views = attend::layer_views::of(problem.layers()[l]);
        views.queries = views.queries.range<axis::query>(3, 3);
        auto const truth = attend::evaluate(views, std::span(&policy, 1), 1, 0, [](double) {});
        error_sum += attend::mean_quality::of(truth[0].heads).output_error_relative;
        operations += probe::complexity(truth[0].counts, probe::sofa_weights);
    }
    CHECK(found.details.at("error").get<double>() == doctest::Approx(error_sum / 2));
    CHECK(found.details.at("operations").get<double>() == operations);
    CHECK(found.result.objectives[0] == operations);
    CHECK(found.result.violations[0] == doctest::Approx(error_sum / 2 / 0.5 - 1.0));

    CHECK_FALSE(problem.known(settings));
    problem.remember(found.details);
    problem.remember(json()); // of a failed trial
    REQUIRE(problem.known(settings));
    CHECK(problem.known(settings)->operations == operations);
    CHECK(problem.evaluate(p).details == found.details);
}

TEST_CASE("dse.layers: head groups put together are the layer, to the last bit, in any order") {
    SOFATTN_GENERATOR(random);
    layer_options options;
    options.most_error = 0.5;
    layer_problem whole(two_layers(), options);
    for (int round = 0; round < 10; ++round) {
        layer_problem problem(two_layers(), options);
        point p;
        for (dimension const& d : whole.space().dimensions()) {
            p.push_back(random.integer<index_t>(0, (d.highest - d.lowest) / d.step));
        }
        auto const in_groups = problem.in_parts(true);
        auto parts = in_groups.missing(p);
        CHECK(parts.size() == 4); // two layers of two KV heads
        CHECK(problem.in_parts(false).missing(p).size() == 2);
        for (; !parts.empty(); parts.pop_back()) {
            std::swap(parts.back(), parts[random.integer(std::size_t{0}, parts.size() - 1)]);
            CHECK(in_groups.missing(p).size() == parts.size());
            in_groups.keep(parts.back(), in_groups.run(parts.back()));
        }
        CHECK(problem.known(problem.settings_of(p)));
        CHECK(in_groups.combine(p).details == whole.evaluate(p).details);
        CHECK(in_groups.combine(p).result.objectives == whole.evaluate(p).result.objectives);
        CHECK(in_groups.combine(p).result.violations == whole.evaluate(p).result.violations);
    }
}

TEST_CASE("dse.layers: Eq. 2, printed and balanced") {
    for (bool const printed : {true, false}) {
        layer_options options;
        options.goal = printed ? layer_goal::printed : layer_goal::balanced;
        options.one_ratio = true;
        options.eq2 = {0.5, 0.25};
        layer_problem const problem(two_layers(), options);
        REQUIRE(problem.space().size() == 3);
        CHECK(problem.violations_count() == 0);
        auto const found = problem.evaluate(problem.uniform({4, 20}));
        double const third = printed ? 8.0 : 8.0 / 64.0;
        CHECK(found.result.objectives[0] ==
              doctest::Approx(found.details.at("error").get<double>() + 0.5 * 0.25 + 0.25 * third));
        CHECK(found.result.violations.empty());
    }
}

TEST_CASE("dse.layers: the best choice per layer is that of trying all of them") {
    layer_options options;
    options.most_error = 1.0;
    layer_problem problem(two_layers(), options);
    auto const settings = problem.all_settings();
    REQUIRE(settings.size() == 160);
    CHECK_FALSE(problem.best_known(1.0));
    // Made-up figures: error falls with k and Tc, operations grow, differently per layer.
    for (layer_setting const& s : settings) {
        json layers = json::array();
        for (int l = 0; l < 2; ++l) {
            double const k = static_cast<double>(s.kept_percent);
            double const t = static_cast<double>(s.tiles);
            layers.push_back({{"tiles", s.tiles},
                              {"kept_percent", s.kept_percent},
                              {"error", (l + 1) * 2.0 / k + 0.3 / t},
                              {"operations", (3 - l) * k + 7.0 * std::abs(t - 11.5)}});
        }
        problem.remember({{"layers", layers}});
    }
    for (double const most : {0.1, 0.17, 0.4}) {
        CAPTURE(most);
        double least = 1e300;
        for (layer_setting const& a : settings) {
            for (layer_setting const& b : settings) {
                auto const f = problem.known({a, b}).value();
                least = f.error <= most ? std::min(least, f.operations) : least;
            }
        }
        auto const best = problem.best_known(most);
        REQUIRE(best);
        CHECK(problem.known(*best)->error <= most);
        CHECK(problem.known(*best)->operations == least);
    }
    CHECK_FALSE(problem.best_known(0.01));
}

TEST_CASE(
    "dse.layers: what evaluations measured is recombined, never worse than the best of them") {
    SOFATTN_GENERATOR(random);
    layer_options options;
    options.most_error = 1.0;
    layer_problem const problem(two_layers(), options);
    auto const settings = problem.all_settings();
    for (int round = 0; round < 20; ++round) {
        std::vector<json> details;
        struct one {
            double error;
            double operations;
        };
        std::array<std::vector<one>, 2> measured;
        double best_evaluation = 1e300;
        for (int n = 0; n < 12; ++n) {
            json layers = json::array();
            one sum{0, 0};
            for (auto& of_layer : measured) {
                // Another setting each time, so that no figures are replaced.
                layer_setting const s = settings[static_cast<std::size_t>(13 * n)];
                one const f{random.uniform(0, 2), random.uniform(1, 9)};
                of_layer.push_back(f);
                layers.push_back({{"tiles", s.tiles},
                                  {"kept_percent", s.kept_percent},
                                  {"error", f.error},
                                  {"operations", f.operations}});
                sum = {sum.error + f.error / 2, sum.operations + f.operations};
            }
            details.push_back({{"layers", layers}});
            details.emplace_back(); // a failed one tells nothing
            best_evaluation =
                sum.error <= 0.7 ? std::min(best_evaluation, sum.operations) : best_evaluation;
        }
        double least = 1e300;
        for (one const& a : measured[0]) {
            for (one const& b : measured[1]) {
                least = a.error / 2 + b.error / 2 <= 0.7
                            ? std::min(least, a.operations + b.operations)
                            : least;
            }
        }
        auto const found = problem.recombined(details, 0.7);
        REQUIRE(found.has_value() == (least < 1e300));
        if (found) {
            layer_problem with = problem;
            for (json const& d : details) {
                with.remember(d);
            }
            CHECK(with.known(*found)->operations == doctest::Approx(least));
            CHECK(with.known(*found)->error <= 0.7);
            CHECK(least <= best_evaluation);
        }
    }
    CHECK_FALSE(problem.recombined({}, 1.0));
}

TEST_CASE("dse.layers: k may go beyond Algorithm 1's, for a layer and for all alike") {
    layer_options options;
    options.most_error = 1.0;
    options.kept_percent_most = 100;
    layer_problem problem(two_layers(), options);
    CHECK(problem.all_settings().size() == 320);
    point const all_kept = problem.uniform({2, 100});
    CHECK(problem.space().contains(all_kept));
    auto const found = problem.evaluate(all_kept);
    CHECK(found.details.at("error").get<double>() < 1e-6); // nothing is dropped
    problem.remember(found.details);
    CHECK(problem.known(std::vector<layer_setting>{{2, 100}, {2, 100}}));
    for (index_t const most : {0, 4, 52, 105}) {
        options.kept_percent_most = most;
        CHECK_THROWS_AS(layer_problem(two_layers(), options), error);
    }
}

TEST_CASE("dse.layers: what cannot be searched is refused") {
    CHECK_THROWS_AS(layer_problem({}, {}), error);
    layer_options options;
    options.policy = "recommended"; // keeps what an error asks for
    CHECK_THROWS_AS(layer_problem(two_layers(), options), error);
}
