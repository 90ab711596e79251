// SPDX-License-Identifier: MIT
// 16-bit integers side by side, twice as many as floats: what selection computes with.
#pragma once

#include <sofattn/core/types.hpp>
#include <sofattn/exec/integer_lanes.hpp>
#include <sofattn/exec/xsimd_lanes.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace sofattn::exec {

inline constexpr index_t short_width = 2 * vector_width;

namespace detail {

#if defined(__AVX512BW__)
#define SOFATTN_SHORTS 512
using short_register = __m512i;
#elif defined(__AVX2__) && !defined(__AVX512F__)
#define SOFATTN_SHORTS 256
using short_register = __m256i;
#elif defined(__SSE2__) && !defined(__AVX__)
#define SOFATTN_SHORTS 128
using short_register = __m128i;
#elif defined(__ARM_NEON) && defined(__aarch64__)
#define SOFATTN_SHORTS 64
using short_register = uint16x8_t;
#else
#define SOFATTN_SHORTS 0
using short_register = std::array<std::uint16_t, static_cast<std::size_t>(short_width)>;
#endif

} // namespace detail

/// A register of 16-bit integers; operations say whether they take them for signed.
struct vector_int16 {
    detail::short_register lanes;
};

[[nodiscard]] inline vector_int16 load(std::int16_t const* from) noexcept {
#if SOFATTN_SHORTS == 512
    return {_mm512_loadu_si512(from)};
#elif SOFATTN_SHORTS == 256
    return {_mm256_loadu_si256(reinterpret_cast<__m256i const*>(from))};
#elif SOFATTN_SHORTS == 128
    return {_mm_loadu_si128(reinterpret_cast<__m128i const*>(from))};
#elif SOFATTN_SHORTS == 64
    return {vreinterpretq_u16_s16(vld1q_s16(from))};
#else
    vector_int16 r;
    std::memcpy(r.lanes.data(), from, sizeof r.lanes);
    return r;
#endif
}

inline void store(std::int16_t* to, vector_int16 x) noexcept {
    std::memcpy(to, &x.lanes, sizeof x.lanes);
}

/// x in every lane.
[[nodiscard]] inline vector_int16 all_shorts(int x) noexcept {
#if SOFATTN_SHORTS == 512
    return {_mm512_set1_epi16(static_cast<short>(x))};
#elif SOFATTN_SHORTS == 256
    return {_mm256_set1_epi16(static_cast<short>(x))};
#elif SOFATTN_SHORTS == 128
    return {_mm_set1_epi16(static_cast<short>(x))};
#elif SOFATTN_SHORTS == 64
    return {vdupq_n_u16(static_cast<std::uint16_t>(x))};
#else
    vector_int16 r{};
    for (std::size_t i = 0; i < r.lanes.size(); ++i) {
        r.lanes[i] = static_cast<std::uint16_t>(x);
    }
    return r;
#endif
}

/// Modulo 2^16.
[[nodiscard]] inline vector_int16 operator-(vector_int16 a, vector_int16 b) noexcept {
#if SOFATTN_SHORTS == 512
    return {_mm512_sub_epi16(a.lanes, b.lanes)};
#elif SOFATTN_SHORTS == 256
    return {_mm256_sub_epi16(a.lanes, b.lanes)};
#elif SOFATTN_SHORTS == 128
    return {_mm_sub_epi16(a.lanes, b.lanes)};
#elif SOFATTN_SHORTS == 64
    return {vsubq_u16(a.lanes, b.lanes)};
#else
    vector_int16 r{};
    for (std::size_t i = 0; i < r.lanes.size(); ++i) {
        r.lanes[i] = static_cast<std::uint16_t>(a.lanes[i] - b.lanes[i]);
    }
    return r;
#endif
}

/// Modulo 2^16.
[[nodiscard]] inline vector_int16 operator+(vector_int16 a, vector_int16 b) noexcept {
#if SOFATTN_SHORTS == 512
    return {_mm512_add_epi16(a.lanes, b.lanes)};
#elif SOFATTN_SHORTS == 256
    return {_mm256_add_epi16(a.lanes, b.lanes)};
#elif SOFATTN_SHORTS == 128
    return {_mm_add_epi16(a.lanes, b.lanes)};
#elif SOFATTN_SHORTS == 64
    return {vaddq_u16(a.lanes, b.lanes)};
#else
    vector_int16 r{};
    for (std::size_t i = 0; i < r.lanes.size(); ++i) {
        r.lanes[i] = static_cast<std::uint16_t>(a.lanes[i] + b.lanes[i]);
    }
    return r;
#endif
}

