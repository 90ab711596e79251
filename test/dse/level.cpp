// SPDX-License-Identifier: MIT
#include "dse/level.hpp"

#include "support/generators.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>

using namespace sofattn::dse;
using namespace sofattn::test;

TEST_CASE("dse.level: powers are reached in a few evaluations, from anywhere") {
    SOFATTN_GENERATOR(random);
    for (int n = 0; n < 200; ++n) {
        double const power = random.uniform(0.3, 4.0);
        double const factor = std::exp(random.uniform(-6.0, 6.0));
        level wanted;
        wanted.most = std::exp(random.uniform(-8.0, 0.0));
        wanted.first = random.uniform(-3.0, 3.0);
        wanted.slope = power * random.uniform(0.7, 1.4);
        int evaluations = 0;
        auto const quantity = [&](double x) {
            ++evaluations;
            return factor * std::exp(power * x);
        };
        auto const x = find_level(quantity, wanted);
        REQUIRE(x);
        CHECK(evaluations <= 20);
        double const value = quantity(*x);
        CHECK(value <= wanted.most);
        CHECK(value > wanted.most * 0.99);
    }
}

TEST_CASE("dse.level: curves that bend, steps, and ends of the range") {
    level wanted;
    wanted.most = 0.5;
    auto const bent = find_level([](double x) { return 1 / (1 + std::exp(-3 * x)); }, wanted);
    REQUIRE(bent);
    CHECK(*bent <= 0.0);
    CHECK(*bent > -0.02);
    // 0.4 up to 1, then 0.6: the best is just below the step.
    auto const step = find_level([](double x) { return x <= 1 ? 0.4 : 0.6; }, wanted);
    REQUIRE(step);
    CHECK(*step <= 1.0);
    CHECK(*step > 0.9);
    wanted.least_at = -2;
    wanted.most_at = 2;
    CHECK(find_level([](double) { return 0.0; }, wanted) == 2.0);
    CHECK_FALSE(find_level([](double) { return 0.6; }, wanted));
    CHECK(find_level([](double x) { return x <= -2 ? 0.1 : 0.6; }, wanted) == -2.0);
}
