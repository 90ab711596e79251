// SPDX-License-Identifier: MIT
#include "core/aborts.hpp"
#include "support/generators.hpp"
#include <sofattn/dlzs/rope.hpp>

#include <doctest/doctest.h>

#include <cmath>
#include <cstddef>
#include <span>
#include <vector>

using namespace sofattn;
using dlzs::rope;
using dlzs::rope_layout;

namespace {

std::vector<float> random_row(test::generator& random, index_t dims) {
    std::vector<float> row(static_cast<std::size_t>(dims));
    for (float& x : row) {
        x = static_cast<float>(random.normal());
    }
    return row;
}

std::vector<float> turned(rope const& by, std::vector<float> row, index_t position) {
    by(std::span(row), position);
    return row;
}

double dot(std::vector<float> const& a, std::vector<float> const& b) {
    double sum = 0;
    for (std::size_t i = 0; i < a.size(); ++i) {
        sum += static_cast<double>(a[i]) * static_cast<double>(b[i]);
    }
    return sum;
}
double norm(std::vector<float> const& a) { return std::sqrt(dot(a, a)); }

constexpr rope_layout both_layouts[] = {rope_layout::interleaved, rope_layout::halves};

/// A pair turned by a rounded (cos, sin) and rounded to float is off by less than this, of its
/// length: cos, sin, and either element by 2^-25, each as a vector of two.
constexpr double turn_error = 4 * 0x1p-25;

} // namespace

TEST_CASE("dlzs.rope: position 0 changes nothing") {
    SOFATTN_GENERATOR(random);
    for (auto const layout : both_layouts) {
        auto const row = random_row(random, 64);
        CHECK(turned(rope(64, layout), row, 0) == row);
    }
}

TEST_CASE("dlzs.rope: pair i turns by position * theta^(-2i / dim)") {
    // dim 4, theta 100: frequencies 1 and 100^(-1/2) = 0.1; position 3 turns by 3 and by 0.3.
    std::vector<float> const row{1.0f, 0.0f, 0.0f, 2.0f}; // pairs (1, 0) and (0, 2)
    auto const out = turned(rope(4, rope_layout::interleaved, 100.0), row, 3);
    CHECK(out[0] == static_cast<float>(std::cos(3.0)));
    CHECK(out[1] == static_cast<float>(std::sin(3.0)));
    CHECK(out[2] == -2.0f * static_cast<float>(std::sin(0.3)));
    CHECK(out[3] == 2.0f * static_cast<float>(std::cos(0.3)));
    // Counter-clockwise: 11 radians are 1.7507 turns, so (1, 0) comes out near (0, -1).
    auto const nearly = turned(rope(2, rope_layout::halves), {1.0f, 0.0f}, 11);
    CHECK(std::abs(nearly[0]) < 0.005f);
    CHECK(nearly[1] < -0.999f);
    CHECK(rope(4, rope_layout::halves).dim() == 4);
}

TEST_CASE("dlzs.rope: norms are preserved, of every pair") {
    SOFATTN_GENERATOR(random);
    for (auto const layout : both_layouts) {
        for (index_t const dims : {2, 8, 64, 256}) {
            rope const by(dims, layout);
            for (index_t const position : {1, 2, 100, 4095, 131072}) {
                auto const row = random_row(random, dims);
                auto const out = turned(by, row, position);
                CHECK(std::abs(norm(out) - norm(row)) <= turn_error * norm(row));
                for (index_t i = 0; i < dims / 2; ++i) {
                    bool const neighbours = layout == rope_layout::interleaved;
                    auto const a = static_cast<std::size_t>(neighbours ? 2 * i : i);
                    auto const b = neighbours ? a + 1 : a + static_cast<std::size_t>(dims / 2);
                    double const before = norm({row[a], row[b]});
                    CHECK(std::abs(norm({out[a], out[b]}) - before) <= turn_error * before);
                }
            }
        }
    }
}

TEST_CASE("dlzs.rope: q.k depends on the distance of positions only") {
    SOFATTN_GENERATOR(random);
    for (auto const layout : both_layouts) {
        for (double const theta : {10000.0, 500000.0}) {
            rope const by(64, layout, theta);
            for (int n = 0; n < 50; ++n) {
                auto const q = random_row(random, 64);
                auto const k = random_row(random, 64);
                auto const at_q = random.integer<index_t>(0, 2000);
                auto const at_k = random.integer<index_t>(0, at_q);
                auto const later = random.integer<index_t>(1, 30000);
                double const here = dot(turned(by, q, at_q), turned(by, k, at_k));
                double const there = dot(turned(by, q, at_q + later), turned(by, k, at_k + later));
                // Either product has two turned rows.
                CHECK(std::abs(here - there) <= 4 * turn_error * norm(q) * norm(k));
                // And at distance 0 it is the plain product.
                double const together = dot(turned(by, q, at_q), turned(by, k, at_q));
                CHECK(std::abs(together - dot(q, k)) <= 2 * turn_error * norm(q) * norm(k));
            }
        }
    }
}

TEST_CASE("dlzs.rope: the layouts are one rotation in two orders of the elements") {
    SOFATTN_GENERATOR(random);
    for (index_t const dims : {2, 6, 64, 256}) {
        auto const half = static_cast<std::size_t>(dims / 2);
        auto const pairs = random_row(random, dims);
        std::vector<float> halves(pairs.size());
        for (std::size_t i = 0; i < half; ++i) {
            halves[i] = pairs[2 * i];
            halves[i + half] = pairs[2 * i + 1];
        }
        auto const out_pairs = turned(rope(dims, rope_layout::interleaved), pairs, 77);
        auto const out_halves = turned(rope(dims, rope_layout::halves), halves, 77);
        for (std::size_t i = 0; i < half; ++i) {
            CHECK(out_halves[i] == out_pairs[2 * i]);
            CHECK(out_halves[i + half] == out_pairs[2 * i + 1]);
        }
    }
}

TEST_CASE("dlzs.rope: bad shapes are errors that name value and limit") {
    CHECK_THROWS_WITH(rope(7, rope_layout::halves),
                      "rope: head dimension is 7, must be positive and even");
    CHECK_THROWS_AS(rope(0, rope_layout::halves), error);
    CHECK_THROWS_AS(rope(-2, rope_layout::halves), error);
    CHECK_THROWS_WITH(rope(8, rope_layout::halves, 1.0),
                      "rope: theta is 1.000000, must be greater than 1");
    CHECK_THROWS_AS(rope(8, rope_layout::halves, std::nan("")), error);
}

TEST_CASE("dlzs.rope: a row of another size is refused") {
    std::vector<float> row(6);
    rope const by(8, rope_layout::halves);
    SOFATTN_CHECK_ABORTS("std::ssize(row) == dim()", by(std::span(row), 1));
}
