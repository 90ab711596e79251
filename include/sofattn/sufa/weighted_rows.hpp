// SPDX-License-Identifier: MIT
// Sums of few of many rows: what selected keys do to an output.
#pragma once

#include <sofattn/core/types.hpp>
#include <sofattn/exec/tile_product.hpp>
#include <sofattn/exec/xsimd_lanes.hpp>

#include <array>
#include <cstdint>
#include <span>

namespace sofattn::sufa {

namespace detail {

template <int Vectors>
inline void add_weighted(float* sums, float const* rows, index_t stride, std::int32_t const* which,
                         float const* weights, index_t count) noexcept {
    std::array<exec::vector_float, Vectors> sum;
    exec::detail::unrolled<Vectors>([&](auto v) __attribute__((always_inline)) {
        sum[v] = exec::load(sums + v * exec::vector_width);
    });
    for (index_t i = 0; i < count; ++i) {
        float const* const row = rows + which[i] * stride;
        exec::vector_float const weight(weights[i]);
        exec::detail::unrolled<Vectors>([&](auto v) __attribute__((always_inline)) {
            sum[v] = exec::multiply_add(weight, exec::load(row + v * exec::vector_width), sum[v]);
        });
    }
    exec::detail::unrolled<Vectors>([&](auto v) __attribute__((always_inline)) {
        exec::store(sums + v * exec::vector_width, sum[v]);
    });
}

} // namespace detail

/// sums [width] += weights[i] * rows[which[i]], in the order of i. `width`: floats per row, a
/// multiple of vector_width; `stride`: floats from row to row.
inline void add_weighted_rows(float* sums, index_t width, float const* rows, index_t stride,
                              std::int32_t const* which, float const* weights,
                              index_t count) noexcept {
    constexpr index_t most = 8 * exec::vector_width;
    index_t at = 0;
    for (; at + most <= width; at += most) {
        detail::add_weighted<8>(sums + at, rows + at, stride, which, weights, count);
    }
    for (; at + 4 * exec::vector_width <= width; at += 4 * exec::vector_width) {
        detail::add_weighted<4>(sums + at, rows + at, stride, which, weights, count);
    }
    for (; at < width; at += exec::vector_width) {
        detail::add_weighted<1>(sums + at, rows + at, stride, which, weights, count);
    }
}

} // namespace sofattn::sufa
