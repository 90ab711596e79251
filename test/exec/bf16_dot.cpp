// SPDX-License-Identifier: MIT
#include "support/generators.hpp"
#include <sofattn/core/bfloat16.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/exec/bf16_dot.hpp>
#include <sofattn/exec/tile_product.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

using namespace sofattn;
using exec::bf16_pair;

TEST_CASE("exec.bf16_dot: a pair is two bf16 numbers, and lies wherever they do") {
    CHECK(sizeof(bf16_pair) == 4);
    CHECK(alignof(bf16_pair) == 2);
#ifdef __AVX512BF16__
    CHECK(exec::has_bf16_dot);
#else
    CHECK(!exec::has_bf16_dot);
#endif
}

#ifdef __AVX512BF16__

namespace {

constexpr std::size_t lanes = 16;
using lane_array = std::array<float, lanes>;
using pair_array = std::array<bf16_pair, lanes>;

double first(bf16_pair x) { return double{static_cast<float>(x.first)}; }
double second(bf16_pair x) { return double{static_cast<float>(x.second)}; }

bf16_pair random_pair(test::generator& random) {
    return {bfloat16(static_cast<float>(random.normal())),
            bfloat16(static_cast<float>(random.normal()))};
}

bool same_bits(std::vector<float> const& x, std::vector<float> const& y) {
    return std::ranges::equal(x, y, [](float a, float b) {
        return std::bit_cast<std::uint32_t>(a) == std::bit_cast<std::uint32_t>(b);
    });
}

} // namespace

TEST_CASE("exec.bf16_dot: multiply_add adds both products to its lane") {
    SOFATTN_GENERATOR(random);
    for (int round = 0; round < 1000; ++round) {
        pair_array b{};
        lane_array c{};
        for (std::size_t i = 0; i < lanes; ++i) {
            b[i] = random_pair(random);
            c[i] = static_cast<float>(random.normal());
        }
        bf16_pair const a = random_pair(random);
        lane_array result{};
        exec::store(result.data(), exec::multiply_add(exec::repeated(a), exec::load(b.data()),
                                                      exec::load(c.data())));
        for (std::size_t i = 0; i < lanes; ++i) {
            double const x = first(a) * first(b[i]);
            double const y = second(a) * second(b[i]);
            double const sum = double{c[i]} + x + y;
            double const magnitude = std::abs(double{c[i]}) + std::abs(x) + std::abs(y);
            CHECK(std::abs(double{result[i]} - sum) <= 3e-7 * magnitude);
        }
    }
}

TEST_CASE("exec.bf16_dot: paired rounds as bfloat16 does, lane by lane") {
    SOFATTN_GENERATOR(random);
    for (int round = 0; round < 1000; ++round) {
        lane_array x{};
        lane_array y{};
        for (std::size_t i = 0; i < lanes; ++i) {
            x[i] = static_cast<float>(random.normal(1e3));
            // Halfway between two bf16 numbers, to even.
            auto const bits = random.integer<std::uint32_t>(0x3f000000u, 0x41000000u);
            y[i] = std::bit_cast<float>((bits & 0xffff0000u) | 0x8000u);
        }
        x[3] = 0.0f;
        pair_array result{};
        exec::store(result.data(), exec::paired(exec::load(x.data()), exec::load(y.data())));
        for (std::size_t i = 0; i < lanes; ++i) {
            CHECK(result[i].first.bits() == bfloat16(x[i]).bits());
            CHECK(result[i].second.bits() == bfloat16(y[i]).bits());
        }
    }
}

TEST_CASE("exec.bf16_dot: eight_pairs takes turns and touches nothing else") {
    std::vector<bfloat16> a;
    std::vector<bfloat16> b;
    for (int i = 0; i < 8; ++i) {
        a.emplace_back(static_cast<float>(i));
        b.emplace_back(static_cast<float>(-i - 100));
    }
    std::vector<bf16_pair> to(10, {bfloat16(7.0f), bfloat16(7.0f)});
    exec::eight_pairs(a.data(), b.data(), to.data() + 1);
    for (std::size_t i = 0; i < 8; ++i) {
        CHECK(to[i + 1].first == a[i]);
        CHECK(to[i + 1].second == b[i]);
    }
    for (std::size_t const i : {0u, 9u}) {
        CHECK(to[i].first == bfloat16(7.0f));
        CHECK(to[i].second == bfloat16(7.0f));
    }
}

TEST_CASE("exec.bf16_dot: a tile_product of pairs is the sum, however rows are grouped") {
    SOFATTN_GENERATOR(random);
    constexpr index_t rows_most = exec::product_rows;
    constexpr index_t width = exec::product_width;
    for (index_t steps = 0; steps <= 17; ++steps) {
        CAPTURE(steps);
        std::vector<bf16_pair> a(static_cast<std::size_t>(rows_most * steps));
        std::vector<bf16_pair> b(static_cast<std::size_t>(width * steps));
        std::vector<float> c(static_cast<std::size_t>(rows_most * width));
        std::vector<float> scale(static_cast<std::size_t>(width));
        std::ranges::generate(a, [&] { return random_pair(random); });
        std::ranges::generate(b, [&] { return random_pair(random); });
        std::ranges::generate(c, [&] { return static_cast<float>(random.normal()); });
        std::ranges::generate(scale, [&] { return static_cast<float>(random.uniform(0.0, 1.0)); });
        auto const run = [&](index_t group) {
            std::vector<float> result = c;
            for (index_t r = 0; r < rows_most; r += group) {
                exec::tile_product<exec::tile_start::scale, bf16_pair>(
                    std::min(group, rows_most - r),
                    {a.data() + r * steps, steps, 1, b.data(), width, result.data() + r * width,
                     width, steps, scale.data()});
            }
            return result;
        };
        std::vector<float> const together = run(rows_most);
        for (index_t group = 1; group < rows_most; ++group) {
            CHECK(same_bits(run(group), together));
        }
        double worst = 0;
        for (index_t r = 0; r < rows_most; ++r) {
            for (index_t i = 0; i < width; ++i) {
                auto const at = static_cast<std::size_t>(r * width + i);
                double sum = double{c[at]} * double{scale[static_cast<std::size_t>(i)]};
                double magnitude = std::abs(sum);
                for (index_t s = 0; s < steps; ++s) {
                    bf16_pair const x = a[static_cast<std::size_t>(r * steps + s)];
                    bf16_pair const y = b[static_cast<std::size_t>(s * width + i)];
                    sum += first(x) * first(y) + second(x) * second(y);
                    magnitude += std::abs(first(x) * first(y)) + std::abs(second(x) * second(y));
                }
                worst = std::max(worst, std::abs(double{together[at]} - sum) / magnitude);
            }
        }
        CHECK(worst <= 1e-5);
    }
}

#endif
