// SPDX-License-Identifier: MIT
// Dot products of 16-bit integers, two to a lane, and a block of their sums that never leaves the
// registers.
#pragma once

#include <sofattn/core/types.hpp>
#include <sofattn/exec/tile_product.hpp>
#include <sofattn/exec/xsimd_lanes.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace sofattn::exec {

/// Integers per lane of such a product.
inline constexpr index_t pair_depth = 2;

namespace detail {

/// The definition, for targets that have nothing better.
[[nodiscard]] inline vector_int32 dot_pairs_plain(vector_int32 sum, std::int16_t const* panel,
                                                  std::int32_t two) noexcept {
    std::array<std::int16_t, static_cast<std::size_t>(pair_depth)> row;
    std::memcpy(row.data(), &two, sizeof two);
    std::array<std::int32_t, static_cast<std::size_t>(vector_width)> lanes;
    sum.store_unaligned(lanes.data());
    for (std::size_t lane = 0; lane < lanes.size(); ++lane) {
        lanes[lane] += panel[2 * lane] * row[0] + panel[2 * lane + 1] * row[1];
    }
    return vector_int32::load_unaligned(lanes.data());
}

} // namespace detail

/// sum[lane] + the products of the two integers of each lane of `panel` [lane, pair_depth] with the
/// two in `two`. pre: none is -2^15, no sum leaves 32 bits. Exact.
[[nodiscard]] inline vector_int32 dot_pairs(vector_int32 sum, std::int16_t const* panel,
                                            std::int32_t two) noexcept {
#if defined(__AVX512VNNI__) && defined(__AVX512BW__)
    __m512i const pairs = _mm512_loadu_si512(panel);
    __m512i const row = _mm512_set1_epi32(two);
#if defined(__GNUC__) && !defined(__clang__)
    // As in int8_dot.hpp: GCC 12 copies the sum first.
    __m512i total = sum;
    asm("vpdpwssd\t%2, %1, %0" : "+v"(total) : "v"(pairs), "v"(row));
    return total;
#else
    return _mm512_dpwssd_epi32(sum, pairs, row);
#endif
#elif defined(__AVX512BW__)
    return _mm512_add_epi32(sum,
                            _mm512_madd_epi16(_mm512_loadu_si512(panel), _mm512_set1_epi32(two)));
#elif defined(__AVX2__) && !defined(__AVX512F__)
    return _mm256_add_epi32(
        sum, _mm256_madd_epi16(_mm256_loadu_si256(reinterpret_cast<__m256i const*>(panel)),
                               _mm256_set1_epi32(two)));
#elif defined(__SSE2__) && !defined(__AVX__)
    return _mm_add_epi32(sum,
                         _mm_madd_epi16(_mm_loadu_si128(reinterpret_cast<__m128i const*>(panel)),
                                        _mm_set1_epi32(two)));
#elif defined(__ARM_NEON) && defined(__aarch64__)
    int16x8_t const row = vreinterpretq_s16_s32(vdupq_n_s32(two));
    int16x8_t const pairs = vld1q_s16(panel);
    int32x4_t const first = vmull_s16(vget_low_s16(pairs), vget_low_s16(row));
    int32x4_t const second = vmull_s16(vget_high_s16(pairs), vget_high_s16(row));
    return vector_int32(vaddq_s32(sum, vpaddq_s32(first, second)));
#else
    return detail::dot_pairs_plain(sum, panel, two);
#endif
}

/// Where an int16_tile reads and writes.
struct int16_operands {
    std::int32_t const* rows;  ///< two integers of row r and step s at rows[r * row_stride + s]
    index_t row_stride;        ///< in steps
    std::int16_t const* panel; ///< [step, tile_width lanes, pair_depth]
    std::int32_t* sums;        ///< tile_width of row r at sums[r * sum_stride]
    index_t sum_stride;
    index_t steps;
};

namespace detail {

template <int Rows>
inline void int16_tile(int16_operands const& t) noexcept {
    constexpr index_t vector_shorts = pair_depth * vector_width;
    std::array<std::array<vector_int32, tile_vectors>, Rows> sum;
    unrolled<Rows>([&](auto r) __attribute__((always_inline)) {
        unrolled<tile_vectors>([&](auto v)
                                   __attribute__((always_inline)) { sum[r][v] = vector_int32(0); });
    });
    for (index_t step = 0; step < t.steps; ++step) {
        std::int16_t const* const panel = t.panel + step * tile_vectors * vector_shorts;
        unrolled<Rows>([&](auto r) __attribute__((always_inline)) {
            std::int32_t const two = t.rows[r * t.row_stride + step];
            unrolled<tile_vectors>([&](auto v) __attribute__((always_inline)) {
                sum[r][v] = dot_pairs(sum[r][v], panel + v * vector_shorts, two);
            });
        });
    }
    unrolled<Rows>([&](auto r) __attribute__((always_inline)) {
        unrolled<tile_vectors>([&](auto v) __attribute__((always_inline)) {
            sum[r][v].store_unaligned(t.sums + r * t.sum_stride + v * vector_width);
        });
    });
}

template <int Rows>
inline void int16_tile_of(index_t rows, int16_operands const& t) noexcept {
    if (rows == Rows) {
        return int16_tile<Rows>(t);
    }
    if constexpr (Rows > 1) {
        int16_tile_of<Rows - 1>(rows, t);
    }
}

} // namespace detail

/// Sums of `rows` rows, at most tile_rows, against tile_width columns. Exact.
inline void int16_tile(index_t rows, int16_operands const& t) noexcept {
    detail::int16_tile_of<tile_rows>(rows, t);
}

} // namespace sofattn::exec
