// SPDX-License-Identifier: MIT
#include "support/generators.hpp"
#include <sofattn/core/types.hpp>
#include <sofattn/exec/tile_product.hpp>
#include <sofattn/exec/xsimd_lanes.hpp>
#include <sofattn/sufa/weighted_rows.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

using namespace sofattn;

namespace {

std::vector<float> normal_floats(test::generator& random, index_t count) {
    std::vector<float> x(static_cast<std::size_t>(count));
    for (float& value : x) {
        value = static_cast<float>(random.normal());
    }
    return x;
}

constexpr index_t rows = 40;

struct values_case {
    index_t width;
    index_t stride;
    std::vector<float> values;

    values_case(test::generator& random, index_t registers)
        : width(registers * exec::vector_width), stride(width + random.integer<index_t>(0, 20)),
          values(normal_floats(random, rows * stride)) {}
};

} // namespace

TEST_CASE("sufa.weighted_rows: rows with weights, in order, for every width") {
    SOFATTN_GENERATOR(random);
    for (index_t registers = 1; registers <= 19; ++registers) {
        values_case const c(random, registers);
        for (index_t const count : {0, 1, 7, 30}) {
            std::vector<std::int32_t> which(static_cast<std::size_t>(count));
            for (std::int32_t& row : which) {
                row = random.integer(0, static_cast<int>(rows) - 1);
            }
            auto const weights = normal_floats(random, count);
            auto const before = normal_floats(random, c.width + 1);
            auto sums = before;
            sufa::add_weighted_rows(sums.data(), c.width, c.values.data(), c.stride, which.data(),
                                    weights.data(), count);
            for (index_t d = 0; d < c.width; ++d) {
                float right = before[static_cast<std::size_t>(d)];
                for (std::size_t i = 0; i < which.size(); ++i) {
                    right = std::fma(weights[i],
                                     c.values[static_cast<std::size_t>(which[i] * c.stride + d)],
                                     right);
                }
                REQUIRE(sums[static_cast<std::size_t>(d)] == doctest::Approx(right).epsilon(1e-5));
            }
            REQUIRE(sums.back() == before.back());
        }
    }
}

TEST_CASE("sufa.weighted_rows: shared rows add to each sum what they would add alone, to the bit") {
    SOFATTN_GENERATOR(random);
    for (index_t registers = 1; registers <= 19; ++registers) {
        values_case const c(random, registers);
        for (index_t sums = 1; sums <= exec::tile_rows; ++sums) {
            index_t const weight_row = 64;
            auto weights = normal_floats(random, sums * weight_row);
            std::vector<std::int16_t> which;
            std::vector<std::int16_t> weight;
            for (int i = random.integer(0, 25); i > 0; --i) {
                which.push_back(random.integer<std::int16_t>(0, rows - 1));
                weight.push_back(random.integer<std::int16_t>(0, weight_row - 1));
            }
            auto together = normal_floats(random, sums * c.width + 1);
            auto alone = together;
            sufa::add_shared_rows({sums, together.data(), weights.data(), weight_row}, c.width,
                                  c.values.data(), c.stride, which, weight.data());
            std::vector<std::int32_t> const wide(which.begin(), which.end());
            for (index_t r = 0; r < sums; ++r) {
                std::vector<float> own;
                for (std::int16_t const n : weight) {
                    own.push_back(weights[static_cast<std::size_t>(r * weight_row + n)]);
                }
                sufa::add_weighted_rows(alone.data() + r * c.width, c.width, c.values.data(),
                                        c.stride, wide.data(), own.data(), std::ssize(own));
            }
            REQUIRE(together == alone);
        }
    }
}
