// SPDX-License-Identifier: MIT
#include "dlzs/oracle.hpp"
#include <sofattn/dlzs/lz_code.hpp>

#include <doctest/doctest.h>

#include <cstdint>
#include <cstdlib>

using namespace sofattn;
using dlzs::lz_code;
using dlzs::lz_rounding;

namespace {

int sign_of(int x) { return x < 0 ? -1 : x > 0 ? 1 : 0; }

/// Every W-bit integer that quantisers produce, rounded down.
template <int Bits>
void check_all_down() {
    for (int x = -code_limit<Bits>; x <= code_limit<Bits>; ++x) {
        auto const code = lz_code::encode<Bits>(x);
        int const b = test::bit_length(x, Bits);
        std::int64_t const value = test::decoded(dlzs::operand::leading_zero, sign_of(x) * b);
        bool const good = code.bit_length() == b && code.sign() == sign_of(x) &&
                          code.is_zero() == (x == 0) && code.value() == value &&
                          code.stored() == sign_of(x) * b && (x == 0 || code.shift() == b - 1) &&
                          lz_code::from_stored(code.stored()) == code;
        if (!good) {
            FAIL_CHECK(Bits, "-bit code of ", x, " is ", code.value());
        }
        // Toward zero, and by less than half.
        bool const toward_zero =
            std::abs(code.value()) <= std::abs(x) && std::abs(x) < 2 * std::abs(code.value());
        if (x != 0 && !toward_zero) {
            FAIL_CHECK(x, " is not rounded toward zero: ", code.value());
        }
    }
}

/// Nearest: no representable power is nearer, ties go up, the largest power saturates.
template <int Bits>
void check_all_nearest() {
    for (int x = -code_limit<Bits>; x <= code_limit<Bits>; ++x) {
        auto const code = lz_code::encode<Bits, lz_rounding::nearest>(x);
        int expected = 0;
        for (int shift = 0; shift <= Bits - 2 && x != 0; ++shift) {
            int const power = sign_of(x) * (1 << shift);
            if (expected == 0 || std::abs(x - power) <= std::abs(x - expected)) {
                expected = power;
            }
        }
        if (code.value() != expected || code.bit_length() > Bits - 1) {
            FAIL_CHECK(Bits, "-bit code nearest to ", x, " is ", code.value());
        }
    }
}

} // namespace

TEST_CASE("dlzs.lz_code: every int8 has the sign and bit length of the definition") {
    check_all_down<8>();
    check_all_down<4>();
    static_assert(lz_code::encode<8>(127).bit_length() == 7);
    CHECK(lz_code::encode<8>(-127).value() == -64);
}

TEST_CASE("dlzs.lz_code: every int16 has the sign and bit length of the definition") {
    check_all_down<16>();
    check_all_down<12>();
    static_assert(lz_code::encode<16>(32767).bit_length() == 15);
    CHECK(lz_code::encode<16>(-32767).value() == -16384);
}

TEST_CASE("dlzs.lz_code: nearest takes the nearer power, ties up, and saturates") {
    check_all_nearest<4>();
    check_all_nearest<8>();
    check_all_nearest<16>();
    static_assert(lz_code::encode<8, lz_rounding::nearest>(5).value() == 4);
    static_assert(lz_code::encode<8, lz_rounding::nearest>(6).value() == 8); // a tie
    static_assert(lz_code::encode<8, lz_rounding::nearest>(-7).value() == -8);
    CHECK(lz_code::encode<8, lz_rounding::nearest>(127).value() == 64); // 128 has no code
}

TEST_CASE("dlzs.lz_code: 24 x 6 is 96 with one operand coded, 64 with both, 144 exactly") {
    // The paper's example, Fig. 7. 6 = 0000'0110b has bit length 3 and stands for 2^2,
    // 24 = 0001'1000b has bit length 5 and stands for 2^4.
    static_assert(dlzs::shifted(24, lz_code::encode<8>(6)) == 96);
    static_assert(dlzs::shifted(6, lz_code::encode<8>(24)) == 96);
    static_assert(lz_code::encode<8>(24).value() * lz_code::encode<8>(6).value() == 64);
    CHECK(24 * 6 == 144);
}

TEST_CASE("dlzs.lz_code: shifted is the product with the code's value") {
    for (int x = -127; x <= 127; ++x) {
        for (int y = -127; y <= 127; ++y) {
            auto const code = lz_code::encode<8>(y);
            if (dlzs::shifted(x, code) != x * code.value()) {
                FAIL_CHECK(x, " shifted by the code of ", y);
            }
        }
    }
    auto const top = lz_code::encode<16>(-32767);
    CHECK(dlzs::shifted<std::int64_t>(-32767, top) == 32767 * 16384);
    CHECK(dlzs::shifted<std::int64_t>(123456789012, lz_code{}) == 0);
}

TEST_CASE("dlzs.lz_code: a default code is zero, and equal codes are equal") {
    static_assert(lz_code{}.is_zero() && lz_code{}.value() == 0 && lz_code{}.sign() == 0);
    static_assert(lz_code{} == lz_code::encode<8>(0));
    static_assert(lz_code::encode<8>(5) == lz_code::encode<8>(7));
    static_assert(lz_code::encode<8>(5) != lz_code::encode<8>(-5));
    CHECK(sizeof(lz_code) == 1);
}