/// a - b of unsigned lanes, 0 where b is larger.
[[nodiscard]] inline vector_int16 less_by(vector_int16 a, vector_int16 b) noexcept {
#if SOFATTN_SHORTS == 512
    return {_mm512_subs_epu16(a.lanes, b.lanes)};
#elif SOFATTN_SHORTS == 256
    return {_mm256_subs_epu16(a.lanes, b.lanes)};
#elif SOFATTN_SHORTS == 128
    return {_mm_subs_epu16(a.lanes, b.lanes)};
#elif SOFATTN_SHORTS == 64
    return {vqsubq_u16(a.lanes, b.lanes)};
#else
    vector_int16 r{};
    for (std::size_t i = 0; i < r.lanes.size(); ++i) {
        r.lanes[i] =
            static_cast<std::uint16_t>(a.lanes[i] > b.lanes[i] ? a.lanes[i] - b.lanes[i] : 0);
    }
    return r;
#endif
}

/// (x + 1) / 2 of unsigned lanes, rounded down.
[[nodiscard]] inline vector_int16 rounded_half(vector_int16 x) noexcept {
#if SOFATTN_SHORTS == 512
    return {_mm512_avg_epu16(x.lanes, _mm512_setzero_si512())};
#elif SOFATTN_SHORTS == 256
    return {_mm256_avg_epu16(x.lanes, _mm256_setzero_si256())};
#elif SOFATTN_SHORTS == 128
    return {_mm_avg_epu16(x.lanes, _mm_setzero_si128())};
#elif SOFATTN_SHORTS == 64
    return {vrshrq_n_u16(x.lanes, 1)};
#else
    vector_int16 r{};
    for (std::size_t i = 0; i < r.lanes.size(); ++i) {
        r.lanes[i] = static_cast<std::uint16_t>((x.lanes[i] + 1u) >> 1);
    }
    return r;
#endif
}
/// By a constant. Bits leave at the top.
template <int By>
[[nodiscard]] inline vector_int16 shifted_left(vector_int16 x) noexcept {
#if SOFATTN_SHORTS == 512
    return {_mm512_slli_epi16(x.lanes, By)};
#elif SOFATTN_SHORTS == 256
    return {_mm256_slli_epi16(x.lanes, By)};
#elif SOFATTN_SHORTS == 128
    return {_mm_slli_epi16(x.lanes, By)};
#elif SOFATTN_SHORTS == 64
    return {vshlq_n_u16(x.lanes, By)};
#else
    vector_int16 r{};
    for (std::size_t i = 0; i < r.lanes.size(); ++i) {
        r.lanes[i] = static_cast<std::uint16_t>(x.lanes[i] << By);
    }
    return r;
#endif
}

/// By a constant. Unsigned.
template <int By>
[[nodiscard]] inline vector_int16 shifted_right(vector_int16 x) noexcept {
#if SOFATTN_SHORTS == 512
    return {_mm512_srli_epi16(x.lanes, By)};
#elif SOFATTN_SHORTS == 256
    return {_mm256_srli_epi16(x.lanes, By)};
#elif SOFATTN_SHORTS == 128
    return {_mm_srli_epi16(x.lanes, By)};
#elif SOFATTN_SHORTS == 64
    return {vshrq_n_u16(x.lanes, By)};
#else
    vector_int16 r{};
    for (std::size_t i = 0; i < r.lanes.size(); ++i) {
        r.lanes[i] = static_cast<std::uint16_t>(x.lanes[i] >> By);
    }
    return r;
#endif
}

