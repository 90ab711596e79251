// SPDX-License-Identifier: MIT
#include "core/slow_float.hpp"
#include "support/generators.hpp"
#include <sofattn/core/bfloat16.hpp>

#include <doctest/doctest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

namespace {

using sofattn::bfloat16;

sofattn::test::slow_float const& definition() {
    static sofattn::test::slow_float const slow(8, 7);
    return slow;
}

void check_rounding(float x) {
    std::uint16_t const found = bfloat16(x).bits();
    std::uint16_t const expected = definition().nearest(x);
    if (found != expected) {
        FAIL_CHECK("of ", x, " (bits ", std::bit_cast<std::uint32_t>(x), "): ", found, ", not ",
                   expected);
    }
}

} // namespace

TEST_CASE(
    "core.bfloat16: every bit pattern has the value of the definition and survives a round trip") {
    for (int pattern = 0; pattern <= 0xffff; ++pattern) {
        auto const bits = static_cast<std::uint16_t>(pattern);
        bfloat16 const x = bfloat16::from_bits(bits);
        auto const value = static_cast<float>(x);
        if (definition().is_nan(bits)) {
            bool const stays_nan = std::isnan(value) &&
                                   definition().is_nan(bfloat16(value).bits()) &&
                                   std::signbit(value) == ((bits & 0x8000) != 0) && !(x == x);
            if (!stays_nan) {
                FAIL_CHECK("NaN ", bits, " became ", bfloat16(value).bits());
            }
        } else if (static_cast<double>(value) != definition().value(bits) ||
                   std::signbit(value) != ((bits & 0x8000) != 0) ||
                   bfloat16(value).bits() != bits || !(x == x)) {
            FAIL_CHECK("of pattern ", bits, ": value ", value, ", back ", bfloat16(value).bits());
        }
    }
}

TEST_CASE("core.bfloat16: rounds like the definition around every midpoint and every value") {
    for (int code = 0; code < definition().infinity(); ++code) {
        auto const value = static_cast<float>(definition().value(static_cast<std::uint16_t>(code)));
        auto const middle = static_cast<float>(definition().midpoint(code)); // exact: one bit more
        for (float const x : {value, middle}) {
            for (float const near : {std::nextafter(x, -1.0f), x, std::nextafter(x, HUGE_VALF)}) {
                check_rounding(near);
                check_rounding(-near);
            }
        }
    }
}

TEST_CASE("core.bfloat16: rounds like the definition on random bit patterns of float") {
    SOFATTN_GENERATOR(random);
    for (int n = 0; n < 1'000'000; ++n) {
        auto const x = std::bit_cast<float>(static_cast<std::uint32_t>(random.next()));
        if (std::isnan(x)) {
            CHECK(definition().is_nan(bfloat16(x).bits()));
        } else {
            check_rounding(x);
        }
        check_rounding(static_cast<float>(random.normal()));
    }
}

TEST_CASE("core.bfloat16: landmarks") {
    static_assert(bfloat16(1.0f).bits() == 0x3f80);
    static_assert(bfloat16(-2.0f).bits() == 0xc000);
    static_assert(bfloat16(1.00390625f).bits() == 0x3f80, "1 + 2^-8 is a tie: down to even");
    static_assert(bfloat16(1.01171875f).bits() == 0x3f82, "1 + 3 * 2^-8 is a tie: up to even");
    static_assert(bfloat16(0x1p-133f).bits() == 0x0001, "the smallest subnormal");
    static_assert(bfloat16(0x1p-134f).bits() == 0x0000, "a tie between it and zero");
    static_assert(bfloat16(-0.0f).bits() == 0x8000);
    static_assert(bfloat16{}.bits() == 0);
    CHECK(bfloat16(0.0f) == bfloat16(-0.0f));
    CHECK(bfloat16(std::numeric_limits<float>::max()).bits() == 0x7f80); // too large: infinity
    CHECK(bfloat16(std::bit_cast<float>(0x7f7f7fffu)).bits() == 0x7f7f); // the last that is not
    constexpr float infinity = std::numeric_limits<float>::infinity();
    CHECK(bfloat16(infinity).bits() == 0x7f80);
    CHECK(bfloat16(-infinity).bits() == 0xff80);
    CHECK(std::isnan(static_cast<float>(bfloat16(std::numeric_limits<float>::quiet_NaN()))));
    // NaNs whose payload lies in the bits that are dropped, or that rounding would carry out of.
    CHECK(std::isnan(static_cast<float>(bfloat16(std::bit_cast<float>(0x7f800001u)))));
    CHECK(std::isnan(static_cast<float>(bfloat16(std::bit_cast<float>(0xffffffffu)))));
}
