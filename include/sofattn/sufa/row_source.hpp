// SPDX-License-Identifier: MIT
// Rows of keys and values where they lie: in a row, on a list, or in pages; and asked for ahead.
#pragma once

#include <sofattn/core/element.hpp>
#include <sofattn/core/page_table.hpp>
#include <sofattn/core/scaled_view.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/core/view.hpp>
#include <sofattn/exec/prefetch.hpp>
#include <sofattn/exec/tile_product.hpp>
#include <sofattn/exec/xsimd_lanes.hpp>

#include <algorithm>
#include <concepts>
#include <cstdint>
#include <span>

namespace sofattn::sufa::detail {

/// K and V of 128 channels in f16: most of 48 KB.
inline constexpr index_t tile_keys = 64;

/// Channels in whole registers.
[[nodiscard]] constexpr index_t in_registers(index_t dims) noexcept {
    return ceil_div(dims, index_t{16}) * 16;
}
static_assert(16 % exec::vector_width == 0);

/// 8 KB of K and of V in f16. Left to itself the processor waits for memory, as the two passes over
/// a tile are no streams to it: 47 ns per key of 128 channels and 4 rows, 22 with this.
inline constexpr index_t keys_ahead = 32;
/// Of codes: as many bytes.
template <class T>
inline constexpr index_t rows_ahead = std::same_as<T, std::int8_t> ? 2 * keys_ahead : keys_ahead;

/// Where rows lie: one after the other, wherever a list says, or as it says page by page.
enum class order { row, list, pages };

template <class T, order Order>
struct source {
    using element = T;
    static constexpr bool is_listed = Order != order::row;
    /// Elements are codes; their rows' scales are multiplied in where a row has become a number.
    static constexpr bool is_scaled = std::same_as<T, std::int8_t>;

    T const* data;
    index_t row;    ///< stride
    index_t column; ///< stride
    index_t rows;   ///< that may be asked for
    key_id const* listed = nullptr;
    float const* scales = nullptr; ///< of codes
    index_t scale_row = 0;         ///< stride

    [[nodiscard]] [[gnu::always_inline]] T const* at(index_t key) const noexcept {
        return data + place(key) * row;
    }
    [[nodiscard]] [[gnu::always_inline]] float const* scale_at(index_t key) const noexcept {
        return scales + place(key) * scale_row;
    }
    [[nodiscard]] source from_row(index_t first) const noexcept {
        return {is_listed ? data : data + first * row,
                row,
                column,
                rows - first,
                is_listed ? listed + first : nullptr,
                is_listed ? scales : scales + first * scale_row,
                scale_row};
    }
    [[nodiscard]] source from_column(index_t first) const noexcept {
        return {data + first, row, column, rows, listed, scales, scale_row};
    }
    /// Scales of the first `count` rows, and the last one's up to a whole register.
    void copy_scales(index_t count, float* into) const noexcept {
        for (index_t k = 0; k < count; ++k) {
            into[k] = *scale_at(k);
        }
        index_t const end = ceil_div(count, exec::vector_width) * exec::vector_width;
        std::fill(into + count, into + end, into[count - 1]);
    }
    /// Contiguous rows of whole registers.
    [[nodiscard]] bool lies_well(index_t columns) const noexcept {
        return column == 1 && columns % exec::vector_width == 0;
    }
    /// Codes stay what they are.
    [[nodiscard]] source<float, order::row> copied(index_t count, index_t columns,
                                                   float* into) const noexcept {
        for (index_t k = 0; k < count; ++k) {
            T const* const from = at(k);
            float* const to = into + k * in_registers(columns);
            for (index_t d = 0; d < columns; ++d) {
                to[d] = static_cast<float>(from[d * column]);
            }
            std::fill(to + columns, to + in_registers(columns), 0.0f);
        }
        return {into, in_registers(columns), 1, count};
    }

