// SPDX-License-Identifier: MIT
// Integers side by side: what xsimd lacks, or some version of it has only as a loop.
#pragma once

#include <sofattn/core/types.hpp>
#include <sofattn/exec/xsimd_lanes.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

namespace sofattn::exec {

namespace detail {

using int_array = std::array<std::int32_t, static_cast<std::size_t>(vector_width)>;

[[nodiscard]] inline int_array lanes_of(vector_int32 x) noexcept {
    int_array lanes;
    x.store_unaligned(lanes.data());
    return lanes;
}

} // namespace detail

[[nodiscard]] inline vector_int32 load(std::int32_t const* from) noexcept {
    return vector_int32::load_unaligned(from);
}
inline void store(std::int32_t* to, vector_int32 x) noexcept { x.store_unaligned(to); }

[[nodiscard]] inline vector_int32 larger(vector_int32 a, vector_int32 b) noexcept {
    return xsimd::max(a, b);
}
[[nodiscard]] inline vector_int32 smaller(vector_int32 a, vector_int32 b) noexcept {
    return xsimd::min(a, b);
}
[[nodiscard]] inline std::int32_t smallest(vector_int32 x) noexcept {
#if defined(__AVX512F__)
    return _mm512_reduce_min_epi32(x);
#else
    auto const lanes = detail::lanes_of(x);
    return *std::ranges::min_element(lanes);
#endif
}
[[nodiscard]] inline std::int32_t largest(vector_int32 x) noexcept {
#if defined(__AVX512F__)
    return _mm512_reduce_max_epi32(x);
#else
    auto const lanes = detail::lanes_of(x);
    return *std::ranges::max_element(lanes);
#endif
}

[[nodiscard]] inline vector_float to_float(vector_int32 x) noexcept { return xsimd::to_float(x); }
/// Toward zero. pre: representable
[[nodiscard]] inline vector_int32 truncated(vector_float x) noexcept { return xsimd::to_int(x); }

/// Logical shift of each lane by its own distance; nothing is left from 32 on.
[[nodiscard]] inline vector_int32 shifted_right(vector_int32 x, vector_int32 by) noexcept {
#if defined(__AVX512F__)
    return _mm512_srlv_epi32(x, by);
#elif defined(__AVX2__)
    return _mm256_srlv_epi32(x, by);
#elif defined(__ARM_NEON) && defined(__aarch64__)
    // Distances count by their lowest byte.
    int32x4_t const distance = vminq_s32(by, vdupq_n_s32(32));
    return vector_int32(
        vreinterpretq_s32_u32(vshlq_u32(vreinterpretq_u32_s32(x), vnegq_s32(distance))));
#else
    auto lanes = detail::lanes_of(x);
    auto const distance = detail::lanes_of(by);
    for (std::size_t i = 0; i < lanes.size(); ++i) {
        lanes[i] =
            distance[i] > 31
                ? 0
                : static_cast<std::int32_t>(static_cast<std::uint32_t>(lanes[i]) >> distance[i]);
    }
    return load(lanes.data());
#endif
}

/// The sum of eight integers that follow each other; of unsigned ones modulo 2^32.
[[nodiscard]] inline std::int32_t sum_of_eight(std::int32_t const* from) noexcept {
#if defined(__SSE2__)
    __m128i const low = _mm_loadu_si128(reinterpret_cast<__m128i const*>(from));
    __m128i const high = _mm_loadu_si128(reinterpret_cast<__m128i const*>(from + 4));
    __m128i const four = _mm_add_epi32(low, high);
    __m128i const two = _mm_add_epi32(four, _mm_shuffle_epi32(four, _MM_SHUFFLE(1, 0, 3, 2)));
    return _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32(two, _MM_SHUFFLE(2, 3, 0, 1))));
#elif defined(__ARM_NEON) && defined(__aarch64__)
    return vaddvq_s32(vaddq_s32(vld1q_s32(from), vld1q_s32(from + 4)));
#else
    std::int32_t sum = 0;
    for (int i = 0; i < 8; ++i) {
        sum += from[i];
    }
    return sum;
#endif
}

/// table[i] for the i of each lane, in [0, 8).
[[nodiscard]] inline vector_float looked_up(std::array<float, 8> const& table,
                                            vector_int32 i) noexcept {
#if defined(__AVX512F__)
    return _mm512_permutexvar_ps(i, _mm512_castps256_ps512(_mm256_loadu_ps(table.data())));
#elif defined(__AVX2__)
    return _mm256_permutevar8x32_ps(_mm256_loadu_ps(table.data()), i);
#else
    std::array<float, static_cast<std::size_t>(vector_width)> found;
    auto const at = detail::lanes_of(i);
    for (std::size_t lane = 0; lane < found.size(); ++lane) {
        found[lane] = table[static_cast<std::size_t>(at[lane])];
    }
    return vector_float::load_unaligned(found.data());
#endif
}

/// Which lanes meet a condition, lane i in bit i.
using lane_mask = std::uint32_t;

[[nodiscard]] inline lane_mask lanes_below(vector_int32 x, vector_int32 limit) noexcept {
#if defined(__AVX512F__)
    return _mm512_cmplt_epi32_mask(x, limit);
#elif defined(__AVX2__)
    return static_cast<lane_mask>(
        _mm256_movemask_ps(_mm256_castsi256_ps(_mm256_cmpgt_epi32(limit, x))));
#elif defined(__SSE2__) && !defined(__AVX__)
    return static_cast<lane_mask>(_mm_movemask_ps(_mm_castsi128_ps(_mm_cmplt_epi32(x, limit))));
#else
    auto const a = detail::lanes_of(x);
    auto const b = detail::lanes_of(limit);
    lane_mask mask = 0;
    for (std::size_t i = 0; i < a.size(); ++i) {
        mask |= static_cast<lane_mask>(a[i] < b[i]) << i;
    }
    return mask;
#endif
}

/// sum + x where x's lane in `of` is not below its limit.
[[nodiscard]] inline vector_int32 add_from(vector_int32 sum, vector_int32 of, vector_int32 limit,
                                           vector_int32 x) noexcept {
#if defined(__AVX512F__)
    return _mm512_mask_add_epi32(sum, _mm512_cmpge_epi32_mask(of, limit), sum, x);
#else
    return sum + xsimd::select(of < limit, vector_int32(0), x);
#endif
}

/// A sum of unsigned 32-bit lanes in 64 bits.
class wide_sum {
public:
    wide_sum() noexcept : even_(0), odd_(0) {}

    void add(vector_int32 x) noexcept {
        auto const pairs = xsimd::bitwise_cast<vector_uint64>(x);
        even_ = even_ + (pairs & vector_uint64(0xffffffffu));
        odd_ = odd_ + (pairs >> 32);
    }
    [[nodiscard]] std::uint64_t total() const noexcept {
#if defined(__AVX512F__)
        return static_cast<std::uint64_t>(_mm512_reduce_add_epi64(even_ + odd_));
#else
        std::array<std::uint64_t, vector_uint64::size> lanes;
        (even_ + odd_).store_unaligned(lanes.data());
        std::uint64_t sum = 0;
        for (std::uint64_t const lane : lanes) {
            sum += lane;
        }
        return sum;
#endif
    }

private:
    using vector_uint64 = xsimd::batch<std::uint64_t>;

    vector_uint64 even_;
    vector_uint64 odd_;
};

} // namespace sofattn::exec
