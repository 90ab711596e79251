// SPDX-License-Identifier: MIT
// The inner loop of dense attention: a small block of sums that never leaves the registers.
#pragma once

#include <sofattn/core/types.hpp>
#include <sofattn/exec/xsimd_lanes.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <utility>

namespace sofattn::exec {

/// The block's shape: rows * vectors accumulators, with registers left for a row of b and an
/// element of a. 24 of 32, or 12 of 16; either hides the latency of the multiply-adds.
inline constexpr int tile_rows = 6;
inline constexpr int tile_vectors = vector_registers == 32 ? 4 : 2;
/// Floats in a row of the block.
inline constexpr index_t tile_width = tile_vectors * vector_width;

/// Where a tile_product reads and writes; strides in floats.
struct tile_operands {
    float const* a; ///< element (row, step) at a[row * a_row + step * a_step]
    index_t a_row;
    index_t a_step;
    float const* b; ///< tile_width floats per step
    index_t b_step;
    float* c; ///< tile_width floats per row
    index_t c_row;
    index_t steps;
};

/// What becomes of c.
enum class tile_start {
    zero, ///< c = sum of a b
    add   ///< c += sum of a b
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

template <int Rows, tile_start Start>
inline void tile_product(tile_operands const& t) noexcept {
    std::array<std::array<vector_float, tile_vectors>, Rows> sum;
    unrolled<Rows>([&](auto r) __attribute__((always_inline)) {
        unrolled<tile_vectors>([&](auto v) __attribute__((always_inline)) {
            sum[r][v] = Start == tile_start::zero ? vector_float(0.0f)
                                                  : load(t.c + r * t.c_row + v * vector_width);
        });
    });
    for (index_t step = 0; step < t.steps; ++step) {
        float const* const b = t.b + step * t.b_step;
        float const* const a = t.a + step * t.a_step;
        std::array<vector_float, tile_vectors> row;
        unrolled<tile_vectors>([&](auto v) __attribute__((always_inline)) {
            row[v] = load(b + v * vector_width);
        });
        unrolled<Rows>([&](auto r) __attribute__((always_inline)) {
            vector_float const element(a[r * t.a_row]);
            unrolled<tile_vectors>([&](auto v) __attribute__((always_inline)) {
                sum[r][v] = multiply_add(element, row[v], sum[r][v]);
            });
        });
    }
    unrolled<Rows>([&](auto r) __attribute__((always_inline)) {
        unrolled<tile_vectors>([&](auto v) __attribute__((always_inline)) {
            store(t.c + r * t.c_row + v * vector_width, sum[r][v]);
        });
    });
}

} // namespace detail

/// c (+)= a b for `rows` rows, at most tile_rows. Every sum runs over the steps in order, so the
/// bits do not depend on how rows are grouped.
template <tile_start Start>
inline void tile_product(index_t rows, tile_operands const& t) noexcept {
    static_assert(tile_rows == 6);
    switch (rows) {
    case 6: return detail::tile_product<6, Start>(t);
    case 5: return detail::tile_product<5, Start>(t);
    case 4: return detail::tile_product<4, Start>(t);
    case 3: return detail::tile_product<3, Start>(t);
    case 2: return detail::tile_product<2, Start>(t);
    case 1: return detail::tile_product<1, Start>(t);
    default: return;
    }
}

} // namespace sofattn::exec
