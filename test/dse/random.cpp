// SPDX-License-Identifier: MIT
#include "support/generators.hpp"
#include <sofattn/dse/random.hpp>

#include <doctest/doctest.h>

#include <array>
#include <cmath>
#include <cstddef>
#include <set>

using namespace sofattn;
using dse::random_stream;

TEST_CASE("dse.random: the same seed and stream give the same numbers, others give others") {
    std::set<std::uint64_t> firsts;
    for (std::uint64_t seed = 0; seed < 30; ++seed) {
        for (std::uint64_t stream = 0; stream < 30; ++stream) {
            random_stream a(seed, stream);
            random_stream b(seed, stream);
            firsts.insert(a.next());
            static_cast<void>(b.next());
            CHECK(a.next() == b.next());
        }
    }
    CHECK(firsts.size() == 900);
    // Numbers of one stream are not those of another, moved.
    random_stream a(1, 0);
    std::set<std::uint64_t> of_a;
    for (int n = 0; n < 1000; ++n) {
        of_a.insert(a.next());
    }
    random_stream b(1, 1);
    for (int n = 0; n < 1000; ++n) {
        CHECK_FALSE(of_a.contains(b.next()));
    }
}

TEST_CASE("dse.random: integers are uniform over any count") {
    for (index_t const count : {1, 2, 3, 7, 16}) {
        CAPTURE(count);
        random_stream random(5, static_cast<std::uint64_t>(count));
        std::array<int, 16> seen{};
        constexpr int draws = 16000;
        for (int n = 0; n < draws; ++n) {
            index_t const drawn = random.below(count);
            REQUIRE(drawn >= 0);
            REQUIRE(drawn < count);
            ++seen[static_cast<std::size_t>(drawn)];
        }
        double const expected = static_cast<double>(draws) / static_cast<double>(count);
        for (index_t v = 0; v < count; ++v) { // within 5 deviations
            CHECK(std::abs(seen[static_cast<std::size_t>(v)] - expected) <=
                  5.0 * std::sqrt(expected));
        }
    }
}

TEST_CASE("dse.random: unit numbers and exponential ones have their means") {
    random_stream random(9, 9);
    double units = 0.0;
    double exponentials = 0.0;
    constexpr int draws = 100000;
    for (int n = 0; n < draws; ++n) {
        double const u = random.unit();
        REQUIRE(u >= 0.0);
        REQUIRE(u < 1.0);
        units += u / draws;
        double const e = random.exponential();
        REQUIRE(e >= 0.0);
        exponentials += e / draws;
    }
    CHECK(std::abs(units - 0.5) < 0.005);
    CHECK(std::abs(exponentials - 1.0) < 0.016);
}
