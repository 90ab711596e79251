// SPDX-License-Identifier: MIT
#include "support/generators.hpp"
#include <sofattn/core/hadamard.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <numeric>
#include <vector>

using namespace sofattn;

namespace {

constexpr index_t all_dims[] = {1, 2, 3, 6, 12, 24, 64, 80, 96, 128, 255, 256};

std::vector<double> random_row(test::generator& random, index_t dim, test::spread kind) {
    auto const row = test::random_matrix<float, axis::dim>(random, {dim}, kind);
    std::vector<double> wide;
    for (index_t d = 0; d < dim; ++d) {
        wide.push_back(static_cast<double>(row(d)));
    }
    return wide;
}

/// Small enough that every sum is exact.
std::vector<double> random_integers(test::generator& random, index_t dim) {
    std::vector<double> row(static_cast<std::size_t>(dim));
    std::ranges::generate(row, [&] { return static_cast<double>(random.integer(-1000, 1000)); });
    return row;
}

std::vector<double> rotated(std::vector<double> row) {
    hadamard_rotate(row);
    return row;
}

/// In place, pair by pair: the order of additions that rotations promise.
std::vector<double> rotated_by_pairs(std::vector<double> row) {
    auto const block = static_cast<std::size_t>(hadamard_block(std::ssize(row)));
    for (std::size_t half = 1; half < block; half *= 2) {
        for (std::size_t i = 0; i < row.size(); ++i) {
            if ((i & half) == 0) {
                double const a = row[i];
                double const b = row[i + half];
                row[i] = a + b;
                row[i + half] = a - b;
            }
        }
    }
    for (double& x : row) {
        x /= static_cast<double>(block);
    }
    return row;
}

double dot(std::vector<double> const& a, std::vector<double> const& b) {
    return std::inner_product(a.begin(), a.end(), b.begin(), 0.0);
}

double largest(std::vector<double> const& row) {
    double most = 0;
    for (double const x : row) {
        most = std::max(most, std::abs(x));
    }
    return most;
}

constexpr std::array<double, 6> turned_by_hand() {
    std::array<double, 6> row{5.0, 3.0, 0.0, -1.0, 7.0, 7.0};
    hadamard_rotate(row);
    return row;
}

} // namespace

TEST_CASE("core.hadamard: the block is the largest power of two that divides the row") {
    static_assert(hadamard_block(1) == 1 && hadamard_block(2) == 2);
    static_assert(hadamard_block(6) == 2 && hadamard_block(12) == 4);
    static_assert(hadamard_block(64) == 64 && hadamard_block(128) == 128);
    static_assert(hadamard_block(80) == 16);
    CHECK(hadamard_block(96) == 32);
}

TEST_CASE("core.hadamard: rows of 4 and 6 by hand") {
    CHECK(rotated({1.0, 2.0, 3.0, 4.0}) == std::vector{2.5, -0.5, -1.0, 0.0});
    static_assert(turned_by_hand() == std::array{4.0, 1.0, -0.5, 0.5, 7.0, 0.0}); // pairs
    CHECK(rotated({3.0, 1.0, 2.0}) == std::vector{3.0, 1.0, 2.0});                // odd: as it was
}

TEST_CASE("core.hadamard: elements are means of their block with the signs of Sylvester's matrix") {
    SOFATTN_GENERATOR(random);
    for (index_t const dim : all_dims) {
        CAPTURE(dim);
        auto const row = random_integers(random, dim);
        auto const block = static_cast<std::size_t>(hadamard_block(dim));
        std::vector<double> expected;
        for (std::size_t i = 0; i < row.size(); ++i) {
            double sum = 0;
            for (std::size_t j = 0; j < block; ++j) {
                bool const minus = std::popcount(i % block & j) % 2 != 0;
                double const x = row[i - i % block + j];
                sum += minus ? -x : x;
            }
            expected.push_back(sum / static_cast<double>(block));
        }
        CHECK(rotated(row) == expected);
    }
}

TEST_CASE("core.hadamard: the same bits as sums pair by pair, where every sum is rounded") {
    SOFATTN_GENERATOR(random);
    auto const check = [&](index_t dim) {
        std::vector<double> row(static_cast<std::size_t>(dim));
        // Magnitudes so far apart that the order of additions is seen.
        std::ranges::generate(row,
                              [&] { return std::ldexp(random.normal(), random.integer(-70, 70)); });
        auto const expected = rotated_by_pairs(row);
        if (rotated(row) != expected) {
            FAIL_CHECK("dim ", dim);
        }
    };
    for (index_t dim = 0; dim <= 300; ++dim) {
        check(dim);
    }
    for (index_t const dim : {512, 768, 1024, 1280, 2048}) { // blocks of several runs
        check(dim);
    }
}

TEST_CASE("core.hadamard: products of rotated rows are those of the rows, over the block") {
    SOFATTN_GENERATOR(random);
    for (index_t const dim : all_dims) {
        for (auto const kind : test::all_spreads) {
            CAPTURE(dim);
            auto const a = random_row(random, dim, kind);
            auto const b = random_row(random, dim, kind);
            auto const block = static_cast<double>(hadamard_block(dim));
            double const off = block * dot(rotated(a), rotated(b)) - dot(a, b);
            CHECK(std::abs(off) <= 1e-13 * std::sqrt(dot(a, a) * dot(b, b)));
        }
    }
}

TEST_CASE("core.hadamard: twice is the row over the block") {
    SOFATTN_GENERATOR(random);
    for (index_t const dim : all_dims) {
        CAPTURE(dim);
        auto const row = random_integers(random, dim);
        auto back = rotated(rotated(row));
        for (double& x : back) {
            x *= static_cast<double>(hadamard_block(dim));
        }
        CHECK(back == row);
    }
}

TEST_CASE("core.hadamard: no element leaves the range of the row, not even at the end of floats") {
    SOFATTN_GENERATOR(random);
    constexpr float most = std::numeric_limits<float>::max();
    for (index_t const dim : all_dims) {
        CAPTURE(dim);
        for (auto const kind : test::all_spreads) {
            auto const row = random_row(random, dim, kind);
            CHECK(largest(rotated(row)) <= largest(row));
        }
        std::vector<double> equal(static_cast<std::size_t>(dim), static_cast<double>(most));
        CHECK(static_cast<float>(largest(rotated(equal))) == most);
        for (double& x : equal) {
            x = random.chance(0.5) ? -x : x;
        }
        CHECK(static_cast<float>(largest(rotated(equal))) <= most);
    }
}

TEST_CASE("core.hadamard: a large channel is spread evenly over its block") {
    std::vector<double> row(80);
    row[37] = -1000.0;
    auto const spread = rotated(row);
    for (std::size_t i = 0; i < row.size(); ++i) {
        CHECK(std::abs(spread[i]) == (i / 16 == 37 / 16 ? 1000.0 / 16.0 : 0.0));
    }
}

TEST_CASE("core.hadamard: two additions per butterfly, half a block of them per stage") {
    for (index_t const dim : all_dims) {
        CAPTURE(dim);
        index_t const block = hadamard_block(dim);
        auto const stages =
            static_cast<index_t>(std::bit_width(static_cast<std::uint64_t>(block))) - 1;
        CHECK(hadamard_adds(dim) == dim / block * stages * (block / 2) * 2);
    }
    static_assert(hadamard_adds(4) == 8); // by hand: 1+2, 1-2, 3+4, 3-4, and four of these
    CHECK(hadamard_adds(80) == 5 * 16 * 4);
}
