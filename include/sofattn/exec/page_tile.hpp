// SPDX-License-Identifier: MIT
// The inner loops of attention to whole pages: a few rows times pages of keys, and weights times pages of
// values.
#pragma once

#include <sofattn/core/types.hpp>
#include <sofattn/exec/bf16_dot.hpp>
#include <sofattn/exec/int8_tile.hpp>
#include <sofattn/exec/tile_product.hpp>
#include <sofattn/exec/xsimd_lanes.hpp>

#include <array>
#include <cstddef>

namespace sofattn::exec {

/// Where page_products reads and writes. Factors are floats, or pairs of bf16 that follow each other along
/// a sum (exec/bf16_dot.hpp). Unlike in tile_product lanes are keys: few rows would leave lanes of rows
/// empty.
template <class Factor>
struct page_key_operands {
    Factor const* rows; ///< step s of row r at rows[r * row_stride + s]
    index_t row_stride;
    std::array<Factor const*, tile_vectors> columns; ///< register v of step 0: [step, page_keys]
    float* sums;                                     ///< vector_width of register v and row r at
    index_t sum_stride;                              ///< sums[r * sum_stride + v * vector_width]
    float* tops; ///< [row, vector_width], raised to the largest sum of their lane
    index_t steps;
};

/// Where page_sums reads and writes. A page of values is [column / vector_width, key, vector_width] factors;
/// a factor has one key's value or two.
template <class Factor>
struct page_value_operands {
    Factor const* const* pages;
    index_t count; ///< of pages
    index_t steps; ///< factors of a page's keys
    Factor const*
        weights; ///< step s of page p and row r at weights[r * weight_row + p * steps + s]
    index_t weight_row;
    float const* scale; ///< [row] of the sums so far
    float* sums;        ///< [row, column]
    index_t sum_row;
    index_t registers; ///< of columns
};

namespace detail {

template <int Rows, int Vectors, class Factor>
inline void page_products(page_key_operands<Factor> const& t) noexcept {
    std::array<std::array<vector_float, Vectors>, Rows> sum;
    unrolled<Rows>([&](auto r) __attribute__((always_inline)) {
        unrolled<Vectors>([&](auto v)
                              __attribute__((always_inline)) { sum[r][v] = vector_float(0.0f); });
    });
    for (index_t step = 0; step < t.steps; ++step) {
        Factor const* const rows = t.rows + step;
        std::array<decltype(load(rows)), Vectors> keys;
        unrolled<Vectors>([&](auto v) __attribute__((always_inline)) {
            keys[v] = load(t.columns[v] + step * page_keys);
        });
        unrolled<Rows>([&](auto r) __attribute__((always_inline)) {
            auto const element = repeated(rows[r * t.row_stride]);
            unrolled<Vectors>([&](auto v) __attribute__((always_inline)) {
                sum[r][v] = multiply_add(element, keys[v], sum[r][v]);
            });
        });
    }
    unrolled<Rows>([&](auto r) __attribute__((always_inline)) {
        vector_float top = load(t.tops + r * vector_width);
        unrolled<Vectors>([&](auto v) __attribute__((always_inline)) {
            top = larger(top, sum[r][v]);
            store(t.sums + r * t.sum_stride + v * vector_width, sum[r][v]);
        });
        store(t.tops + r * vector_width, top);
    });
}

template <int Rows, int Vectors, class Factor>
inline void page_products_of(index_t vectors, page_key_operands<Factor> const& t) noexcept {
    if (vectors == Vectors) {
        return page_products<Rows, Vectors>(t);
    }
    if constexpr (Vectors > 1) {
        page_products_of<Rows, Vectors - 1>(vectors, t);
    }
}

template <int Rows, int Vectors, class Factor>
inline void page_sums(page_value_operands<Factor> const& t, index_t column) noexcept {
    float* const to = t.sums + column * vector_width;
    std::array<std::array<vector_float, Vectors>, Rows> sum;
    unrolled<Rows>([&](auto r) __attribute__((always_inline)) {
        vector_float const scale(t.scale[r]);
        unrolled<Vectors>([&](auto v) __attribute__((always_inline)) {
            sum[r][v] = load(to + r * t.sum_row + v * vector_width) * scale;
        });
    });
    Factor const* weights = t.weights;
    for (index_t p = 0; p < t.count; ++p) {
        Factor const* const page = t.pages[p] + column * t.steps * vector_width;
        for (index_t step = 0; step < t.steps; ++step) {
            std::array<decltype(load(page)), Vectors> values;
            unrolled<Vectors>([&](auto v) __attribute__((always_inline)) {
                values[v] = load(page + (v * t.steps + step) * vector_width);
            });
            unrolled<Rows>([&](auto r) __attribute__((always_inline)) {
                auto const weight = repeated(weights[r * t.weight_row]);
                unrolled<Vectors>([&](auto v) __attribute__((always_inline)) {
                    sum[r][v] = multiply_add(weight, values[v], sum[r][v]);
                });
            });
            ++weights;
        }
    }
    unrolled<Rows>([&](auto r) __attribute__((always_inline)) {
        unrolled<Vectors>([&](auto v) __attribute__((always_inline)) {
            store(to + r * t.sum_row + v * vector_width, sum[r][v]);
        });
    });
}

/// f(integral_constant<int, rows>{}), for up to tile_rows of them.
template <int Rows = tile_rows, class F>
[[gnu::always_inline]] inline void with_rows(index_t rows, F&& f) {
    if (rows == Rows) {
        return f(std::integral_constant<int, Rows>{});
    }
    if constexpr (Rows > 1) {
        with_rows<Rows - 1>(rows, f);
    }
}

} // namespace detail

/// Sums of `rows` rows, at most tile_rows, with `vectors` registers of keys, at most tile_vectors. A sum
/// runs over the steps in order, whatever else is computed beside it.
template <class Factor>
inline void page_products(index_t rows, index_t vectors,
                          page_key_operands<Factor> const& t) noexcept {
    detail::with_rows(rows, [&](auto count) {
        detail::page_products_of<decltype(count)::value, tile_vectors>(vectors, t);
    });
}

/// sums = sums * scale + weights times values, for `rows` rows, at most tile_rows; pages and their keys in
/// order.
template <class Factor>
inline void page_sums(index_t rows, page_value_operands<Factor> const& t) noexcept {
    detail::with_rows(rows, [&](auto count) {
        index_t column = 0;
        for (; column + tile_vectors <= t.registers; column += tile_vectors) {
            detail::page_sums<decltype(count)::value, tile_vectors>(t, column);
        }
        for (; column < t.registers; ++column) {
            detail::page_sums<decltype(count)::value, 1>(t, column);
        }
    });
}

} // namespace sofattn::exec
