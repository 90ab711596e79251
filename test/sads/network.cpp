// SPDX-License-Identifier: MIT
#include "support/generators.hpp"
#include <sofattn/core/order.hpp>
#include <sofattn/sads/network.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <span>
#include <vector>

namespace {

using namespace sofattn;
using sads::best_four;
using sads::network_16_to_4;
using sads::network_inputs;
using sads::network_outputs;

using wires = std::array<ranked<int>, network_inputs>;

} // namespace

TEST_CASE("sads.network: it has 44 comparators, of the 80 of a full bitonic sorter of 16") {
    CHECK(network_16_to_4.size() == 44);
    CHECK(sads::network_new_inputs == 12);
}

TEST_CASE("sads.network: every comparator joins two wires that exist and differ") {
    for (sads::comparator const c : network_16_to_4) {
        CHECK(c.better < network_inputs);
        CHECK(c.worse < network_inputs);
        CHECK(c.better != c.worse);
    }
}

// By the zero-one principle this is the proof for all inputs: a monotone map commutes with every
// comparator, so a network that selects from zeros and ones selects from anything.
TEST_CASE("sads.network: all 2^16 zero-one inputs leave the best four on wires 0 to 3, in order") {
    std::uint32_t wrong = 0;
    for (std::uint32_t input = 0; input < (1u << network_inputs); ++input) {
        wires w{};
        for (std::size_t i = 0; i < network_inputs; ++i) {
            w[i].score = static_cast<int>((input >> i) & 1u);
        }
        best_four(w);
        auto const ones = static_cast<std::size_t>(std::popcount(input));
        for (std::size_t i = 0; i < network_outputs; ++i) {
            wrong += w[i].score == (i < ones ? 1 : 0) ? 0u : 1u;
        }
    }
    CHECK(wrong == 0);
}

TEST_CASE("sads.network: every comparator is needed") {
    // Without any single one of them some zero-one input comes out wrong.
    for (std::size_t gone = 0; gone < network_16_to_4.size(); ++gone) {
        bool fails = false;
        for (std::uint32_t input = 0; input < (1u << network_inputs) && !fails; ++input) {
            std::uint32_t w = input;
            for (std::size_t c = 0; c < network_16_to_4.size(); ++c) {
                auto const [better, worse] = network_16_to_4[c];
                if (c != gone && ((w >> worse) & 1u) > ((w >> better) & 1u)) {
                    w ^= (1u << worse) | (1u << better);
                }
            }
            auto const ones = std::min(std::popcount(input), static_cast<int>(network_outputs));
            fails = (w & 0xfu) != (1u << ones) - 1u;
        }
        CAPTURE(gone);
        CHECK(fails);
    }
}

TEST_CASE("sads.network: random integers with ties agree with std::sort in the total order") {
    SOFATTN_GENERATOR(random);
    for (int round = 0; round < 20000; ++round) {
        int const spread = 1 + round % 12; // few values: many ties
        std::vector<key_id> keys(network_inputs);
        std::iota(keys.begin(), keys.end(), 0);
        random.shuffle(keys);
        wires w{};
        for (std::size_t i = 0; i < network_inputs; ++i) {
            w[i] = {random.integer(-spread, spread), keys[i]};
        }
        wires expected = w;
        std::ranges::sort(expected, [](auto const& a, auto const& b) {
            return a.score != b.score ? a.score > b.score : a.key < b.key;
        });
        best_four(w);
        REQUIRE(std::ranges::equal(std::span(w).first<network_outputs>(),
                                   std::span(expected).first<network_outputs>()));
        auto const by_key = [](auto const& a, auto const& b) { return a.key < b.key; };
        std::ranges::sort(w, by_key); // a network moves entries, it loses none
        std::ranges::sort(expected, by_key);
        REQUIRE(w == expected);
    }
}

TEST_CASE("sads.network: it runs at compile time") {
    constexpr auto best = [] {
        wires w{};
        for (std::size_t i = 0; i < network_inputs; ++i) {
            w[i] = {static_cast<int>(i * 7 % 16), static_cast<key_id>(i)};
        }
        best_four(w);
        return w;
    }();
    static_assert(best[0].score == 15 && best[1].score == 14 && best[2].score == 13 &&
                  best[3].score == 12);
}
