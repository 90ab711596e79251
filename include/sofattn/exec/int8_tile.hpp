// SPDX-License-Identifier: MIT
// The inner loop of prediction: a block of integer scores that never leaves the registers.
#pragma once

#include <sofattn/core/types.hpp>
#include <sofattn/exec/int8_dot.hpp>
#include <sofattn/exec/tile_product.hpp>
#include <sofattn/exec/xsimd_lanes.hpp>

#include <array>
#include <cstddef>
#include <cstdint>

namespace sofattn::exec {

/// Where an int8_tile reads and writes.
struct int8_operands {
    std::int32_t const* rows;   ///< four codes of row r and step s at rows[r * row_stride + s]
    index_t row_stride;         ///< in steps
    std::int32_t const* starts; ///< [row], dot_start of each
    std::uint8_t const* panel;  ///< [step, tile_width lanes, dot_depth]
    std::int32_t* sums;         ///< tile_width of row r at sums[r * sum_stride]
    index_t sum_stride;
    index_t steps;
};

namespace detail {

/// finish(sums [Rows][tile_vectors]), while they are in registers; `t.sums` is not written. From a
/// row's step to its next are `row_step`.
template <int Rows, class Finish>
[[gnu::always_inline]] inline void int8_sums(int8_operands const& t, index_t row_step,
                                             Finish&& finish) noexcept {
    std::array<std::array<vector_int32, tile_vectors>, Rows> sum;
    unrolled<Rows>([&](auto r) __attribute__((always_inline)) {
        unrolled<tile_vectors>([&](auto v) __attribute__((always_inline)) {
            sum[r][v] = vector_int32(t.starts[r]);
        });
    });
    for (index_t step = 0; step < t.steps; ++step) {
        std::uint8_t const* const panel = t.panel + step * tile_vectors * vector_bytes;
        std::int32_t const* const rows = t.rows + step * row_step;
        unrolled<Rows>([&](auto r) __attribute__((always_inline)) {
            std::int32_t const four = rows[r * t.row_stride];
            unrolled<tile_vectors>([&](auto v) __attribute__((always_inline)) {
                sum[r][v] = dot(sum[r][v], panel + v * vector_bytes, four);
            });
        });
    }
    finish(sum);
}

template <int Rows>
inline void int8_tile(int8_operands const& t) noexcept {
    int8_sums<Rows>(
        t, 1, [&](auto const& sum) __attribute__((always_inline)) {
            unrolled<Rows>([&](auto r) __attribute__((always_inline)) {
                unrolled<tile_vectors>([&](auto v) __attribute__((always_inline)) {
                    sum[r][v].store_unaligned(t.sums + r * t.sum_stride + v * vector_width);
                });
            });
        });
}

} // namespace detail

/// Scores of `rows` rows, at most tile_rows, against tile_width keys. Exact.
inline void int8_tile(index_t rows, int8_operands const& t) noexcept {
    static_assert(tile_rows == 6);
    switch (rows) {
    case 6: return detail::int8_tile<6>(t);
    case 5: return detail::int8_tile<5>(t);
    case 4: return detail::int8_tile<4>(t);
    case 3: return detail::int8_tile<3>(t);
    case 2: return detail::int8_tile<2>(t);
    case 1: return detail::int8_tile<1>(t);
    default: return;
    }
}

} // namespace sofattn::exec
