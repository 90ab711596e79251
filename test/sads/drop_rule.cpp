// SPDX-License-Identifier: MIT
#include "support/generators.hpp"
#include <sofattn/sads/drop_rule.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numbers>

namespace {

using namespace sofattn;
using sads::drop_measure;
using sads::drop_rule;
using sads::weight_scale;

constexpr std::uint64_t unit = weight_scale::unit;
constexpr std::uint64_t most_mass = std::uint64_t{1} << 61; // 2^31 keys as good as the best
constexpr double octave = std::numbers::ln2;

/// Sums of weights from a few keys to as many as there may be.
std::uint64_t random_mass(test::generator& random) {
    return std::min(unit + (random.next() >> random.integer(3, 33)), most_mass);
}

} // namespace

TEST_CASE("sads.drop_rule: without a measure nothing may be dropped") {
    drop_rule const rule;
    CHECK(rule.measure == drop_measure::nothing);
    for (std::uint64_t mass : {std::uint64_t{0}, unit, most_mass}) {
        CHECK(rule.allowance(mass) == 0);
    }
    CHECK(rule.cost(3, 1) == unit);
}

TEST_CASE("sads.drop_rule: a mass allows the rest of it") {
    auto const quarter = drop_rule::of_mass(0.75, weight_scale(1.0));
    CHECK(quarter.measure == drop_measure::mass);
    CHECK(quarter.allowance(0) == 0);
    CHECK(quarter.allowance(3) == 0);
    CHECK(quarter.allowance(4) == 1);
    CHECK(quarter.allowance(100 * unit) == 25 * unit);
    CHECK(quarter.allowance(most_mass) == most_mass / 4);
    CHECK(drop_rule::of_mass(1.0, weight_scale(1.0)).allowance(most_mass) == 0);
    // A mass too small to tell from none.
    CHECK(drop_rule::of_mass(1e-300, weight_scale(1.0)).allowance(most_mass) == most_mass);
}

TEST_CASE("sads.drop_rule: the allowance of a mass never exceeds 1 - p of it, and nearly is") {
    SOFATTN_GENERATOR(random);
    for (int round = 0; round < 20000; ++round) {
        double const kept = random.uniform(0.0, 1.0) + 0x1p-54; // never 0
        std::uint64_t const mass = random_mass(random);
        auto const total = static_cast<long double>(mass);
        auto const allowed =
            static_cast<long double>(drop_rule::of_mass(kept, weight_scale(1.0)).allowance(mass));
        CAPTURE(kept);
        CAPTURE(mass);
        long double const rest = (1.0L - static_cast<long double>(kept)) * total;
        REQUIRE(allowed <= rest + total * 0x1p-54L); // 1 - p is rounded
        REQUIRE(allowed > rest - total * 0x1.01p-32L - 1.0L);
    }
}

TEST_CASE("sads.drop_rule: an error allows the square of its share of the mass") {
    auto const half = drop_rule::of_error(0.5, weight_scale(1.0));
    CHECK(half.measure == drop_measure::error);
    CHECK(half.allowance(0) == 0);
    CHECK(half.allowance(unit) == unit / 4);
    CHECK(half.allowance(10 * unit) == 25 * unit);
    auto const percent = drop_rule::of_error(0.01, weight_scale(1.0));
    CHECK(percent.allowance(unit) == 107374); // 1e-4 2^30 = 107374.2
    CHECK(percent.allowance(200 * unit) == 4 * unit);
}

TEST_CASE("sads.drop_rule: the allowance of an error is (e L)^2 until it is capped") {
    SOFATTN_GENERATOR(random);
    std::uint64_t const cap = std::uint64_t{1} << 62;
    for (int round = 0; round < 20000; ++round) {
        double const spreads = std::exp2(random.uniform(-40.0, 6.0));
        std::uint64_t const mass = random_mass(random);
        long double const root =
            static_cast<long double>(spreads) * (static_cast<long double>(mass) / 0x1p30L);
        long double const wanted = std::min(root * root * 0x1p30L, 0x1p62L);
        auto const allowed = static_cast<long double>(
            drop_rule::of_error(spreads, weight_scale(1.0)).allowance(mass));
        CAPTURE(spreads);
        CAPTURE(mass);
        REQUIRE(std::abs(allowed - wanted) <= 1.0L + wanted * 0x1p-50L);
        REQUIRE(allowed <= static_cast<long double>(cap));
    }
}

TEST_CASE("sads.drop_rule: tiny errors allow nothing, huge ones all that a row can cost") {
    weight_scale const scale(1.0);
    CHECK(drop_rule::of_error(1e-20, scale).allowance(most_mass) == 0);
    CHECK(drop_rule::of_error(1e-300, scale).allowance(most_mass) == 0);
    std::uint64_t const cap = std::uint64_t{1} << 62;
    for (double spreads : {1e6, 1e100, 1e308}) {
        CAPTURE(spreads);
        CHECK(drop_rule::of_error(spreads, scale).allowance(most_mass) == cap);
        CHECK(drop_rule::of_error(spreads, scale).allowance(0) == 0);
    }
    CHECK(drop_rule::of_error(1e308, scale).allowance(unit) == cap);
}

TEST_CASE("sads.drop_rule: an allowance never falls as mass grows") {
    SOFATTN_GENERATOR(random);
    for (int round = 0; round < 20000; ++round) {
        std::uint64_t const a = random_mass(random);
        std::uint64_t const b = a + random.integer<std::uint64_t>(0, 1000);
        auto const mass = drop_rule::of_mass(random.uniform(0.1, 1.0), weight_scale(1.0));
        auto const error = drop_rule::of_error(random.uniform(1e-3, 2.0), weight_scale(1.0));
        REQUIRE(mass.allowance(a) <= mass.allowance(b));
        REQUIRE(error.allowance(a) <= error.allowance(b));
    }
}

TEST_CASE("sads.drop_rule: a key costs its weight or the square of it") {
    auto const mass = drop_rule::of_mass(0.9, weight_scale(octave));
    auto const error = drop_rule::of_error(0.1, weight_scale(octave));
    for (int away = 0; away < 40; ++away) {
        CAPTURE(away);
        CHECK(mass.cost(7, 7 - away) == (away > 30 ? 0 : unit >> away));
        CHECK(error.cost(7, 7 - away) == (away > 15 ? 0 : unit >> 2 * away));
    }
}
