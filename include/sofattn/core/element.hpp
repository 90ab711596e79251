// SPDX-License-Identifier: MIT
// The element types that queries, keys and values may be stored in.
#pragma once

#include <sofattn/core/bfloat16.hpp>
#include <sofattn/core/half.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/core/view.hpp>

#include <concepts>
#include <type_traits>

namespace sofattn {

/// Storage types of Q, K, V, X and the projection weights.
template <class T>
concept storage_float = (std::same_as<std::remove_cv_t<T>, float> ||
                         std::same_as<std::remove_cv_t<T>, half> ||
                         std::same_as<std::remove_cv_t<T>, bfloat16>);

/// Exact for every storage type.
template <storage_float T>
[[nodiscard]] constexpr float to_float(T value) noexcept {
    return static_cast<float>(value);
}

/// Calls take(i, value) for the elements of a row, in order. Rows of neighbours have a loop of their
/// own, which compilers vectorise.
template <storage_float T, class Take>
constexpr void for_each_float(T const* row, index_t count, index_t stride, Take take) {
    if (stride == 1) {
        for (index_t i = 0; i < count; ++i) {
            take(i, to_float(row[i]));
        }
    } else {
        for (index_t i = 0; i < count; ++i) {
            take(i, to_float(row[i * stride]));
        }
    }
}

/// The same for row `at` of an array.
template <storage_float T, class Row, class Column, class Take>
constexpr void for_each_float(view<T const, Row, Column> rows, index_t at, Take take) {
    for_each_float(rows.data() + at * rows.template stride<Row>(), rows.template extent<Column>(),
                   rows.template stride<Column>(), take);
}

/// The same for a row by itself.
template <class T, class Column, class Take>
    requires storage_float<T>
constexpr void for_each_float(view<T, Column> row, Take take) {
    for_each_float(row.data(), row.template extent<Column>(), row.template stride<Column>(), take);
}

/// sums[i] += element i of row `at`.
template <storage_float T, class Row, class Column>
constexpr void add_row(view<T const, Row, Column> rows, index_t at, double* sums) {
    for_each_float(rows, at,
                   [sums](index_t i, float value) { sums[i] += static_cast<double>(value); });
}

} // namespace sofattn
