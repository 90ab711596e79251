// SPDX-License-Identifier: MIT
#include "support/generators.hpp"
#include <sofattn/core/error.hpp>
#include <sofattn/dse/interleaved.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <limits>
#include <string>
#include <vector>

using namespace sofattn;
using namespace sofattn::dse;
using namespace sofattn::test;

namespace {

/// A machine of which each piece of work takes as long as it says, times how slow the machine is then.
struct machine {
    double now = 0;
    double slowness = 1;
    std::string order;

    [[nodiscard]] auto work(char name, double seconds) {
        return [this, name, seconds] {
            order += name;
            now += seconds * slowness;
        };
    }
    [[nodiscard]] auto clock() {
        return [this] { return now; };
    }
};

} // namespace

TEST_CASE("dse.interleaved: the ratio of two times, each first in every other pair") {
    machine m;
    time_ratio const r = interleaved_ratio(m.work('c', 3), m.work('b', 4), m.clock(), {6, 6, 0.95});
    CHECK(m.order == "bc" // nobody looks at these
                     "bccbbccbbccb");
    CHECK(r.pairs == 6);
    CHECK(r.median == 0.75);
    CHECK(r.lowest == 0.75);
    CHECK(r.highest == 0.75);
    CHECK(r.is_surely_less());
}

TEST_CASE("dse.interleaved: a machine that gets slower and slower favours nobody") {
    machine m;
    auto const slower = [&](auto work) {
        return [&m, work] {
            work();
            m.slowness *= 1.1;
        };
    };
    time_ratio const r = interleaved_ratio(slower(m.work('c', 1)), slower(m.work('b', 1)),
                                           m.clock(), {40, 40, 0.95});
    // The second of a pair takes 1.1 times as long, and that is each in every other pair.
    CHECK(r.lowest < 1);
    CHECK(r.highest > 1);
    CHECK(r.median == doctest::Approx((1.1 + 1 / 1.1) / 2));
    CHECK_FALSE(r.is_surely_less());
}

TEST_CASE("dse.interleaved: pairs are added while nothing is sure, up to the most") {
    machine m;
    index_t runs = 0;
    auto const candidate = [&] { m.now += ++runs % 2 == 0 ? 0.9 : 1.1; };
    auto const baseline = [&] { m.now += 1; };
    CHECK(interleaved_ratio(candidate, baseline, m.clock(), {6, 25, 0.95}).pairs == 25);
    CHECK(interleaved_ratio(m.work('c', 2), baseline, m.clock(), {6, 25, 0.95}).pairs == 6);
}

TEST_CASE("dse.interleaved: a clock that stands still is an error") {
    machine m;
    CHECK_THROWS_WITH_AS(static_cast<void>(interleaved_ratio([] {}, [] {}, m.clock())),
                         "interleaved_ratio: seconds of the baseline is 0.000000, must be above 0: "
                         "more work, or a finer "
                         "clock",
                         error);
}

TEST_CASE(
    "dse.interleaved: which order statistics hold the median, as tables of the sign test say") {
    auto const of = [](std::size_t n, double confidence) {
        std::vector<double> numbers;
        for (std::size_t i = n; i > 0; --i) {
            numbers.push_back(static_cast<double>(i));
        }
        return median_ratio(numbers, confidence);
    };
    CHECK(of(1, 0.95).median == 1);
    CHECK(of(4, 0.95).median == 2.5);
    // 5 numbers hold the median with 93.75 %.
    CHECK(of(5, 0.95).lowest == 0);
    CHECK(of(5, 0.95).highest == std::numeric_limits<double>::infinity());
    // Conover, Practical Nonparametric Statistics, table A3: x(r), x(n + 1 - r).
    struct row {
        std::size_t n;
        double confidence;
        double r;
    };
    for (row const& t :
         {row{6, 0.95, 1}, row{9, 0.95, 2}, row{15, 0.95, 4}, row{25, 0.95, 8}, row{31, 0.99, 8}}) {
        CAPTURE(t.n);
        CHECK(of(t.n, t.confidence).lowest == t.r);
        CHECK(of(t.n, t.confidence).highest == static_cast<double>(t.n) + 1 - t.r);
    }
}

TEST_CASE(
    "dse.interleaved: intervals hold the true median as often as they say, whatever the noise") {
    SOFATTN_GENERATOR(random);
    constexpr int rounds = 4000;
    int held = 0;
    int claimed = 0; // that a candidate just as fast is faster
    for (int n = 0; n < rounds; ++n) {
        std::vector<double> ratios;
        for (int i = 0; i < 21; ++i) {
            double const heavy = random.chance(0.2) ? 3 * random.uniform(0, 1) : 0; // interrupts
            double const mine = 1 + 0.01 * random.normal() + heavy;
            double const other = random.chance(0.2) ? 3 * random.uniform(0, 1) : 0;
            ratios.push_back(mine / (1 + 0.01 * random.normal() + other));
        }
        time_ratio const r = median_ratio(ratios, 0.95);
        held += r.lowest <= 1 && r.highest >= 1 ? 1 : 0;
        claimed += r.is_surely_less() ? 1 : 0;
    }
    CHECK(held >= 0.94 * rounds);
    CHECK(held < 0.995 * rounds); // no wider than need be
    CHECK(claimed <= 0.03 * rounds);
}
