// SPDX-License-Identifier: MIT
// bfloat16 as a storage type: the upper half of a float, never computed with.
#pragma once

#include <bit>
#include <cstdint>

namespace sofattn {

/// 16-bit float: 1 sign, 8 exponent and 7 fraction bits.
class bfloat16 {
public:
    constexpr bfloat16() noexcept = default;

    /// Rounds to nearest, ties to even; overflow becomes infinity, NaN stays NaN.
    explicit constexpr bfloat16(float value) noexcept : bits_(from_float(value)) {}

    [[nodiscard]] static constexpr bfloat16 from_bits(std::uint16_t bits) noexcept {
        bfloat16 b;
        b.bits_ = bits;
        return b;
    }
    [[nodiscard]] constexpr std::uint16_t bits() const noexcept { return bits_; }

    /// Exact.
    explicit constexpr operator float() const noexcept {
        return std::bit_cast<float>(std::uint32_t{bits_} << 16);
    }

    friend constexpr bool operator==(bfloat16 a, bfloat16 b) noexcept {
        return static_cast<float>(a) == static_cast<float>(b);
    }

private:
    static constexpr std::uint16_t from_float(float value) noexcept {
        auto const x = std::bit_cast<std::uint32_t>(value);
        if ((x & 0x7fffffffu) > 0x7f800000u) {
            return static_cast<std::uint16_t>((x >> 16) |
                                              0x40u); // a NaN must not round to infinity
        }
        return static_cast<std::uint16_t>((x + 0x7fffu + ((x >> 16) & 1u)) >> 16);
    }

    std::uint16_t bits_ = 0;
};

static_assert(sizeof(bfloat16) == 2);

} // namespace sofattn
