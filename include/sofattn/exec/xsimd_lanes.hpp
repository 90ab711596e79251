// SPDX-License-Identifier: MIT
// Floats side by side on the machine's registers: the one header that knows xsimd.
#pragma once

#include <sofattn/core/bfloat16.hpp>
#include <sofattn/core/element.hpp>
#include <sofattn/core/half.hpp>
#include <sofattn/core/types.hpp>

#include <xsimd/xsimd.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace sofattn::exec {

/// As many floats as a register of the target holds: 4 with SSE2 and NEON, 8 with AVX, 16 with AVX-512.
using vector_float = xsimd::batch<float>;
/// As many integers.
using vector_int32 = xsimd::batch<std::int32_t>;

inline constexpr index_t vector_width = static_cast<index_t>(vector_float::size);

/// Registers that a kernel may fill.
inline constexpr int vector_registers =
    sizeof(vector_float) == 64 || std::is_same_v<xsimd::default_arch, xsimd::neon64> ? 32 : 16;

[[nodiscard]] inline vector_float load(float const* from) noexcept {
    return vector_float::load_unaligned(from);
}
inline void store(float* to, vector_float x) noexcept { x.store_unaligned(to); }
/// x in every lane.
[[nodiscard]] inline vector_float repeated(float x) noexcept { return vector_float(x); }

namespace detail {

/// Element by element, where the target converts no vectors.
template <storage_float T>
[[nodiscard]] inline vector_float widened(T const* from) noexcept {
    std::array<float, vector_float::size> wide;
    for (std::size_t i = 0; i < wide.size(); ++i) {
        wide[i] = to_float(from[i]);
    }
    return load(wide.data());
}
template <storage_float T>
inline void narrow(vector_float x, T* to) noexcept {
    std::array<float, vector_float::size> wide;
    store(wide.data(), x);
    for (std::size_t i = 0; i < wide.size(); ++i) {
        to[i] = T(wide[i]);
    }
}

} // namespace detail

/// vector_width halves as floats, exactly.
[[nodiscard]] inline vector_float load(half const* from) noexcept {
#if defined(__AVX512F__)
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<__m256i const*>(from)));
#elif defined(__AVX__) && defined(__F16C__)
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<__m128i const*>(from)));
#else
    return detail::widened(from);
#endif
}
/// vector_width bfloat16 as floats, exactly: their bits are a float's upper ones.
[[nodiscard]] inline vector_float load(bfloat16 const* from) noexcept {
#if defined(__AVX512F__)
    __m256i const bits = _mm256_loadu_si256(reinterpret_cast<__m256i const*>(from));
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
#elif defined(__AVX2__)
    __m128i const bits = _mm_loadu_si128(reinterpret_cast<__m128i const*>(from));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
#else
    return detail::widened(from);
#endif
}

/// vector_width floats as halves, to the bits of half(x).
inline void store(half* to, vector_float x) noexcept {
    // Rounds to nearest whatever the program's mode is. A NaN keeps what fits of its payload.
#if defined(__AVX512F__)
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to),
                        _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
#elif defined(__AVX__) && defined(__F16C__)
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
#else
    detail::narrow(x, to);
#endif
}
/// vector_width floats as bfloat16, to the bits of bfloat16(x). Not by AVX512-BF16's conversion, which
/// takes subnormal numbers for 0.
inline void store(bfloat16* to, vector_float x) noexcept {
#if defined(__AVX512F__)
    __m512i const bits = _mm512_castps_si512(x);
    __m512i const upper = _mm512_srli_epi32(bits, 16);
    __m512i const odd = _mm512_and_si512(upper, _mm512_set1_epi32(1));
    __m512i const rounded = _mm512_srli_epi32(
        _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff))), 16);
    __mmask16 const is_nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
    __m512i const all =
        _mm512_mask_or_epi32(rounded, is_nan, upper, _mm512_set1_epi32(0x40)); // stays NaN
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm512_cvtepi32_epi16(all));
#elif defined(__AVX2__)
    __m256i const bits = _mm256_castps_si256(x);
    __m256i const upper = _mm256_srli_epi32(bits, 16);
    __m256i const odd = _mm256_and_si256(upper, _mm256_set1_epi32(1));
    __m256i const rounded = _mm256_srli_epi32(
        _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff))), 16);
    __m256i const is_nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
    __m256i const all = _mm256_blendv_epi8(rounded, _mm256_or_si256(upper, _mm256_set1_epi32(0x40)),
                                           is_nan); // stays NaN
    __m256i const in_quarters = _mm256_packus_epi32(all, all);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to),
                     _mm256_castsi256_si128(_mm256_permute4x64_epi64(in_quarters, 0b1000)));