/// a * b / 2^16 of unsigned lanes, rounded down.
[[nodiscard]] inline vector_int16 high_product(vector_int16 a, vector_int16 b) noexcept {
#if SOFATTN_SHORTS == 512
    return {_mm512_mulhi_epu16(a.lanes, b.lanes)};
#elif SOFATTN_SHORTS == 256
    return {_mm256_mulhi_epu16(a.lanes, b.lanes)};
#elif SOFATTN_SHORTS == 128
    return {_mm_mulhi_epu16(a.lanes, b.lanes)};
#elif SOFATTN_SHORTS == 64
    uint32x4_t const low = vmull_u16(vget_low_u16(a.lanes), vget_low_u16(b.lanes));
    uint32x4_t const high = vmull_high_u16(a.lanes, b.lanes);
    return {vuzp2q_u16(vreinterpretq_u16_u32(low), vreinterpretq_u16_u32(high))};
#else
    vector_int16 r{};
    for (std::size_t i = 0; i < r.lanes.size(); ++i) {
        r.lanes[i] =
            static_cast<std::uint16_t>((static_cast<std::uint32_t>(a.lanes[i]) * b.lanes[i]) >> 16);
    }
    return r;
#endif
}

/// The larger of signed lanes.
[[nodiscard]] inline vector_int16 larger(vector_int16 a, vector_int16 b) noexcept {
#if SOFATTN_SHORTS == 512
    return {_mm512_max_epi16(a.lanes, b.lanes)};
#elif SOFATTN_SHORTS == 256
    return {_mm256_max_epi16(a.lanes, b.lanes)};
#elif SOFATTN_SHORTS == 128
    return {_mm_max_epi16(a.lanes, b.lanes)};
#elif SOFATTN_SHORTS == 64
    return {vreinterpretq_u16_s16(
        vmaxq_s16(vreinterpretq_s16_u16(a.lanes), vreinterpretq_s16_u16(b.lanes)))};
#else
    vector_int16 r{};
    for (std::size_t i = 0; i < r.lanes.size(); ++i) {
        r.lanes[i] = static_cast<std::uint16_t>(
            std::max(static_cast<std::int16_t>(a.lanes[i]), static_cast<std::int16_t>(b.lanes[i])));
    }
    return r;
#endif
}

/// Shift of unsigned lanes, each by its own distance; nothing is left from 16 on.
[[nodiscard]] inline vector_int16 shifted_right(vector_int16 x, vector_int16 by) noexcept {
#if SOFATTN_SHORTS == 512
    return {_mm512_srlv_epi16(x.lanes, by.lanes)};
#elif SOFATTN_SHORTS == 64
    return {
        vshlq_u16(x.lanes, vnegq_s16(vreinterpretq_s16_u16(vminq_u16(by.lanes, vdupq_n_u16(16)))))};
#else
    std::array<std::uint16_t, static_cast<std::size_t>(short_width)> lanes;
    std::array<std::uint16_t, static_cast<std::size_t>(short_width)> distance;
    std::memcpy(lanes.data(), &x.lanes, sizeof lanes);
    std::memcpy(distance.data(), &by.lanes, sizeof distance);
    for (std::size_t i = 0; i < lanes.size(); ++i) {
        lanes[i] = distance[i] > 15 ? std::uint16_t{0}
                                    : static_cast<std::uint16_t>(lanes[i] >> distance[i]);
    }
    vector_int16 shifted;
    std::memcpy(&shifted.lanes, lanes.data(), sizeof lanes);
    return shifted;
#endif
}

/// Half of the lanes as unsigned numbers of 32 bits; which half goes where is the target's choice,
/// the same for every x.
[[nodiscard]] inline std::array<vector_int32, 2> widened(vector_int16 x) noexcept {
#if SOFATTN_SHORTS == 512
    return {_mm512_unpacklo_epi16(x.lanes, _mm512_setzero_si512()),
            _mm512_unpackhi_epi16(x.lanes, _mm512_setzero_si512())};
#elif SOFATTN_SHORTS == 256
    return {_mm256_unpacklo_epi16(x.lanes, _mm256_setzero_si256()),
            _mm256_unpackhi_epi16(x.lanes, _mm256_setzero_si256())};
#elif SOFATTN_SHORTS == 128
    return {_mm_unpacklo_epi16(x.lanes, _mm_setzero_si128()),
            _mm_unpackhi_epi16(x.lanes, _mm_setzero_si128())};
#elif SOFATTN_SHORTS == 64
    return {vector_int32(vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(x.lanes)))),
            vector_int32(vreinterpretq_s32_u32(vmovl_high_u16(x.lanes)))};
