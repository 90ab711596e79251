// SPDX-License-Identifier: MIT
// Leading-zero codes: sign and bit length of an integer, paper section III-A, Eq. 1, Fig. 7.
#pragma once

#include <sofattn/core/assert.hpp>
#include <sofattn/core/quantise.hpp>

#include <bit>
#include <cstdint>

namespace sofattn::dlzs {

/// How a magnitude becomes a power of two.
enum class lz_rounding {
    down,   ///< toward zero: the leading-zero counter alone, as in the paper's example 24 x 6 -> 96
    nearest ///< to the nearer power, up from 1.5 * 2^n on, saturating; not in the paper (one adder)
};

/// Sign and bit length b of a W-bit integer, b = W - LZ(|x|), b = 0 for zero: 4 bits for W = 8,
/// 5 bits for W = 16. Stands for 0 or +-2^(b - 1).
class lz_code {
public:
    constexpr lz_code() noexcept = default;

    /// `Bits` is W. pre: |x| <= 2^(W-1) - 1, which quantisers guarantee.
    template <int Bits, lz_rounding Rounding = lz_rounding::down>
    [[nodiscard]] static constexpr lz_code encode(int x) noexcept {
        auto const magnitude = static_cast<unsigned>(x < 0 ? -x : x);
        SOFATTN_DASSERT(magnitude <= static_cast<unsigned>(code_limit<Bits>));
        auto length = static_cast<int>(std::bit_width(magnitude));
        if constexpr (Rounding == lz_rounding::nearest) {
            bool const upper_half = length > 1 && ((magnitude >> (length - 2)) & 1u) != 0;
            length += upper_half && length < Bits - 1 ? 1 : 0;
        }
        return from_stored(static_cast<std::int8_t>(x < 0 ? -length : length));
    }

    /// The stored form: the bit length with the sign of x.
    [[nodiscard]] static constexpr lz_code from_stored(std::int8_t stored) noexcept {
        lz_code code;
        code.stored_ = stored;
        return code;
    }
    [[nodiscard]] constexpr std::int8_t stored() const noexcept { return stored_; }

    [[nodiscard]] constexpr bool is_zero() const noexcept { return stored_ == 0; }
    [[nodiscard]] constexpr int sign() const noexcept { return (stored_ > 0) - (stored_ < 0); }
    [[nodiscard]] constexpr int bit_length() const noexcept {
        return stored_ < 0 ? -stored_ : stored_;
    }
    /// How far the other operand is shifted left. pre: not zero
    [[nodiscard]] constexpr int shift() const noexcept { return bit_length() - 1; }
    /// 0 or +-2^(b - 1).
    [[nodiscard]] constexpr std::int32_t value() const noexcept {
        return is_zero() ? 0 : sign() * (std::int32_t{1} << shift());
    }

    friend constexpr bool operator==(lz_code, lz_code) noexcept = default;

private:
    std::int8_t stored_ = 0;
};

/// x * y with y in coded form: one shift. What DLZS computes instead of a product.
template <class Integer>
[[nodiscard]] constexpr Integer shifted(Integer x, lz_code y) noexcept {
    if (y.is_zero()) {
        return Integer{0};
    }
    return static_cast<Integer>((y.sign() < 0 ? -x : x) << y.shift());
}

} // namespace sofattn::dlzs