#else
    detail::narrow(x, to);
#endif
}

/// vector_width signed bytes as floats.
[[nodiscard]] inline vector_float load(std::int8_t const* from) noexcept {
#if defined(__AVX512F__)
    return _mm512_cvtepi32_ps(
        _mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<__m128i const*>(from))));
#elif defined(__AVX2__)
    return _mm256_cvtepi32_ps(
        _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<__m128i const*>(from))));
#else
    std::array<float, vector_float::size> wide;
    for (std::size_t i = 0; i < wide.size(); ++i) {
        wide[i] = static_cast<float>(from[i]);
    }
    return load(wide.data());
#endif
}
/// Lane i is from[i % Count].
template <int Count>
    requires(Count > 0 && vector_float::size % Count == 0)
[[nodiscard]] inline vector_float repeated(float const* from) noexcept {
    if constexpr (Count == vector_float::size) {
        return load(from);
    } else if constexpr (Count == 1) {
        return vector_float(*from);
    } else {
#if defined(__AVX512F__)
        if constexpr (Count == 4) {
            return _mm512_broadcast_f32x4(_mm_loadu_ps(from));
        } else if constexpr (Count == 8) {
            return _mm512_castpd_ps(
                _mm512_broadcast_f64x4(_mm256_castps_pd(_mm256_loadu_ps(from))));
        }
#endif
        std::array<float, vector_float::size> lanes;
        for (std::size_t i = 0; i < lanes.size(); ++i) {
            lanes[i] = from[i % static_cast<std::size_t>(Count)];
        }
        return load(lanes.data());
    }
}

/// Lane i is the sum of the lanes of rows[i], all of them added in the same order. Always inlined: where GCC has
/// much else to inline it would call it with all registers in memory, a tenth of a decode step's products.
[[nodiscard, gnu::always_inline]] inline vector_float
sums_of(std::array<vector_float, vector_float::size> const& rows) noexcept {
#if defined(__AVX512F__) // xsimd 8.1 puts these sums in other lanes
    // Sums of four rows in each quarter of a register, then quarters are added.
    auto const quads = [&](std::size_t i) {
        auto const pairs = [](__m512 a, __m512 b) {
            return _mm512_castps_pd(
                _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b)));
        };
        __m512d const ab = pairs(rows[i], rows[i + 1]);
        __m512d const cd = pairs(rows[i + 2], rows[i + 3]);
        return _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(ab, cd)),
                             _mm512_castpd_ps(_mm512_unpackhi_pd(ab, cd)));
    };
    auto const halves = [](__m512 a, __m512 b) {
        return _mm512_add_ps(_mm512_shuffle_f32x4(a, b, _MM_SHUFFLE(1, 0, 1, 0)),
                             _mm512_shuffle_f32x4(a, b, _MM_SHUFFLE(3, 2, 3, 2)));
    };
    __m512 const low = halves(quads(0), quads(4));
    __m512 const high = halves(quads(8), quads(12));
    return _mm512_add_ps(_mm512_shuffle_f32x4(low, high, _MM_SHUFFLE(2, 0, 2, 0)),
                         _mm512_shuffle_f32x4(low, high, _MM_SHUFFLE(3, 1, 3, 1)));
#else
    return xsimd::haddp(rows.data());
#endif
}

