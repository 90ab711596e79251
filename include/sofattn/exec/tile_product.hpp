// SPDX-License-Identifier: MIT
// The inner loop of dense attention: a small block of sums that never leaves the registers.
#pragma once

#include <sofattn/core/types.hpp>
#include <sofattn/exec/bf16_dot.hpp>
#include <sofattn/exec/xsimd_lanes.hpp>

#include <array>
#include <type_traits>
#include <utility>

namespace sofattn::exec {

/// The block's shape: rows * vectors accumulators, with registers left for a row of b and an
/// element of a. 24 of 32, or 12 of 16; either hides the latency of the multiply-adds.
inline constexpr int product_rows = vector_registers == 32 ? 8 : 4;
inline constexpr int product_vectors = 3;
/// Floats in a row of the block.
inline constexpr index_t product_width = product_vectors * vector_width;

/// The shape of blocks of integers (exec/int8_tile.hpp), whose operands are a quarter as large.
inline constexpr int tile_rows = 6;
inline constexpr int tile_vectors = vector_registers == 32 ? 4 : 2;
inline constexpr index_t tile_width = tile_vectors * vector_width;

/// Where a tile_product reads and writes; strides in elements. Factors are floats, or pairs of bf16
/// (exec/bf16_dot.hpp) of which a step multiplies and adds two.
template <class Factor>
struct product_operands {
    Factor const* a; ///< element (row, step) at a[row * a_row + step * a_step]
    index_t a_row;
    index_t a_step;
    Factor const* b; ///< product_width factors per step
    index_t b_step;
    float* c; ///< product_width floats per row
    index_t c_row;
    index_t steps;
    float const* scale = nullptr; ///< product_width floats, for tile_start::scale only
    float* top = nullptr; ///< product_width floats, raised to the largest sum of their column
};
using tile_operands = product_operands<float>;

/// What becomes of c.
enum class tile_start {
    zero, ///< c = sum of a b
    add,  ///< c += sum of a b
    scale ///< c = c * scale + sum of a b; where scale is 1 the same bits as `add`
};

namespace detail {

/// f(0), f(1), ... as straight code: a loop that some compilers leave rolled spills the block.
template <int Count, class F>
[[gnu::always_inline]] inline void unrolled(F&& f) {
    [&]<int... I>(std::integer_sequence<int, I...>) __attribute__((always_inline)) {
        (f(std::integral_constant<int, I>{}), ...);
    }
    (std::make_integer_sequence<int, Count>{});
}

template <int Rows, tile_start Start, class Factor>
inline void tile_product(product_operands<Factor> const& t) noexcept {
    std::array<std::array<vector_float, product_vectors>, Rows> sum;
    unrolled<Rows>([&](auto r) __attribute__((always_inline)) {
        unrolled<product_vectors>([&](auto v) __attribute__((always_inline)) {
            if constexpr (Start == tile_start::zero) {
                sum[r][v] = vector_float(0.0f);
            } else {
                sum[r][v] = load(t.c + r * t.c_row + v * vector_width);
            }
            if constexpr (Start == tile_start::scale) {
                sum[r][v] = sum[r][v] * load(t.scale + v * vector_width);
            }
        });
    });
    for (index_t step = 0; step < t.steps; ++step) {
        Factor const* const b = t.b + step * t.b_step;
        Factor const* const a = t.a + step * t.a_step;
        std::array<decltype(load(b)), product_vectors> row;
        unrolled<product_vectors>([&](auto v) __attribute__((always_inline)) {
            row[v] = load(b + v * vector_width);
        });
        unrolled<Rows>([&](auto r) __attribute__((always_inline)) {
            auto const element = repeated(a[r * t.a_row]);
            unrolled<product_vectors>([&](auto v) __attribute__((always_inline)) {
                sum[r][v] = multiply_add(element, row[v], sum[r][v]);
            });
        });
    }
    if (t.top != nullptr) {
        unrolled<product_vectors>([&](auto v) __attribute__((always_inline)) {
            vector_float top = load(t.top + v * vector_width);
            unrolled<Rows>([&](auto r)
                               __attribute__((always_inline)) { top = larger(top, sum[r][v]); });
            store(t.top + v * vector_width, top);
        });
    }
    unrolled<Rows>([&](auto r) __attribute__((always_inline)) {
        unrolled<product_vectors>([&](auto v) __attribute__((always_inline)) {
            store(t.c + r * t.c_row + v * vector_width, sum[r][v]);
        });
    });
}

template <int Rows, tile_start Start, class Factor>
inline void tile_product_of(index_t rows, product_operands<Factor> const& t) noexcept {
    if (rows == Rows) {
        return tile_product<Rows, Start>(t);
    }
    if constexpr (Rows > 1) {
        tile_product_of<Rows - 1, Start>(rows, t);
    }
}

} // namespace detail

/// c (+)= a b for `rows` rows, at most product_rows. Every sum runs over the steps in order, so the
/// bits do not depend on how rows are grouped.
template <tile_start Start, class Factor = float>
inline void tile_product(index_t rows,
                         product_operands<std::type_identity_t<Factor>> const& t) noexcept {
    detail::tile_product_of<product_rows, Start>(rows, t);
}

} // namespace sofattn::exec
