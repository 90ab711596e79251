// SPDX-License-Identifier: MIT
// A 16-bit binary float by its definition: all values in a table, rounding by looking them up.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

namespace sofattn::test {

class slow_float {
public:
    slow_float(int exponent_bits, int fraction_bits)
        : infinity_(((1 << exponent_bits) - 1) << fraction_bits) {
        int const bias = (1 << (exponent_bits - 1)) - 1;
        for (int bits = 0; bits <= infinity_; ++bits) {
            int const exponent = bits >> fraction_bits;
            int const fraction = bits & ((1 << fraction_bits) - 1);
            int const significand = exponent == 0 ? fraction : fraction + (1 << fraction_bits);
            magnitude_.push_back(
                std::ldexp(significand, std::max(exponent, 1) - bias - fraction_bits));
        }
    }

    [[nodiscard]] bool is_nan(std::uint16_t bits) const { return (bits & 0x7fff) > infinity_; }

    /// pre: not NaN
    [[nodiscard]] double value(std::uint16_t bits) const {
        int const code = bits & 0x7fff;
        double const magnitude = code == infinity_ ? std::numeric_limits<double>::infinity()
                                                   : magnitude_[static_cast<std::size_t>(code)];
        return (bits & 0x8000) != 0 ? -magnitude : magnitude;
    }

    /// Halfway between the magnitudes of `code` and `code + 1`; exact. The last one is where
    /// rounding to infinity begins: it is the place of infinity in the table that a larger exponent
    /// would have.
    [[nodiscard]] double midpoint(int code) const {
        auto const at = static_cast<std::size_t>(code);
        return (magnitude_[at] + magnitude_[at + 1]) / 2;
    }
    [[nodiscard]] int infinity() const { return infinity_; }

    /// Nearest, ties to the even code. pre: not NaN
    [[nodiscard]] std::uint16_t nearest(float x) const {
        double const magnitude = std::abs(static_cast<double>(x));
        int code = infinity_;
        if (magnitude < magnitude_.back()) {
            auto const above = std::ranges::upper_bound(magnitude_, magnitude);
            int const low = static_cast<int>(above - magnitude_.begin()) - 1;
            double const middle = midpoint(low);
            bool const up = magnitude > middle || (magnitude == middle && low % 2 != 0);
            code = up ? low + 1 : low;
        }
        return static_cast<std::uint16_t>(code | (std::signbit(x) ? 0x8000 : 0));
    }

private:
    int infinity_;                  ///< its code, sign apart
    std::vector<double> magnitude_; ///< of code 0 to infinity
};

} // namespace sofattn::test
