// SPDX-License-Identifier: MIT
// IEEE 754 binary16 as a storage type: converted to and from float, never computed with.
#pragma once

#include <bit>
#include <cstdint>

namespace sofattn {

/// 16-bit float: 1 sign, 5 exponent and 10 fraction bits.
class half {
public:
    constexpr half() noexcept = default;

    /// Rounds to nearest, ties to even; overflow becomes infinity, NaN stays NaN.
    explicit constexpr half(float value) noexcept : bits_(from_float(value)) {}

    [[nodiscard]] static constexpr half from_bits(std::uint16_t bits) noexcept {
        half h;
        h.bits_ = bits;
        return h;
    }
    [[nodiscard]] constexpr std::uint16_t bits() const noexcept { return bits_; }

    /// Exact. In masks, because GCC 12 makes branches of choices, and no vectors of branches.
    explicit constexpr operator float() const noexcept {
        std::uint32_t const sign = std::uint32_t{bits_ & 0x8000u} << 16;
        std::uint32_t const magnitude = std::uint32_t{bits_ & 0x7fffu} << 13;
        std::uint32_t const exponent = magnitude >> 23;
        constexpr std::uint32_t rebias = (127u - 15u) << 23;
        std::uint32_t const if_infinite = 0u - ((exponent + 1) >> 5); // 31, which is 255 in float
        std::uint32_t const if_small = 0u - ((31u - exponent + 1) >> 5); // 0, a subnormal number
        // 2^-14 * (1 + fraction) less 2^-14 is fraction * 2^-14, exact in float.
        float const small = std::bit_cast<float>(magnitude + (113u << 23)) - 0x1p-14f;
        std::uint32_t const other = magnitude + rebias + (rebias & if_infinite);
        return std::bit_cast<float>(sign | (std::bit_cast<std::uint32_t>(small) & if_small) |
                                    (other & ~if_small));
    }

    friend constexpr bool operator==(half a, half b) noexcept {
        return static_cast<float>(a) == static_cast<float>(b);
    }

private:
    static constexpr std::uint16_t from_float(float value) noexcept {
        auto const x = std::bit_cast<std::uint32_t>(value);
        auto const sign = static_cast<std::uint16_t>((x >> 16) & 0x8000u);
        std::uint32_t const magnitude = x & 0x7fffffffu;
        if (magnitude > 0x7f800000u) {
            // Quiet, with the upper bits of its payload, as processors convert.
            return static_cast<std::uint16_t>(sign | 0x7e00u | ((magnitude >> 13) & 0x1ffu));
        }
        if (magnitude >= 0x477ff000u) { // 65520: rounds up to 2^16, which binary16 has not
            return static_cast<std::uint16_t>(sign | 0x7c00u);
        }
        if (magnitude < 0x38800000u) { // below 2^-14: subnormal, unit 2^-24
            // Adding 2^-1 aligns the unit of the sum (2^-24) with binary16's; the addition rounds.
            float const sum = std::bit_cast<float>(magnitude) + 0.5f;
            return static_cast<std::uint16_t>(
                sign | static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(sum) - 0x3f000000u));
        }
        std::uint32_t const odd = (magnitude >> 13) & 1u;
        std::uint32_t const rounded = magnitude - 0x38000000u + 0xfffu + odd;
        return static_cast<std::uint16_t>(sign | (rounded >> 13));
    }

    std::uint16_t bits_ = 0;
};

static_assert(sizeof(half) == 2);

} // namespace sofattn
