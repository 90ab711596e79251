// SPDX-License-Identifier: MIT
#include "support/generators.hpp"
#include <sofattn/core/order.hpp>
#include <sofattn/sads/full_sort.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <numeric>
#include <span>
#include <utility>
#include <vector>

namespace {

using namespace sofattn;
using sads::sort_by_network;

std::uint64_t comparators_for(std::size_t length) {
    std::vector<int> wires(length);
    return sort_by_network(std::span(wires), [](int a, int b) { return a > b; });
}

} // namespace

// The zero-one principle: these inputs are the proof for all inputs of these lengths.
TEST_CASE("sads.full_sort: all zero-one inputs up to length 12 are sorted") {
    for (std::size_t length = 0; length <= 12; ++length) {
        bool all_sorted = true;
        for (std::uint32_t input = 0; input < (1u << length); ++input) {
            std::vector<int> wires(length);
            for (std::size_t i = 0; i < length; ++i) {
                wires[i] = static_cast<int>((input >> i) & 1u);
            }
            sort_by_network(std::span(wires), [](int a, int b) { return a > b; });
            all_sorted = all_sorted && std::ranges::is_sorted(wires, std::greater{});
        }
        CAPTURE(length);
        CHECK(all_sorted);
    }
}

TEST_CASE("sads.full_sort: every length from 0 to 130 is sorted into the total order") {
    SOFATTN_GENERATOR(random);
    auto const before = [](auto const& a, auto const& b) { return comes_before(a, b); };
    for (std::size_t length = 0; length <= 130; ++length) {
        for (int const spread : {0, 1, 3, 1000}) {
            std::vector<ranked<int>> wires(length);
            for (std::size_t i = 0; i < length; ++i) {
                wires[i] = {random.integer(-spread, spread), static_cast<key_id>(i)};
            }
            random.shuffle(wires);
            std::vector<ranked<int>> expected = wires;
            std::ranges::sort(expected, [](auto const& a, auto const& b) {
                return std::pair(-a.score, a.key) < std::pair(-b.score, b.key);
            });
            sort_by_network(std::span(wires), before);
            CAPTURE(length);
            REQUIRE(wires == expected);
        }
    }
}

// Knuth 5.2.2, exercise 10: (t^2 - t + 4) 2^(t-2) - 1 comparators sort 2^t entries.
TEST_CASE("sads.full_sort: powers of two take the known number of comparators") {
    CHECK(comparators_for(0) == 0);
    CHECK(comparators_for(1) == 0);
    CHECK(comparators_for(2) == 1);
    CHECK(comparators_for(4) == 5);
    CHECK(comparators_for(8) == 19);
    CHECK(comparators_for(16) == 63);
    for (std::uint64_t t = 2; t <= 14; ++t) {
        CHECK(comparators_for(std::size_t{1} << t) ==
              (t * t - t + 4) * (std::uint64_t{1} << (t - 2)) - 1);
    }
}

TEST_CASE("sads.full_sort: a longer row never takes fewer comparators") {
    std::uint64_t last = 0;
    for (std::size_t length = 1; length <= 130; ++length) {
        std::uint64_t const now = comparators_for(length);
        CHECK(now >= last);
        last = now;
    }
}

TEST_CASE("sads.full_sort: it calls `before` once per comparator, whatever the data") {
    SOFATTN_GENERATOR(random);
    for (std::size_t length : {std::size_t{5}, std::size_t{16}, std::size_t{77}}) {
        std::vector<int> wires(length);
        std::iota(wires.begin(), wires.end(), 0);
        for (int round = 0; round < 20; ++round) {
            random.shuffle(wires);
            std::uint64_t calls = 0;
            std::uint64_t const declared = sort_by_network(std::span(wires), [&](int a, int b) {
                ++calls;
                return a > b;
            });
            REQUIRE(calls == declared);
            REQUIRE(declared == comparators_for(length));
        }
    }
}
