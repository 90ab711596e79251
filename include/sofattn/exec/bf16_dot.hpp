// SPDX-License-Identifier: MIT
// Dot products of bf16 pairs, where the target has them: two multiply-adds per lane in the time of
// one. Elsewhere there is nothing to gain, so there is no substitute: ask has_bf16_dot.
#pragma once

#include <sofattn/core/bfloat16.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/exec/xsimd_lanes.hpp>

#include <bit>
#include <cstdint>
#include <cstring>

namespace sofattn::exec {

/// Two factors that follow each other along a sum. Aligned as one of them: rows of K are read as
/// they lie.
struct bf16_pair {
    bfloat16 first;
    bfloat16 second;
};
static_assert(sizeof(bf16_pair) == sizeof(float) && alignof(bf16_pair) == alignof(bfloat16));

#if defined __AVX512BF16__ && defined __AVX512BW__

inline constexpr bool has_bf16_dot = true;

/// A pair in each lane of a vector_float.
struct vector_pairs {
    __m512i bits;
};

[[nodiscard]] inline vector_pairs load(bf16_pair const* from) noexcept {
    return {_mm512_loadu_si512(from)};
}
inline void store(bf16_pair* to, vector_pairs x) noexcept { _mm512_storeu_si512(to, x.bits); }
[[nodiscard]] inline vector_pairs repeated(bf16_pair const& x) noexcept {
    std::int32_t bits = 0;
    std::memcpy(&bits, &x, sizeof bits);
    return {_mm512_set1_epi32(bits)};
}

/// c + a.first * b.first + a.second * b.second. Subnormal factors and results count as 0.
[[nodiscard]] inline vector_float multiply_add(vector_pairs a, vector_pairs b,
                                               vector_float c) noexcept {
    return _mm512_dpbf16_ps(c, std::bit_cast<__m512bh>(a.bits), std::bit_cast<__m512bh>(b.bits));
}

/// Rounded to nearest, ties to even.
[[nodiscard]] inline vector_pairs paired(vector_float first, vector_float second) noexcept {
    // All firsts, then all seconds; word 2 i of the result is first i, word 2 i + 1 second i.
    auto const apart = std::bit_cast<__m512i>(_mm512_cvtne2ps_pbh(second, first));
    auto const together =
        _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6,
                         21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    return {_mm512_permutexvar_epi16(together, apart)};
}

/// All of `first`, then all of `second`, rounded as above.
inline void store_narrowed(bfloat16* to, vector_float first, vector_float second) noexcept {
    _mm512_storeu_si512(to, std::bit_cast<__m512i>(_mm512_cvtne2ps_pbh(second, first)));
}

/// to[i] = {first[i], second[i]}, i < 8.
inline void eight_pairs(bfloat16 const* first, bfloat16 const* second, bf16_pair* to) noexcept {
    auto const words = [](bfloat16 const* from) {
        return _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<__m128i const*>(from)));
    };
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to),
                        _mm256_or_si256(words(first), _mm256_slli_epi32(words(second), 16)));
}

#else

inline constexpr bool has_bf16_dot = false;

// Named by code that asks first; there is no definition.
struct vector_pairs {};
void store(bf16_pair* to, vector_pairs x) noexcept;
vector_pairs paired(vector_float first, vector_float second) noexcept;
void store_narrowed(bfloat16* to, vector_float first, vector_float second) noexcept;
void eight_pairs(bfloat16 const* first, bfloat16 const* second, bf16_pair* to) noexcept;

#endif

} // namespace sofattn::exec