/// x, in a register from here on. GCC would rather load an operand again for each of its uses, which
/// costs more than the multiply-adds that use it.
[[nodiscard]] inline vector_float held(vector_float x) noexcept {
#if defined(__GNUC__) && defined(__AVX512F__)
    __m512 in = x;
    asm("" : "+v"(in));
    return in;
#else
    return x;
#endif
}

/// a * b + c, fused where the target can.
[[nodiscard]] inline vector_float multiply_add(vector_float a, vector_float b,
                                               vector_float c) noexcept {
#ifdef __AVX512F__ // xsimd 8 multiplies and adds there
    return _mm512_fmadd_ps(a, b, c);
#else
    return xsimd::fma(a, b, c);
#endif
}
[[nodiscard]] inline vector_float larger(vector_float a, vector_float b) noexcept {
    return xsimd::max(a, b);
}
[[nodiscard]] inline vector_float smaller(vector_float a, vector_float b) noexcept {
    return xsimd::min(a, b);
}
/// a where `below` < `limit`, else b.
[[nodiscard]] inline vector_float if_below(vector_float below, vector_float limit, vector_float a,
                                           vector_float b) noexcept {
    return xsimd::select(below < limit, a, b);
}

/// All lanes, from the outside in: one order, so the bits depend on the target alone.
[[nodiscard]] inline float sum_of(vector_float x) noexcept {
#ifdef __AVX512F__
    return _mm512_reduce_add_ps(x);
#else
    alignas(64) float lanes[vector_float::size];
    x.store_aligned(lanes);
    for (std::size_t half = vector_float::size / 2; half > 0; half /= 2) {
        for (std::size_t i = 0; i < half; ++i) {
            lanes[i] += lanes[i + half];
        }
    }
    return lanes[0];
#endif
}

[[nodiscard]] inline float largest(vector_float x) noexcept {
#ifdef __AVX512F__
    return _mm512_reduce_max_ps(x);
#else
    alignas(64) float lanes[vector_float::size];
    x.store_aligned(lanes);
    float most = lanes[0];
    for (std::size_t i = 1; i < vector_float::size; ++i) {
        most = lanes[i] > most ? lanes[i] : most;
    }
    return most;
#endif
}

/// 2^x for x <= 0 and somewhat above, up to 127, within 2e-7 relatively; 0 below -126. A polynomial of degree 5 on [-1/2, 1/2],
/// minimax in relative error among those that are 1 at 0, so that the largest logit weighs exactly 1.
[[nodiscard]] inline vector_float exp2_of_negative(vector_float x) noexcept {
    vector_float const lowest(-126.0f);
#ifdef __AVX512DQ__                               // 9 instructions instead of 14
    vector_float const f(_mm512_reduce_ps(x, 0)); // 0: x less the nearest whole number
    vector_float const whole = x - f;
#else
    vector_float const within = xsimd::max(x, lowest);
    vector_float const whole = xsimd::nearbyint(within);
    vector_float const f = within - whole;
#endif
    vector_float p(1.32647273e-3f);
    p = multiply_add(p, f, vector_float(9.67151299e-3f));
    p = multiply_add(p, f, vector_float(5.55073358e-2f));
    p = multiply_add(p, f, vector_float(2.40222424e-1f));
    p = multiply_add(p, f, vector_float(6.93147004e-1f));
    p = multiply_add(p, f, vector_float(1.0f));
#ifdef __AVX512DQ__
    return vector_float(
        _mm512_maskz_scalef_ps(_mm512_cmp_ps_mask(x, lowest, _CMP_GE_OQ), p, whole));
#else
    // Adds to the exponent: the result is a normal number.
    using vector_int = xsimd::batch<std::int32_t>;
    vector_int const bits = xsimd::bitwise_cast<vector_int>(p) + (xsimd::to_int(whole) << 23);
    return xsimd::select(x < lowest, vector_float(0.0f), xsimd::bitwise_cast<vector_float>(bits));
#endif
}

} // namespace sofattn::exec
