// SPDX-License-Identifier: MIT
// Few of many rows: products with selected keys, and sums of selected values.
#pragma once

#include <sofattn/core/types.hpp>
#include <sofattn/exec/tile_product.hpp>
#include <sofattn/exec/xsimd_lanes.hpp>

#include <array>
#include <cstddef>
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

/// Sums of a few rows that want the same rows of values, each with weights of its own.
struct shared_sums {
    index_t count;        ///< up to exec::tile_rows
    float* sums;          ///< [count, width]
    float const* weights; ///< weight n of sum r at weights[r * weight_row + n]
    index_t weight_row;
};

namespace detail {

template <int Sums, int Vectors>
inline void add_shared(shared_sums const& to, index_t width, index_t at, float const* rows,
                       index_t stride, std::span<std::int16_t const> which,
                       std::int16_t const* weight) noexcept {
    std::array<std::array<exec::vector_float, Vectors>, Sums> sum;
    exec::detail::unrolled<Sums>([&](auto r) __attribute__((always_inline)) {
        exec::detail::unrolled<Vectors>([&](auto v) __attribute__((always_inline)) {
            sum[r][v] = exec::load(to.sums + r * width + at + v * exec::vector_width);
        });
    });
    for (std::size_t i = 0; i < which.size(); ++i) {
        float const* const row = rows + which[i] * stride + at;
        float const* const weights = to.weights + weight[i];
        std::array<exec::vector_float, Vectors> value;
        exec::detail::unrolled<Vectors>([&](auto v) __attribute__((always_inline)) {
            value[v] = exec::load(row + v * exec::vector_width);
        });
        exec::detail::unrolled<Sums>([&](auto r) __attribute__((always_inline)) {
            exec::vector_float const factor(weights[r * to.weight_row]);
            exec::detail::unrolled<Vectors>([&](auto v) __attribute__((always_inline)) {
                sum[r][v] = exec::multiply_add(factor, value[v], sum[r][v]);
            });
        });
    }
    exec::detail::unrolled<Sums>([&](auto r) __attribute__((always_inline)) {
        exec::detail::unrolled<Vectors>([&](auto v) __attribute__((always_inline)) {
            exec::store(to.sums + r * width + at + v * exec::vector_width, sum[r][v]);
        });
    });
}

template <int Sums>
inline void add_shared_rows(shared_sums const& to, index_t width, float const* rows, index_t stride,
                            std::span<std::int16_t const> which,
                            std::int16_t const* weight) noexcept {
    if (to.count == Sums) {
        constexpr int vectors = exec::vector_registers == 32 ? 4 : 2;
        index_t at = 0;
        for (; at + vectors * exec::vector_width <= width; at += vectors * exec::vector_width) {
            add_shared<Sums, vectors>(to, width, at, rows, stride, which, weight);
        }
        for (; at < width; at += exec::vector_width) {
            add_shared<Sums, 1>(to, width, at, rows, stride, which, weight);
        }
    } else if constexpr (Sums > 1) {
        add_shared_rows<Sums - 1>(to, width, rows, stride, which, weight);
    }
}

} // namespace detail

/// Sum r += its weights[weight[i]] * rows[which[i]], in the order of i. A row is loaded once for all
/// sums, and a weight of 0 costs as much as any: for rows that most of them want.
inline void add_shared_rows(shared_sums const& to, index_t width, float const* rows, index_t stride,
                            std::span<std::int16_t const> which,
                            std::int16_t const* weight) noexcept {
    detail::add_shared_rows<exec::tile_rows>(to, width, rows, stride, which, weight);
}

namespace detail {

template <int Vectors>
inline void multiply_row(float const* query, float const* row, exec::vector_float& sum) noexcept {
    // Two sums, so that half as many additions wait for each other.
    exec::vector_float even = sum;
    exec::vector_float odd(0.0f);
    exec::detail::unrolled<Vectors>([&](auto v) __attribute__((always_inline)) {
        auto& into = v % 2 == 0 ? even : odd;
        into = exec::multiply_add(exec::load(query + v * exec::vector_width),
                                  exec::load(row + v * exec::vector_width), into);
    });
    sum = even + odd;
}

} // namespace detail

/// query [width] times rows[which[i]], for up to vector_width rows: lane i has the product of row i,
/// and lanes from `count` on have 0. `width` as above.
[[nodiscard]] inline exec::vector_float products_of_rows(float const* query, index_t width,
                                                         float const* rows, index_t stride,
                                                         std::int32_t const* which,
                                                         index_t count) noexcept {
    std::array<exec::vector_float, static_cast<std::size_t>(exec::vector_width)> sums;
    sums.fill(exec::vector_float(0.0f));
    constexpr index_t most = 8 * exec::vector_width;
    index_t at = 0;
    for (; at + most <= width; at += most) {
        for (index_t i = 0; i < count; ++i) {
            detail::multiply_row<8>(query + at, rows + which[i] * stride + at,
                                    sums[static_cast<std::size_t>(i)]);
        }
    }
    for (; at < width; at += exec::vector_width) {
        for (index_t i = 0; i < count; ++i) {
            detail::multiply_row<1>(query + at, rows + which[i] * stride + at,
                                    sums[static_cast<std::size_t>(i)]);
        }
    }
    return exec::sums_of(sums);
}

} // namespace sofattn::sufa