    /// Asks for every `Step`th of `Count` rows some way ahead of `key`, `columns` of each.
    template <int Count, int Step>
    [[gnu::always_inline]] void prefetch(index_t key, index_t columns) const noexcept {
        if constexpr (Order == order::row) {
            index_t const last = std::max<index_t>(rows - Count, 0);
            T const* const ahead = at(std::min(key + rows_ahead<T>, last));
            exec::detail::unrolled<ceil_div(Count, Step)>([&](
                auto i) __attribute__((always_inline)) {
                if (Count == 1 || rows >= Count) {
                    exec::prefetch(ahead + i * Step * row,
                                   columns * static_cast<index_t>(sizeof(T)));
                }
            });
        } else if constexpr (Order == order::pages) {
            index_t const first = std::min(key + rows_ahead<T>, std::max<index_t>(rows - Count, 0));
            exec::detail::unrolled<ceil_div(Count, Step)>([&](
                auto i) __attribute__((always_inline)) {
                exec::prefetch(at(std::min<index_t>(first + i * Step, rows - 1)),
                               columns * static_cast<index_t>(sizeof(T)));
            });
        }
    }

private:
    [[nodiscard]] [[gnu::always_inline]] index_t place(index_t key) const noexcept {
        return is_listed ? index_t{listed[key]} : key;
    }
};
/// Rows in pages: a list of the tile's and the next one's, which keys make for values, too. They are
/// asked for ahead like rows that follow each other, which most of them do.
template <class T, bool MakesList = true>
struct paged_rows {
    source<T, order::list> rows;
    page_table const* table;
    index_t first;
    index_t count;
    key_id* places; ///< [2 * tile_keys]

    [[nodiscard]] source<T, order::pages> from_row(index_t at) const noexcept {
        index_t const listed = std::min(2 * tile_keys, count - at);
        if constexpr (MakesList) {
            for (index_t i = 0; i < listed; ++i) {
                places[i] = table->row(first + at + i);
            }
        }
        return {rows.data, rows.row, rows.column, listed, places, rows.scales, rows.scale_row};
    }
};
/// Asks for a tile of listed rows at once, K and V of a key together. Spread over the work, as where
/// rows follow each other, requests wait one by one for the places of their pages of memory, and
/// the work behind them waits too: 65 to 75 ns per key that way, 52 to 54 so.
template <class K, class V>
[[gnu::always_inline]] inline void ask(source<K, order::list> const& keys, index_t dim,
                                       source<V, order::list> const& values, index_t value_dim,
                                       index_t first) noexcept {
    index_t const end = std::min(first + tile_keys, keys.rows);
    for (index_t i = first; i < end; ++i) {
        exec::prefetch(keys.at(i), dim * static_cast<index_t>(sizeof(K)));
        exec::prefetch(values.at(i), value_dim * static_cast<index_t>(sizeof(V)));
        if constexpr (source<K, order::list>::is_scaled) {
            exec::prefetch(keys.scale_at(i), 4);
            exec::prefetch(values.scale_at(i), 4);
        }
    }
}
template <class K, class V, order Order>
    requires(Order != order::list)
[[gnu::always_inline]] inline void ask(source<K, Order> const&, index_t, source<V, Order> const&,
                                       index_t, index_t) noexcept {}

template <class T, class Row, class Column>
source<T, order::row> all_of(view<T const, Row, Column> rows) noexcept {
    return {rows.data(), rows.template stride<Row>(), rows.template stride<Column>(),
            rows.template extent<Row>()};
}
template <class T, class Row, class Column>
source<T, order::list> some_of(view<T const, Row, Column> rows,
                               std::span<key_id const> listed) noexcept {
    return {rows.data(), rows.template stride<Row>(), rows.template stride<Column>(),
            std::ssize(listed), listed.data()};
}

template <class Column>
source<std::int8_t, order::row> all_of(scaled_view<axis::key, Column> rows) noexcept {
    auto made = all_of(rows.codes());
    made.scales = rows.scales().data();
    made.scale_row = rows.scales().template stride<axis::key>();
    return made;
}
template <class Column>
source<std::int8_t, order::list> some_of(scaled_view<axis::key, Column> rows,
                                         std::span<key_id const> listed) noexcept {
    auto made = some_of(rows.codes(), listed);
    made.scales = rows.scales().data();
    made.scale_row = rows.scales().template stride<axis::key>();
    return made;
}

} // namespace sofattn::sufa::detail
