// SPDX-License-Identifier: MIT
// Floats become 8-bit codes: one row by itself, or four side by side.
#pragma once

#include <sofattn/core/element.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/exec/integer_lanes.hpp>
#include <sofattn/exec/xsimd_lanes.hpp>

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

namespace sofattn::exec {

/// Columns that the functions of this file read and write: whole registers.
[[nodiscard]] constexpr index_t whole_vectors(index_t columns) noexcept {
    return ceil_div(columns, vector_width) * vector_width;
}

/// Largest magnitude and step of codes; what is smaller than 2^-100 counts as 0.
inline constexpr float code_most = 127.0f;
[[nodiscard]] constexpr float codes_per_unit(float magnitude) noexcept {
    return magnitude > 0x1p-100f ? code_most / magnitude : 0.0f;
}

namespace detail {

/// Added to a small float it leaves the nearest integer, ties to even, in the low bits.
inline constexpr float rounder = 0x1.8p23f;
inline constexpr std::int32_t rounder_bits = 0x4b400000;
static_assert(std::bit_cast<std::int32_t>(rounder) == rounder_bits);

[[nodiscard]] inline vector_int32 rounded_bits(vector_float x) noexcept {
    return xsimd::bitwise_cast<vector_int32>(x + vector_float(rounder));
}

} // namespace detail

/// Largest magnitude of x - centre. [whole_vectors(columns)] of both
template <storage_float T>
[[nodiscard]] inline float magnitude(T const* x, float const* centre, index_t columns) noexcept {
    vector_float most(0.0f);
    for (index_t d = 0; d < columns; d += vector_width) {
        most = larger(most, xsimd::abs(load(x + d) - load(centre + d)));
    }
    return largest(most);
}

namespace detail {

/// at(d): the row's register from column d on.
template <class At>
[[gnu::always_inline]] inline std::int32_t codes_of(At at, index_t columns, float inverse,
                                                    std::int8_t* to) noexcept {
    vector_int32 sum(0);
    for (index_t d = 0; d < columns; d += vector_width) {
        vector_int32 const bits = rounded_bits(at(d) * vector_float(inverse));
        sum = sum + bits;
#if defined(__AVX512F__)
        _mm_storeu_si128(reinterpret_cast<__m128i*>(to + d), _mm512_cvtepi32_epi8(bits));
#else
        auto const lanes = lanes_of(bits);
        for (std::size_t i = 0; i < lanes.size(); ++i) {
            to[d + static_cast<index_t>(i)] = static_cast<std::int8_t>(lanes[i] & 0xff);
        }
#endif
    }
    // Modulo 2^32: what was added to round.
    auto const added = static_cast<std::uint32_t>(ceil_div(columns, vector_width)) *
                       static_cast<std::uint32_t>(rounder_bits);
    sum = sum - vector_int32(static_cast<std::int32_t>(added));
#if defined(__AVX512F__)
    return _mm512_reduce_add_epi32(sum);
#else
    std::int32_t total = 0;
    for (std::int32_t const lane : lanes_of(sum)) {
        total += lane;
    }
    return total;
#endif
}

} // namespace detail

/// Codes of a row less a centre, whole_vectors(columns) bytes; returns their sum. Two IEEE operations: the
/// same codes everywhere.
template <storage_float T>
inline std::int32_t row_codes(T const* x, float const* centre, index_t columns, float inverse,
                              std::int8_t* to) noexcept {
    return detail::codes_of([=](index_t d) { return load(x + d) - load(centre + d); }, columns,
                            inverse, to);
}
/// The same of a row as it is.
inline std::int32_t row_codes(float const* x, index_t columns, float inverse,
                              std::int8_t* to) noexcept {
    return detail::codes_of([=](index_t d) { return load(x + d); }, columns, inverse, to);
}

template <class T>
using four_rows = std::array<T const*, 4>;

/// Codes of four rows by four inverse steps, those of a column in the four bytes of to[column];
/// `sums`, where they are wanted, grow by them.
template <bool Sums, storage_float T>
inline void four_codes(four_rows<T> const& rows, float const* inverse, index_t columns,
                       std::int32_t* to, [[maybe_unused]] std::int32_t* sums) noexcept {
    vector_int32 const byte(0xff);
    for (index_t d = 0; d < columns; d += vector_width) {
        auto const bits = [&](std::size_t i) {
            return detail::rounded_bits(load(rows[i] + d) * vector_float(inverse[i]));
        };
        vector_int32 const b0 = bits(0);
        vector_int32 const b1 = bits(1);
        vector_int32 const b2 = bits(2);
        vector_int32 const b3 = bits(3);
        store(to + d, (b0 & byte) | ((b1 & byte) << 8) | ((b2 & byte) << 16) | (b3 << 24));
        if constexpr (Sums) { // four times rounder_bits are 2^32 + 0x2d000000
            store(sums + d, load(sums + d) + ((b0 + b1) + (b2 + b3) - vector_int32(0x2d000000)));
        }
    }
}

} // namespace sofattn::exec
