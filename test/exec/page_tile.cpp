// SPDX-License-Identifier: MIT
#include "support/generators.hpp"
#include <sofattn/core/bfloat16.hpp>
#include <sofattn/core/tensor.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/core/view.hpp>
#include <sofattn/exec/bf16_dot.hpp>
#include <sofattn/exec/page_tile.hpp>
#include <sofattn/sufa/dense_block.hpp>
#include <sofattn/sufa/key_value_pages.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <limits>
#include <type_traits>
#include <vector>

using namespace sofattn;

namespace {

/// What the target multiplies; floats twice where it has no bf16 products.
using bf16_or_floats =
    std::conditional_t<exec::has_bf16_dot, sufa::bf16_products, sufa::f32_products>;

constexpr float poison = std::numeric_limits<float>::quiet_NaN();

/// Keys and values of a few pages, and rows of factors beside them; all numbers are bf16's, so that they are
/// what the factors are.
template <class Products>
struct page_case {
    using pages_type = sufa::key_value_pages<Products>;
    using factor = typename pages_type::factor;
    static constexpr index_t each = pages_type::each;

    page_case(test::generator& random, index_t count, index_t dim, index_t value_dim)
        : k({count, dim}), v({count, value_dim}),
          pages_((fill(random, k), fill(random, v), k.cview()), v.cview()) {}

    static void fill(test::generator& random, auto& rows) {
        test::for_each_index(rows.view().extents(), [&](auto const& i) {
            test::at(rows.view(), i) = to_float(bfloat16(static_cast<float>(random.normal())));
        });
    }
    [[nodiscard]] static std::vector<factor> factors(std::vector<float> const& numbers) {
        using element = typename pages_type::element;
        std::vector<factor> made(numbers.size() / static_cast<std::size_t>(each));
        auto* const to = reinterpret_cast<element*>(made.data());
        for (std::size_t i = 0; i < numbers.size(); ++i) {
            to[i] = element(numbers[i]);
        }
        return made;
    }

    tensor<float, axis::key, axis::dim> k;
    tensor<float, axis::key, axis::value_dim> v;
    pages_type pages_;
};

std::vector<float> some_numbers(test::generator& random, index_t count) {
    std::vector<float> made(static_cast<std::size_t>(count));
    std::ranges::generate(made,
                          [&] { return to_float(bfloat16(static_cast<float>(random.normal()))); });
    return made;
}

} // namespace

TEST_CASE_TEMPLATE(
    "exec.page_products: products of rows and keys, whatever else is computed beside them",
    Products, sufa::f32_products, bf16_or_floats) {
    SOFATTN_GENERATOR(random);
    using one = page_case<Products>;
    for (int i = 0; i < 40; ++i) {
        index_t const keys = random.integer<index_t>(1, 70);
        index_t const dim = random.integer<index_t>(1, 140);
        one const c(random, keys, dim, 8);
        index_t const steps = c.pages_.steps();
        index_t const row = steps + random.integer<index_t>(0, 3);
        index_t const rows = random.integer<index_t>(1, exec::tile_rows);
        index_t const registers = random.integer<index_t>(1, exec::tile_vectors);
        auto numbers = some_numbers(random, exec::tile_rows * row * one::each);
        for (index_t r = 0; r < exec::tile_rows;
             ++r) { // beyond the last channel nothing counts but 0
            for (index_t d = dim; d < steps * one::each; ++d) {
                numbers[static_cast<std::size_t>(r * row * one::each + d)] = 0;
            }
        }
        auto const factors = one::factors(numbers);
        index_t const in_page = exec::page_keys / exec::vector_width;
        index_t const all = ceil_div(keys, exec::page_keys) * in_page;
        std::array<typename one::factor const*, exec::tile_vectors> columns{};
        std::array<index_t, exec::tile_vectors> first{};
        for (std::size_t v = 0; v < static_cast<std::size_t>(registers); ++v) {
            index_t const at = random.integer<index_t>(0, all - 1);
            columns[v] = c.pages_.keys(at / in_page) + at % in_page * exec::vector_width;
            first[v] = at * exec::vector_width;
        }
        constexpr index_t sum_row = exec::tile_width + 5;
        std::vector<float> sums(static_cast<std::size_t>(exec::tile_rows * sum_row), poison);
        std::vector<float> tops(static_cast<std::size_t>(exec::tile_rows * exec::vector_width),
                                0.5f);
        exec::page_products<typename one::factor>(
            rows, registers,
            {factors.data(), row, columns, sums.data(), sum_row, tops.data(), steps});
        for (index_t r = 0; r < exec::tile_rows; ++r) {
            for (index_t lane = 0; lane < exec::vector_width; ++lane) {
                float top = 0.5f;
                for (index_t v = 0; v < registers; ++v) {
                    float const found =
                        sums[static_cast<std::size_t>(r * sum_row + v * exec::vector_width + lane)];
                    if (r >= rows) {
                        CHECK(std::isnan(found));
                        continue;
                    }
                    index_t const key = first[static_cast<std::size_t>(v)] + lane;
                    double right = 0;
                    for (index_t d = 0; d < dim && key < keys; ++d) {
                        right += static_cast<double>(
                                     numbers[static_cast<std::size_t>(r * row * one::each + d)]) *
                                 static_cast<double>(c.k(key, d));
                    }
                    CHECK(std::abs(static_cast<double>(found) - right) <= 1e-4);
                    top = std::max(top, found);
                    // Alone it has the same bits.
                    float alone = 0;
                    std::array<float, static_cast<std::size_t>(exec::vector_width)> one_sum{};
                    std::array<float, static_cast<std::size_t>(exec::vector_width)> one_top{};
                    std::array<typename one::factor const*, exec::tile_vectors> column{};
                    column[0] = columns[static_cast<std::size_t>(v)];
                    exec::page_products<typename one::factor>(1, 1,
                                                              {factors.data() + r * row, row,
                                                               column, one_sum.data(), 0,
                                                               one_top.data(), steps});
                    alone = one_sum[static_cast<std::size_t>(lane)];
                    CHECK(alone == found);
                }
                CHECK(tops[static_cast<std::size_t>(r * exec::vector_width + lane)] == top);
            }
        }
        CHECK(std::isnan(sums.back()));
    }
}