#else
    detail::int_array low;
    detail::int_array high;
    for (std::size_t i = 0; i < low.size(); ++i) {
        low[i] = x.lanes[i];
        high[i] = x.lanes[i + low.size()];
    }
    return {load(low.data()), load(high.data())};
#endif
}

/// Sums of pairs of lanes, which must be below 2^15, in 32 bits.
[[nodiscard]] inline vector_int32 pair_sums(vector_int16 x) noexcept {
#if SOFATTN_SHORTS == 512
    return _mm512_madd_epi16(x.lanes, _mm512_set1_epi16(1));
#elif SOFATTN_SHORTS == 256
    return _mm256_madd_epi16(x.lanes, _mm256_set1_epi16(1));
#elif SOFATTN_SHORTS == 128
    return _mm_madd_epi16(x.lanes, _mm_set1_epi16(1));
#else
    auto const halves = widened(x);
    return halves[0] + halves[1];
#endif
}

/// Which signed lanes of a are above b's, lane i in bit i.
[[nodiscard]] inline lane_mask lanes_above(vector_int16 a, vector_int16 b) noexcept {
#if SOFATTN_SHORTS == 512
    return _mm512_cmpgt_epi16_mask(a.lanes, b.lanes);
#elif SOFATTN_SHORTS == 256
    __m256i const above = _mm256_cmpgt_epi16(a.lanes, b.lanes);
    return static_cast<lane_mask>(_mm_movemask_epi8(
        _mm_packs_epi16(_mm256_castsi256_si128(above), _mm256_extracti128_si256(above, 1))));
#elif SOFATTN_SHORTS == 128
    return static_cast<lane_mask>(
        _mm_movemask_epi8(_mm_packs_epi16(_mm_cmpgt_epi16(a.lanes, b.lanes), _mm_setzero_si128())));
#else
    std::array<std::int16_t, static_cast<std::size_t>(short_width)> x;
    std::array<std::int16_t, static_cast<std::size_t>(short_width)> y;
    std::memcpy(x.data(), &a.lanes, sizeof x);
    std::memcpy(y.data(), &b.lanes, sizeof y);
    lane_mask mask = 0;
    for (std::size_t i = 0; i < x.size(); ++i) {
        mask |= static_cast<lane_mask>(x[i] > y[i]) << i;
    }
    return mask;
#endif
}

/// Writes the lanes of `mask` to `to`, in order and without gaps; returns how many. A whole register
/// is written: `to` needs short_width places.
inline index_t compress(lane_mask mask, vector_int16 x, std::int16_t* to) noexcept {
#if SOFATTN_SHORTS == 512 && defined(__AVX512VBMI2__)
    _mm512_storeu_si512(to, _mm512_maskz_compress_epi16(mask, x.lanes));
#elif SOFATTN_SHORTS == 512
    auto const half = [&](__m256i lanes, lane_mask of, std::int16_t* into) {
        __m512i const packed =
            _mm512_maskz_compress_epi32(static_cast<__mmask16>(of), _mm512_cvtepi16_epi32(lanes));
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(into), _mm512_cvtepi32_epi16(packed));
    };
    half(_mm512_castsi512_si256(x.lanes), mask & 0xffffu, to);
    half(_mm512_extracti64x4_epi64(x.lanes, 1), mask >> 16, to + std::popcount(mask & 0xffffu));
#else
    std::array<std::int16_t, static_cast<std::size_t>(short_width)> lanes;
    std::memcpy(lanes.data(), &x.lanes, sizeof lanes);
    index_t count = 0;
    for (std::size_t i = 0; i < lanes.size(); ++i) {
        to[count] = lanes[i];
        count += static_cast<index_t>((mask >> i) & 1u);
    }
#endif
    return std::popcount(mask);
}

/// The reverse, for floats: the lanes of `mask` of short_width ones get those of `from`, in order; the
/// others are 0. Whole registers are read: short_width places of `from`.
inline void spread(lane_mask mask, float const* from, float* to) noexcept {
#if SOFATTN_SHORTS == 512
    // Loaded first: an expanding load is slow on AMD, as a compressing store is.
    auto const half = [](lane_mask of, float const* start, float* into) {
        _mm512_storeu_ps(
            into, _mm512_maskz_expand_ps(static_cast<__mmask16>(of), _mm512_loadu_ps(start)));
    };
    half(mask & 0xffffu, from, to);
    half(mask >> 16, from + std::popcount(mask & 0xffffu), to + vector_width);
#else
    for (index_t i = 0; i < short_width; ++i) {
        bool const is_next = (mask >> i & 1u) != 0;
        to[i] = is_next ? *from : 0.0f;
        from += is_next ? 1 : 0;
    }
#endif
}

