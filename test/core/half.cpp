// SPDX-License-Identifier: MIT
#include "core/slow_float.hpp"
#include "support/generators.hpp"
#include <sofattn/core/half.hpp>

#include <doctest/doctest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

namespace {

using sofattn::half;

sofattn::test::slow_float const& definition() {
    static sofattn::test::slow_float const slow(5, 10);
    return slow;
}

void check_rounding(float x) {
    std::uint16_t const found = half(x).bits();
    std::uint16_t const expected = definition().nearest(x);
    if (found != expected) {
        FAIL_CHECK("of ", x, " (bits ", std::bit_cast<std::uint32_t>(x), "): ", found, ", not ",
                   expected);
    }
}

} // namespace

TEST_CASE(
    "core.half: every bit pattern has the value of the definition and survives a round trip") {
    for (int pattern = 0; pattern <= 0xffff; ++pattern) {
        auto const bits = static_cast<std::uint16_t>(pattern);
        half const x = half::from_bits(bits);
        auto const value = static_cast<float>(x);
        if (definition().is_nan(bits)) {
            bool const stays_nan = std::isnan(value) && definition().is_nan(half(value).bits()) &&
                                   std::signbit(value) == ((bits & 0x8000) != 0) && !(x == x);
            if (!stays_nan) {
                FAIL_CHECK("NaN ", bits, " became ", half(value).bits());
            }
        } else if (static_cast<double>(value) != definition().value(bits) ||
                   std::signbit(value) != ((bits & 0x8000) != 0) || half(value).bits() != bits ||
                   !(x == x)) {
            FAIL_CHECK("of pattern ", bits, ": value ", value, ", back ", half(value).bits());
        }
    }
}

TEST_CASE("core.half: rounds like the definition around every midpoint and every value") {
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

TEST_CASE("core.half: rounds like the definition on random bit patterns of float") {
    SOFATTN_GENERATOR(random);
    for (int n = 0; n < 1'000'000; ++n) {
        auto const x = std::bit_cast<float>(static_cast<std::uint32_t>(random.next()));
        if (std::isnan(x)) {
            CHECK(definition().is_nan(half(x).bits()));
        } else {
            check_rounding(x);
        }
        check_rounding(static_cast<float>(random.normal()));
    }
}

TEST_CASE("core.half: landmarks") {
    static_assert(half(1.0f).bits() == 0x3c00);
    static_assert(half(-2.0f).bits() == 0xc000);
    static_assert(half(65504.0f).bits() == 0x7bff, "the largest");
    static_assert(half(65519.996f).bits() == 0x7bff, "the last float that is not too large");
    static_assert(half(65520.0f).bits() == 0x7c00,
                  "a tie with what would come next goes to infinity");
    static_assert(half(0x1p-14f).bits() == 0x0400, "the smallest normal");
    static_assert(half(0x1p-24f).bits() == 0x0001, "the smallest subnormal");
    static_assert(half(0x1p-25f).bits() == 0x0000, "a tie between it and zero");
    static_assert(half(0x1.000002p-25f).bits() == 0x0001);
    static_assert(half(0x1.8p-24f).bits() == 0x0002, "a tie between 1 and 2 units");
    static_assert(half(-0.0f).bits() == 0x8000);
    static_assert(half{}.bits() == 0);
    CHECK(half(0.0f) == half(-0.0f));
    constexpr float infinity = std::numeric_limits<float>::infinity();
    CHECK(half(infinity).bits() == 0x7c00);
    CHECK(half(-infinity).bits() == 0xfc00);
    CHECK(std::isnan(static_cast<float>(half(std::numeric_limits<float>::quiet_NaN()))));
    // A signalling NaN whose payload lies in the bits that are dropped must not become infinity.
    CHECK(std::isnan(static_cast<float>(half(std::bit_cast<float>(0x7f800001u)))));
}