TEST_CASE_TEMPLATE(
    "exec.page_sums: weights times values of the listed pages, on top of what was there", Products,
    sufa::f32_products, bf16_or_floats) {
    SOFATTN_GENERATOR(random);
    using one = page_case<Products>;
    for (int i = 0; i < 40; ++i) {
        index_t const keys = random.integer<index_t>(1, 100);
        index_t const value_dim = random.integer<index_t>(1, 150);
        one const c(random, keys, 4, value_dim);
        index_t const rows = random.integer<index_t>(1, exec::tile_rows);
        index_t const count = random.integer<index_t>(1, 7);
        index_t const width = c.pages_.registers() * exec::vector_width;
        index_t const weight_row = (count * exec::page_keys + 16) / one::each;
        auto const weights = some_numbers(random, exec::tile_rows * weight_row * one::each);
        auto const factors = one::factors(weights);
        std::vector<typename one::factor const*> pages;
        std::vector<index_t> which;
        for (index_t p = 0; p < count; ++p) {
            which.push_back(random.integer<index_t>(0, ceil_div(keys, exec::page_keys) - 1));
            pages.push_back(c.pages_.values(which.back()));
        }
        auto const before = some_numbers(random, exec::tile_rows * (width + 3));
        auto sums = before;
        auto const scale = some_numbers(random, exec::tile_rows);
        exec::page_sums<typename one::factor>(
            rows, {pages.data(), count, one::pages_type::value_steps, factors.data(), weight_row,
                   scale.data(), sums.data(), width + 3, c.pages_.registers()});
        for (index_t r = 0; r < exec::tile_rows; ++r) {
            for (index_t d = 0; d < width + 3; ++d) {
                auto const at = static_cast<std::size_t>(r * (width + 3) + d);
                if (r >= rows || d >= width) {
                    CHECK(sums[at] == before[at]);
                    continue;
                }
                double right = static_cast<double>(before[at]) *
                               static_cast<double>(scale[static_cast<std::size_t>(r)]);
                for (index_t p = 0; p < count; ++p) {
                    for (index_t k = 0; k < exec::page_keys; ++k) {
                        index_t const key =
                            which[static_cast<std::size_t>(p)] * exec::page_keys + k;
                        if (key < keys && d < value_dim) {
                            right += static_cast<double>(weights[static_cast<std::size_t>(
                                         r * weight_row * one::each + p * exec::page_keys + k)]) *
                                     static_cast<double>(c.v(key, d));
                        }
                    }
                }
                CHECK(std::abs(static_cast<double>(sums[at]) - right) <= 1e-4);
            }
        }
    }
}
