// SPDX-License-Identifier: MIT
#include "support/generators.hpp"
#include <sofattn/core/bfloat16.hpp>
#include <sofattn/core/half.hpp>
#include <sofattn/core/output_array.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/core/view.hpp>
#include <sofattn/exec/store_row.hpp>
#include <sofattn/exec/xsimd_lanes.hpp>

#include <doctest/doctest.h>

#include <array>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <type_traits>
#include <vector>

using namespace sofattn;
using namespace sofattn::test;

namespace {

/// Of any kind: NaN, infinity and subnormal numbers among them.
float any_bits(generator& random) {
    return std::bit_cast<float>(static_cast<std::uint32_t>(random.next()));
}
template <class T>
bool same(T a, T b) {
    using bits = std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint16_t>;
    return std::bit_cast<bits>(a) == std::bit_cast<bits>(b);
}

/// How many lanes of a register differ from their conversion one by one.
template <class T>
int wrong_lanes(std::vector<float> const& from) {
    constexpr auto lanes = static_cast<std::size_t>(exec::vector_width);
    int wrong = 0;
    for (std::size_t i = 0; i + lanes <= from.size(); i += lanes) {
        std::array<T, lanes> stored{};
        exec::store(stored.data(), exec::load(from.data() + i));
        for (std::size_t lane = 0; lane < lanes; ++lane) {
            wrong += same(stored[lane], T(from[i + lane])) ? 0 : 1;
        }
    }
    return wrong;
}

} // namespace

TEST_CASE_TEMPLATE("exec.store_row: registers round as numbers do, on every side of every tie", T,
                   half, bfloat16) {
    std::vector<float> all;
    for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
        auto const x = std::bit_cast<std::uint32_t>(
            static_cast<float>(T::from_bits(static_cast<std::uint16_t>(bits))));
        // Half a unit of the last place, where T is normal; below, a place of its own.
        constexpr std::uint32_t unit = std::is_same_v<T, half> ? 1u << 13 : 1u << 16;
        for (std::uint32_t const past : {0u, 1u, unit / 2 - 1, unit / 2, unit / 2 + 1, unit - 1}) {
            all.push_back(std::bit_cast<float>(x + past)); // also of NaN: payloads
        }
    }
    CHECK(wrong_lanes<T>(all) == 0);
}

TEST_CASE_TEMPLATE("exec.store_row: registers round as numbers do, random bits", T, half,
                   bfloat16) {
    SOFATTN_GENERATOR(random);
    std::vector<float> all;
    for (int n = 0; n < 200'000; ++n) {
        all.push_back(any_bits(random));
        all.push_back(static_cast<float>(random.normal() * std::exp2(random.uniform(-30.0, 17.0))));
    }
    CHECK(wrong_lanes<T>(all) == 0);
}

TEST_CASE_TEMPLATE("exec.store_row: rows of any length and stride, and nothing beside them", T,
                   float, half, bfloat16) {
    SOFATTN_GENERATOR(random);
    constexpr T poison{-12345.0f};
    for (index_t size = 0; size < 70; ++size) {
        for (index_t const stride : {1, 2, 3, -1, -2}) {
            std::vector<float> row;
            for (index_t d = 0; d < size; ++d) {
                row.push_back(any_bits(random));
            }
            std::vector<T> memory(static_cast<std::size_t>(4 * size + 64), poison);
            T* const first = memory.data() + 32 + (stride < 0 ? -stride * size : 0);
            view<T, axis::value_dim> const to(first, {size}, {stride});
            exec::store_row(to, row.data());
            int wrong = 0;
            for (index_t d = 0; d < size; ++d) {
                wrong += same(to(d), T(row[static_cast<std::size_t>(d)])) ? 0 : 1;
                to(d) = poison;
            }
            for (T const x : memory) {
                wrong += same(x, poison) ? 0 : 1;
            }
            CHECK(wrong == 0);
        }
    }
}

TEST_CASE("exec.store_row: what has no place in f16") {
    constexpr float infinity = std::numeric_limits<float>::infinity();
    // Enough for a register, so that its rounding is looked at.
    std::vector<float> const row{65504.0f,  65519.996f, 65520.0f,   -65520.0f, 1e30f,    -infinity,
                                 0x1p-25f,  -0x1p-25f,  0x1.8p-25f, 1e-30f,    0x1p-24f, -0.0f,
                                 0x1p-130f, 0.1f,       infinity,   65536.0f};
    std::vector<half> out(row.size());
    exec::store_row(view<half, axis::value_dim>(out.data(), {static_cast<index_t>(out.size())}),
                    row.data());
    std::vector<std::uint16_t> const expected{0x7bff, 0x7bff, 0x7c00, 0xfc00, 0x7c00, 0xfc00,
                                              0x0000, 0x8000, 0x0001, 0x0000, 0x0001, 0x8000,
                                              0x0000, 0x2e66, 0x7c00, 0x7c00};
    for (std::size_t i = 0; i < row.size(); ++i) {
        CAPTURE(i);
        CHECK(out[i].bits() == expected[i]);
    }
    float const nan = std::numeric_limits<float>::quiet_NaN();
    std::vector<float> const nans(row.size(), -nan);
    exec::store_row(view<half, axis::value_dim>(out.data(), {static_cast<index_t>(out.size())}),
                    nans.data());
    for (half const x : out) {
        CHECK(std::isnan(static_cast<float>(x)));
    }
}
