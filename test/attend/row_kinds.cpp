// SPDX-License-Identifier: MIT
#include "attend/row_kinds.hpp"

#include "support/generators.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <numeric>
#include <span>
#include <vector>

using namespace sofattn;
using attend::kind_of;
using attend::row_kind;
using attend::row_rule;

namespace {

/// A row whose softmax is proportional to `weights`.
row_kind kind_of_row(std::vector<double> weights, row_rule const& rule = {}) {
    double const sum = std::accumulate(weights.begin(), weights.end(), 0.0);
    for (double& w : weights) {
        w /= sum;
    }
    std::vector<key_id> order(weights.size());
    std::iota(order.begin(), order.end(), key_id{0});
    std::ranges::stable_sort(order, [&](key_id a, key_id b) {
        return weights[static_cast<std::size_t>(a)] > weights[static_cast<std::size_t>(b)];
    });
    return kind_of(rule, weights, order);
}

/// 64 keys of weight 1e-6 but for `dominant` of weight 1, `step` apart from `first` on.
row_kind kind_with(index_t dominant, index_t first, index_t step) {
    std::vector<double> weights(64, 1e-6);
    for (index_t n = 0; n < dominant; ++n) {
        weights[static_cast<std::size_t>(first + n * step)] = 1;
    }
    return kind_of_row(weights);
}

} // namespace

TEST_CASE("attend.row_kinds: how many keys dominate and where decides") {
    CHECK(kind_with(1, 63, 1) == row_kind::few);
    CHECK(kind_with(4, 0, 16) == row_kind::few);
    CHECK(kind_with(5, 0, 1) == row_kind::concentrated); // 4 of them carry a little less than 80 %
    CHECK(kind_with(6, 0, 10) == row_kind::spread);
    CHECK(kind_with(6, 16, 2) == row_kind::concentrated);
    CHECK(kind_with(16, 48, 1) == row_kind::concentrated); // the last region, to its last key
    CHECK(kind_with(16, 8, 1) == row_kind::spread);        // half in each of two regions
    CHECK(kind_of_row({1}) == row_kind::few);
    CHECK(kind_of_row(std::vector<double>(64, 1)) == row_kind::spread);
}

TEST_CASE("attend.row_kinds: scaling a row, or turning it round, changes no kind") {
    SOFATTN_GENERATOR(random);
    for (int n = 0; n < 200; ++n) {
        std::vector<double> weights(4 * static_cast<std::size_t>(random.integer(1, 40)));
        for (double& w : weights) {
            auto const x = static_cast<double>(random.integer(1, 1000));
            w = x * x * x * x; // all different sizes: no ties at the cut but of equal ones
        }
        std::ranges::sort(weights);
        weights.erase(std::unique(weights.begin(), weights.end()), weights.end());
        weights.resize(weights.size() / 4 * 4); // regions of a turned row are those of the row
        if (weights.empty()) {
            continue;
        }
        for (std::size_t i = weights.size() - 1; i > 0; --i) {
            std::swap(weights[i],
                      weights[static_cast<std::size_t>(random.integer(0, static_cast<int>(i)))]);
        }
        row_kind const kind = kind_of_row(weights);
        std::vector<double> turned(weights.rbegin(), weights.rend());
        CHECK(kind_of_row(turned) == kind);
        row_rule all;
        all.few_keys = std::ssize(weights);
        CHECK(kind_of_row(weights, all) == row_kind::few);
        row_rule none;
        none.few_keys = 0;
        none.region_share = 0;
        CHECK(kind_of_row(weights, none) == row_kind::concentrated);
    }
}
