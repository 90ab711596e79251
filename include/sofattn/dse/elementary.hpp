// SPDX-License-Identifier: MIT
// Exponential, logarithm and the normal distribution with the same bits on every C library.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <numbers>

namespace sofattn::dse {

// A search proposes the better of two points by comparing numbers that may differ in the last bit
// only, so what it proposes would depend on the C library's std::exp. These are sums and products in
// a fixed order: the same bits wherever the compiler does not fuse them (-ffp-contract=off).

namespace detail {

/// Adding it and taking it away rounds to a whole number, for magnitudes below 2^51.
inline constexpr double round_to_whole = 0x1.8p52;
inline constexpr double ln2_high =
    0x1.62e42fefa0000p-1; // 17 zero bits at its end: n times it is exact
inline constexpr double ln2_low = 0x1.cf79abc9e3b39p-40;
/// log(sqrt(2 pi)).
inline constexpr double log_root_two_pi = 0.91893853320467274178;

/// 2^n for n in [-1022, 1023], given as round_to_whole + n.
[[nodiscard]] inline double power_of_two(double shifted) noexcept {
    return std::bit_cast<double>((std::bit_cast<std::uint64_t>(shifted) + 1023) << 52);
}

} // namespace detail

/// e^x for x in [-708, 709], beyond as at the end of it; within 2 units in the last place. No branch,
/// so that loops over it become vectors.
[[nodiscard]] inline double exponential(double x) noexcept {
    double const inside = std::min(std::max(x, -708.0), 709.0);
    double const shifted = inside * std::numbers::log2e + detail::round_to_whole;
    double const n = shifted - detail::round_to_whole;
    double const r = (inside - n * detail::ln2_high) - n * detail::ln2_low; // |r| <= ln(2) / 2
    // Taylor to r^13: the next term is below 2^-57 of the sum.
    double p = 1.0 / 6227020800.0;
    p = p * r + 1.0 / 479001600.0;
    p = p * r + 1.0 / 39916800.0;
    p = p * r + 1.0 / 3628800.0;
    p = p * r + 1.0 / 362880.0;
    p = p * r + 1.0 / 40320.0;
    p = p * r + 1.0 / 5040.0;
    p = p * r + 1.0 / 720.0;
    p = p * r + 1.0 / 120.0;
    p = p * r + 1.0 / 24.0;
    p = p * r + 1.0 / 6.0;
    p = p * r + 0.5;
    p = p * r + 1.0;
    p = p * r + 1.0;
    return p * detail::power_of_two(shifted);
}

/// log(x) for finite x > 0, within 3 units in the last place.
[[nodiscard]] inline double logarithm(double x) noexcept {
    int exponent = 0;
    double mantissa = std::frexp(x, &exponent); // [0.5, 1)
    if (mantissa < std::numbers::sqrt2 / 2) {
        mantissa *= 2.0;
        --exponent;
    }
    // 2 atanh(s) with |s| <= 0.172; the first term left out is below 2^-60.
    double const s = (mantissa - 1.0) / (mantissa + 1.0);
    double const s2 = s * s;
    double sum = 0.0;
    for (int n = 21; n >= 1; n -= 2) {
        sum = sum * s2 + 1.0 / n;
    }
    auto const e = static_cast<double>(exponent);
    return e * detail::ln2_high + (2.0 * s * sum + e * detail::ln2_low);
}

/// Density of the standard normal distribution.
[[nodiscard]] inline double normal_density(double z) noexcept {
    return exponential(-0.5 * z * z - detail::log_root_two_pi);
}

namespace detail {

/// C of Mills' ratio 1 / (t + C(t)), C(t) = 1/(t + 2/(t + 3/(t + ...))); for t >= 3, where 60 levels
/// leave less than 1e-14.
[[nodiscard]] inline double mills_fraction(double t) noexcept {
    double c = 0.0;
    for (int n = 60; n >= 1; --n) {
        c = n / (t + c);
    }
    return c;
}
/// Below it the tail's continued fraction is used, above it the series around 0.
inline constexpr double tail_from = -3.0;

} // namespace detail

/// Share of the standard normal distribution below z, accurate relatively in both tails' smaller
/// side.
[[nodiscard]] inline double normal_share(double z) noexcept {
    if (z < detail::tail_from) {
        return normal_density(z) / (-z + detail::mills_fraction(-z));
    }
    if (z > -detail::tail_from) {
        return 1.0 - normal_share(-z);
    }
    double term = z;
    double sum = z;
    for (int n = 3; n < 100 && std::abs(term) > 1e-17; n += 2) {
        term *= z * z / n;
        sum += term;
    }
    return 0.5 + normal_density(z) * sum;
}

/// log of normal_share, finite for all finite z.
[[nodiscard]] inline double log_normal_share(double z) noexcept {
    if (z < detail::tail_from) {
        return -0.5 * z * z - detail::log_root_two_pi - logarithm(-z + detail::mills_fraction(-z));
    }
    return logarithm(normal_share(z));
}

/// log(density(z) + z share(z)): the logarithm of what one expects to gain over a bar, in units of
/// the deviation, where the mean lies z of them beyond it. Finite for all finite z, so that a
/// search can still climb where the gain itself is below the smallest double.
[[nodiscard]] inline double log_expected_gain(double z) noexcept {
    if (z < detail::tail_from) {
        double const c = detail::mills_fraction(-z); // 1 - t / (t + c) without its cancellation
        return -0.5 * z * z - detail::log_root_two_pi + logarithm(c / (-z + c));
    }
    return logarithm(normal_density(z) + z * normal_share(z));
}

} // namespace sofattn::dse
