// SPDX-License-Identifier: MIT
#include "dse/head_curves.hpp"

#include "support/generators.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

using namespace sofattn::dse;
using namespace sofattn::test;

namespace {

using samples = std::vector<std::vector<std::vector<head_sample>>>;

/// KL c e^2, kept share k e^-p: powers, so that interpolation is exact. [layer][head][setting]
samples powers(generator& random, std::size_t layers, std::size_t heads) {
    samples all(layers);
    for (auto& layer : all) {
        for (std::size_t h = 0; h < heads; ++h) {
            double const cost = std::exp(random.uniform(-3.0, 3.0));
            double const kept = random.uniform(0.005, 0.03);
            double const power = random.uniform(0.2, 0.6);
            layer.emplace_back();
            for (double const e : {0.001, 0.01, 0.1, 1.0}) {
                layer.back().push_back({e, kept * std::pow(e, -power), cost * e * e, e});
            }
        }
    }
    return all;
}

} // namespace

TEST_CASE("dse.head_curves: heads pay the same price, and the sum is what was asked for") {
    SOFATTN_GENERATOR(random);
    for (int n = 0; n < 10; ++n) {
        auto const given = powers(random, 3, 4);
        head_curves const curves(given);
        CHECK(curves.layers() == 3);
        std::vector<double> const even(3, 1.0);
        auto const a = curves.at(even, 0.02);
        CHECK(a.predicted_kl <= 0.02);
        CHECK(a.predicted_kl > 0.9 * 0.02);
        double kl = 0;
        double kept = 0;
        double least = 1e300; // price: KL per kept key at the margin, from the powers
        double most = 0;
        for (std::size_t l = 0; l < 3; ++l) {
            for (std::size_t h = 0; h < 4; ++h) {
                head_sample const& s = a.heads[l][h];
                kl += s.kl;
                kept += s.kept_share / 12;
                double const power =
                    std::log(given[l][h][0].kept_share / given[l][h][1].kept_share) /
                    std::log(10.0);
                CHECK(s.kl == doctest::Approx(given[l][h][0].kl * std::pow(s.spreads / 0.001, 2)));
                double const price = 2 * s.kl / (power * s.kept_share);
                if (s.spreads > 0.0011 && s.spreads < 0.9) { // not at an end
                    least = std::min(least, price);
                    most = std::max(most, price);
                }
            }
        }
        CHECK(kl == doctest::Approx(a.predicted_kl));
        CHECK(kept == doctest::Approx(a.kept_share));
        // A step between settings moves a price by half, up or down.
        CHECK(most < 3 * least);
        // No better than the best uniform budget would be a bad allocation.
        double cost = 0;
        for (auto const& layer : given) {
            for (auto const& head : layer) {
                cost += head[3].kl;
            }
        }
        double const e = std::sqrt(0.02 / cost);
        double uniform = 0;
        for (auto const& layer : given) {
            for (auto const& head : layer) {
                double const power =
                    std::log(head[0].kept_share / head[1].kept_share) / std::log(10.0);
                uniform += head[3].kept_share * std::pow(e, -power) / 12;
            }
        }
        CHECK(a.kept_share < uniform);
    }
}

TEST_CASE("dse.head_curves: a layer of more weight gets smaller errors") {
    SOFATTN_GENERATOR(random);
    auto given = powers(random, 1, 5);
    given.push_back(given.front());
    head_curves const curves(given);
    auto const a = curves.at({4.0, 0.5}, 0.02);
    CHECK(a.predicted_kl <= 0.02);
    CHECK(a.predicted_kl > 0.9 * 0.02);
    double first = 0;
    double second = 0;
    for (std::size_t h = 0; h < 5; ++h) {
        CHECK(a.heads[0][h].spreads <= a.heads[1][h].spreads);
        first += a.heads[0][h].kl;
        second += a.heads[1][h].kl;
    }
    CHECK(first < second / 2);
    // A common factor of all weights changes nothing but where steps fall.
    auto const scaled = curves.at({8.0, 1.0}, 0.02);
    CHECK(scaled.kept_share == doctest::Approx(a.kept_share).epsilon(0.02));
    CHECK(a.spreads().at(1).at(4) == a.heads[1][4].spreads);
}

TEST_CASE("dse.head_curves: beyond what was measured, the ends") {
    SOFATTN_GENERATOR(random);
    head_curves const curves(powers(random, 2, 2));
    for (auto const& layer : curves.at({1.0, 1.0}, 1e-12).spreads()) {
        CHECK(layer == std::vector<double>(2, layer.front()));
        CHECK(layer.front() == doctest::Approx(0.001));
    }
    for (auto const& layer : curves.at({1.0, 1.0}, 1e6).spreads()) {
        CHECK(layer.front() == doctest::Approx(1.0));
    }
}
