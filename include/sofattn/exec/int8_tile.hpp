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

/// Keys of a page, whose codes lie together: [step, page_keys lanes, dot_depth] bytes. Whole registers
/// on every target, and a whole one on the widest.
inline constexpr index_t page_keys = 16;
inline constexpr index_t page_step_bytes = page_keys * dot_depth;
/// Pages of a tile; where pages are larger than tiles, 1, and tiles of a page.
inline constexpr index_t tile_pages = tile_width < page_keys ? 1 : tile_width / page_keys;
inline constexpr index_t page_tiles = tile_width < page_keys ? page_keys / tile_width : 1;
static_assert(tile_width * page_tiles == page_keys * tile_pages && page_keys % vector_width == 0);

/// The same against registers of keys that lie apart.
struct int8_column_operands {
    std::int32_t const* rows;
    index_t row_stride;
    std::int32_t const* starts;
    std::array<std::uint8_t const*, tile_vectors> columns; ///< register v of step 0, in its page
    std::int32_t* sums;
    index_t sum_stride;
    index_t steps;
};

/// The registers of a tile: all of tile_pages pages, or tile `part` of a page.
[[nodiscard]] inline std::array<std::uint8_t const*, tile_vectors>
columns_of(std::array<std::uint8_t const*, static_cast<std::size_t>(tile_pages)> const& pages,
           index_t part) noexcept {
    constexpr index_t in_page = page_keys / vector_width; // registers
    std::array<std::uint8_t const*, tile_vectors> columns;
    for (index_t v = 0; v < tile_vectors; ++v) {
        index_t const at = part * tile_vectors + v;
        columns[static_cast<std::size_t>(v)] =
            pages[static_cast<std::size_t>(at / in_page)] + at % in_page * vector_bytes;
    }
    return columns;
}

namespace detail {

[[gnu::always_inline]] inline std::uint8_t const* column(int8_operands const& t, index_t v,
                                                         index_t step) noexcept {
    return t.panel + (step * tile_vectors + v) * vector_bytes;
}
[[gnu::always_inline]] inline std::uint8_t const* column(int8_column_operands const& t, index_t v,
                                                         index_t step) noexcept {
    return t.columns[static_cast<std::size_t>(v)] + step * page_step_bytes;
}

/// finish(sums [Rows][tile_vectors]), while they are in registers; `t.sums` is not written. From a
/// row's step to its next are `row_step`.
template <int Rows, class Operands, class Finish>
[[gnu::always_inline]] inline void int8_sums(Operands const& t, index_t row_step,
                                             Finish&& finish) noexcept {
    std::array<std::array<vector_int32, tile_vectors>, Rows> sum;
    unrolled<Rows>([&](auto r) __attribute__((always_inline)) {
        unrolled<tile_vectors>([&](auto v) __attribute__((always_inline)) {
            sum[r][v] = vector_int32(t.starts[r]);
        });
    });
    for (index_t step = 0; step < t.steps; ++step) {
        std::int32_t const* const rows = t.rows + step * row_step;
        unrolled<Rows>([&](auto r) __attribute__((always_inline)) {
            std::int32_t const four = rows[r * t.row_stride];
            unrolled<tile_vectors>([&](auto v) __attribute__((always_inline)) {
                sum[r][v] = dot(sum[r][v], column(t, v, step), four);
            });
        });
    }
    finish(sum);
}

template <int Rows, class Operands>
inline void int8_tile(Operands const& t) noexcept {
    int8_sums<Rows>(
        t, 1, [&](auto const& sum) __attribute__((always_inline)) {
            unrolled<Rows>([&](auto r) __attribute__((always_inline)) {
                unrolled<tile_vectors>([&](auto v) __attribute__((always_inline)) {
                    sum[r][v].store_unaligned(t.sums + r * t.sum_stride + v * vector_width);
                });
            });
        });
}

template <class Operands>
inline void int8_tile_of(index_t rows, Operands const& t) noexcept {
    static_assert(tile_rows == 6);
    switch (rows) {
    case 6: return int8_tile<6>(t);
    case 5: return int8_tile<5>(t);
    case 4: return int8_tile<4>(t);
    case 3: return int8_tile<3>(t);
    case 2: return int8_tile<2>(t);
    case 1: return int8_tile<1>(t);
    default: return;
    }
}

} // namespace detail

/// Scores of `rows` rows, at most tile_rows, against tile_width keys. Exact.
inline void int8_tile(index_t rows, int8_operands const& t) noexcept {
    detail::int8_tile_of(rows, t);
}
inline void int8_tile(index_t rows, int8_column_operands const& t) noexcept {
    detail::int8_tile_of(rows, t);
}

} // namespace sofattn::exec
