// SPDX-License-Identifier: MIT
// Dot products of bytes, four to a lane: VNNI-class instructions where there are any, the same sums
// elsewhere.
#pragma once

#include <sofattn/core/types.hpp>
#include <sofattn/exec/xsimd_lanes.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace sofattn::exec {

/// Codes per lane of a dot product.
inline constexpr index_t dot_depth = 4;
/// Codes per register of a panel.
inline constexpr index_t vector_bytes = dot_depth * vector_width;

/// What a panel adds to each of its codes. x86's instruction takes one unsigned factor, so panels
/// hold code + 128 there, and sums start at `dot_start`.
#if (defined(__AVX512VNNI__) && defined(__AVX512BW__)) || defined(__AVXVNNI__)
inline constexpr int dot_bias = 128;
#else
inline constexpr int dot_bias = 0;
#endif

/// A code of [-127, 127] as a panel holds it.
[[nodiscard]] constexpr std::uint8_t panel_byte(int code) noexcept {
    return static_cast<std::uint8_t>(code + dot_bias);
}

/// Where the sums of one row against biased panels start; `code_sum`: of the row's codes.
[[nodiscard]] constexpr std::int32_t dot_start(std::int32_t code_sum) noexcept {
    return -dot_bias * code_sum;
}

namespace detail {

/// The definition, for targets that have nothing better.
[[nodiscard]] inline vector_int32 dot_plain(vector_int32 sum, std::uint8_t const* panel,
                                            std::int32_t four) noexcept {
    std::array<std::int8_t, static_cast<std::size_t>(dot_depth)> row;
    std::memcpy(row.data(), &four, sizeof four);
    std::array<std::int32_t, static_cast<std::size_t>(vector_width)> lanes;
    sum.store_unaligned(lanes.data());
    for (std::size_t lane = 0; lane < lanes.size(); ++lane) {
        for (std::size_t i = 0; i < row.size(); ++i) {
            int const byte = panel[lane * row.size() + i];
            // Signed where panels have no bias.
            int const factor = dot_bias == 0 && byte > 127 ? byte - 256 : byte;
            lanes[lane] += factor * static_cast<int>(row[i]);
        }
    }
    return vector_int32::load_unaligned(lanes.data());
}

} // namespace detail

/// sum[lane] + the products of the four codes of each lane of `panel` [vector_bytes] with the four
/// signed codes in `four`. pre: all codes in [-127, 127], no sum leaves 32 bits. Exact, so the same
/// on every target once started at `dot_start`.
[[nodiscard]] inline vector_int32 dot(vector_int32 sum, std::uint8_t const* panel,
                                      std::int32_t four) noexcept {
#if defined(__AVX512VNNI__) && defined(__AVX512BW__)
    __m512i const codes = _mm512_loadu_si512(panel);
    __m512i const row = _mm512_set1_epi32(four);
#if defined(__GNUC__) && !defined(__clang__)
    // GCC 12 copies the sum before the intrinsic adds to it, and runs out of registers.
    __m512i total = sum;
    asm("vpdpbusd\t%2, %1, %0" : "+v"(total) : "v"(codes), "v"(row));
    return total;
#else
    return _mm512_dpbusd_epi32(sum, codes, row);
#endif
#elif defined(__AVX512BW__)
    // Two products of 127 * 127 fit 16 bits, so nothing saturates.
    __m512i const row = _mm512_set1_epi32(four);
    __m512i const codes = _mm512_loadu_si512(panel);
    __m512i const turned =
        _mm512_mask_sub_epi8(codes, _mm512_movepi8_mask(row), _mm512_setzero_si512(), codes);
    __m512i const pairs = _mm512_maddubs_epi16(_mm512_abs_epi8(row), turned);
    return _mm512_add_epi32(sum, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)));
#elif defined(__AVXVNNI__)
    return _mm256_dpbusd_avx_epi32(sum, _mm256_loadu_si256(reinterpret_cast<__m256i const*>(panel)),
                                   _mm256_set1_epi32(four));
#elif defined(__AVX2__) && !defined(__AVX512F__)
    __m256i const row = _mm256_set1_epi32(four);
    __m256i const codes = _mm256_loadu_si256(reinterpret_cast<__m256i const*>(panel));
    __m256i const pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(row), _mm256_sign_epi8(codes, row));
    return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
#elif defined(__SSE2__) && !defined(__AVX__)
    __m128i const row = _mm_set1_epi32(four);
    __m128i const codes = _mm_loadu_si128(reinterpret_cast<__m128i const*>(panel));
    auto const low = [](__m128i x) { return _mm_srai_epi16(_mm_unpacklo_epi8(x, x), 8); };
    auto const high = [](__m128i x) { return _mm_srai_epi16(_mm_unpackhi_epi8(x, x), 8); };
    __m128 const first = _mm_castsi128_ps(_mm_madd_epi16(low(codes), low(row)));
    __m128 const second = _mm_castsi128_ps(_mm_madd_epi16(high(codes), high(row)));
    __m128i const even = _mm_castps_si128(_mm_shuffle_ps(first, second, _MM_SHUFFLE(2, 0, 2, 0)));
    __m128i const odd = _mm_castps_si128(_mm_shuffle_ps(first, second, _MM_SHUFFLE(3, 1, 3, 1)));
    return _mm_add_epi32(sum, _mm_add_epi32(even, odd));
#elif defined(__ARM_NEON) && defined(__aarch64__)
    int8x16_t const row = vreinterpretq_s8_s32(vdupq_n_s32(four));
    int8x16_t const codes = vreinterpretq_s8_u8(vld1q_u8(panel));
#if defined(__ARM_FEATURE_DOTPROD)
    return vector_int32(vdotq_s32(sum, codes, row));
#else
    int32x4_t const first = vpaddlq_s16(vmull_s8(vget_low_s8(codes), vget_low_s8(row)));
    int32x4_t const second = vpaddlq_s16(vmull_s8(vget_high_s8(codes), vget_high_s8(row)));
    return vector_int32(vaddq_s32(sum, vpaddq_s32(first, second)));
#endif
#else
    return detail::dot_plain(sum, panel, four);
#endif
}

} // namespace sofattn::exec