/// 0, 1, 2, ...
[[nodiscard]] inline vector_int16 short_numbers() noexcept {
    std::array<std::int16_t, static_cast<std::size_t>(short_width)> lanes;
    for (std::size_t i = 0; i < lanes.size(); ++i) {
        lanes[i] = static_cast<std::int16_t>(i);
    }
    return load(lanes.data());
}

/// The smallest of unsigned lanes.
[[nodiscard]] inline std::uint16_t smallest_unsigned(vector_int16 x) noexcept {
#if SOFATTN_SHORTS == 512 || SOFATTN_SHORTS == 256
#if SOFATTN_SHORTS == 512
    __m256i const half =
        _mm256_min_epu16(_mm512_castsi512_si256(x.lanes), _mm512_extracti64x4_epi64(x.lanes, 1));
#else
    __m256i const half = x.lanes;
#endif
    __m128i const eight =
        _mm_min_epu16(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
    return static_cast<std::uint16_t>(_mm_extract_epi16(_mm_minpos_epu16(eight), 0));
#else
    std::array<std::uint16_t, static_cast<std::size_t>(short_width)> lanes;
    std::memcpy(lanes.data(), &x.lanes, sizeof lanes);
    return *std::ranges::min_element(lanes);
#endif
}

/// The largest of signed lanes.
[[nodiscard]] inline std::int16_t largest(vector_int16 x) noexcept {
    // Turned round they are unsigned, the largest the smallest.
    auto const turned = smallest_unsigned(all_shorts(0x7fff) - x);
    return static_cast<std::int16_t>(0x7fff - turned);
}

/// vector_width signed 16-bit numbers in 32 bits.
[[nodiscard]] inline vector_int32 load_widened(std::int16_t const* from) noexcept {
#if SOFATTN_SHORTS == 512
    return _mm512_cvtepi16_epi32(_mm256_loadu_si256(reinterpret_cast<__m256i const*>(from)));
#elif SOFATTN_SHORTS == 256
    return _mm256_cvtepi16_epi32(_mm_loadu_si128(reinterpret_cast<__m128i const*>(from)));
#else
    detail::int_array lanes;
    std::copy_n(from, lanes.size(), lanes.begin());
    return load(lanes.data());
#endif
}

/// Rounds to nearest, ties to even, into 16 bits: the lanes of `low`, then those of `high`. pre: they fit
[[nodiscard]] inline vector_int16 rounded_shorts(vector_float low, vector_float high) noexcept {
#if SOFATTN_SHORTS == 512
    __m256i const first = _mm512_cvtepi32_epi16(_mm512_cvtps_epi32(low));
    __m256i const second = _mm512_cvtepi32_epi16(_mm512_cvtps_epi32(high));
    return {_mm512_inserti64x4(_mm512_castsi256_si512(first), second, 1)};
#elif SOFATTN_SHORTS == 256
    __m256i const both = _mm256_packs_epi32(_mm256_cvtps_epi32(low), _mm256_cvtps_epi32(high));
    return {_mm256_permute4x64_epi64(both, _MM_SHUFFLE(3, 1, 2, 0))};
#elif SOFATTN_SHORTS == 128
    return {_mm_packs_epi32(_mm_cvtps_epi32(low), _mm_cvtps_epi32(high))};
#elif SOFATTN_SHORTS == 64
    return {vreinterpretq_u16_s16(
        vcombine_s16(vmovn_s32(vcvtnq_s32_f32(low)), vmovn_s32(vcvtnq_s32_f32(high))))};
#else
    std::array<float, static_cast<std::size_t>(short_width)> lanes;
    store(lanes.data(), low);
    store(lanes.data() + vector_width, high);
    vector_int16 r;
    for (std::size_t i = 0; i < lanes.size(); ++i) {
        r.lanes[i] = static_cast<std::uint16_t>(static_cast<int>(std::nearbyint(lanes[i])));
    }
    return r;
#endif
}

#undef SOFATTN_SHORTS

} // namespace sofattn::exec
