// SPDX-License-Identifier: MIT
#include "support/generators.hpp"
#include <sofattn/dse/elementary.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numbers>

namespace {

using namespace sofattn;
using namespace sofattn::dse;

/// In units in the last place of the double next to `truth`.
double ulps(double value, long double truth) {
    auto const near = std::abs(static_cast<double>(truth));
    double const ulp = std::nextafter(near, std::numeric_limits<double>::infinity()) - near;
    return static_cast<double>(std::abs(static_cast<long double>(value) - truth)) / ulp;
}

/// Share of the standard normal distribution below z.
long double true_share(long double z) {
    return 0.5L * std::erfc(-z / std::numbers::sqrt2_v<long double>);
}

} // namespace

TEST_CASE("dse.elementary: the exponential is within 2 units in the last place") {
    SOFATTN_GENERATOR(random);
    double worst = 0.0;
    for (int n = 0; n < 200000; ++n) {
        double const x = random.uniform(-700.0, 700.0) * (n % 2 == 0 ? 1.0 : 1e-3);
        worst = std::max(worst, ulps(exponential(x), std::exp(static_cast<long double>(x))));
    }
    CHECK(worst <= 2.0);
    CHECK(exponential(0.0) == 1.0);
    CHECK(exponential(-1e300) == exponential(-708.0));
    CHECK(exponential(1e300) == exponential(709.0));
    CHECK(std::isfinite(exponential(1e300)));
}

TEST_CASE("dse.elementary: the logarithm is within 3 units in the last place") {
    SOFATTN_GENERATOR(random);
    double worst = 0.0;
    for (int n = 0; n < 200000; ++n) {
        double const x =
            n % 2 == 0 ? std::exp(random.uniform(-700.0, 700.0)) : random.uniform(0.5, 2.0);
        worst = std::max(worst, ulps(logarithm(x), std::log(static_cast<long double>(x))));
    }
    CHECK(worst <= 3.0);
    CHECK(logarithm(1.0) == 0.0);
    CHECK(ulps(logarithm(5e-324), std::log(static_cast<long double>(5e-324))) <=
          3.0); // the least there is
}

TEST_CASE("dse.elementary: shares of the normal distribution are right in both tails") {
    SOFATTN_GENERATOR(random);
    double worst = 0.0;
    for (int n = 0; n < 20000; ++n) {
        double const z = random.uniform(-30.0, 8.0);
        auto const truth = static_cast<double>(true_share(z));
        worst = std::max(worst, std::abs(normal_share(z) / truth - 1.0));
        CHECK(log_normal_share(z) ==
              doctest::Approx(static_cast<double>(std::log(true_share(z)))).epsilon(1e-11));
    }
    CHECK(worst <= 1e-12);
    CHECK(std::isfinite(log_normal_share(-1e100)));
}

TEST_CASE("dse.elementary: the expected gain is the integral of what lies beyond the bar") {
    for (double const z : {-6.0, -3.001, -3.0, -2.999, -1.0, 0.0, 0.7, 2.0, 5.0}) {
        CAPTURE(z);
        // Simpson over t of density(t) max(z + t, 0).
        constexpr int steps = 200000;
        double const from = -z;
        double const width = (std::max(from, 0.0) + 14.0 - from) / steps;
        long double sum = 0.0L;
        for (int i = 0; i <= steps; ++i) {
            long double const t =
                static_cast<long double>(from) + static_cast<long double>(i) * width;
            long double const weight = i == 0 || i == steps ? 1.0L : i % 2 == 1 ? 4.0L : 2.0L;
            sum += weight * (t + z) * std::exp(-0.5L * t * t);
        }
        auto const truth = static_cast<double>(
            std::log(sum * width / 3.0L / std::sqrt(2.0L * std::numbers::pi_v<long double>)));
        CHECK(log_expected_gain(z) == doctest::Approx(truth).epsilon(1e-9));
    }
    CHECK(log_expected_gain(-1e3) > log_expected_gain(-1e3 - 1.0));
    CHECK(std::isfinite(log_expected_gain(-1e6)));
}

TEST_CASE("dse.elementary: the same bits with every compiler and C library") {
    // Computed once with GCC 12 on x86-64; Clang 14 must agree.
    std::uint64_t mixed = 0;
    test::generator random(7);
    for (int n = 0; n < 1000; ++n) {
        double const x = random.uniform(-40.0, 10.0);
        for (double const value : {exponential(x), logarithm(x + 41.0), log_expected_gain(x),
                                   normal_share(x), log_normal_share(x)}) {
            mixed = std::rotl(mixed, 5) ^ std::bit_cast<std::uint64_t>(value);
        }
    }
    CHECK(mixed == 6940421947890285258u);
}
