// SPDX-License-Identifier: MIT
// Keys and values of one KV head in pages, as products with a few rows read them.
#pragma once

#include <sofattn/core/assert.hpp>
#include <sofattn/core/element.hpp>
#include <sofattn/core/tensor.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/core/view.hpp>
#include <sofattn/exec/int8_tile.hpp>
#include <sofattn/exec/xsimd_lanes.hpp>
#include <sofattn/sufa/dense_block.hpp>

#include <algorithm>
#include <array>
#include <concepts>
#include <cstddef>
#include <vector>

namespace sofattn::sufa {

/// Copies: a page of exec::page_keys keys is [step, key] factors, its values are [column / vector_width,
/// step, vector_width]. A factor is a float, or two bf16: two channels of a key, or two keys' values of a
/// column. Whole registers without gaps, so a page is read from its start to its end.
///
/// in     keys [key, dim], values [key, value_dim], any strides
/// out    pages; what lies beyond the last key, channel or column is 0
/// pre    as many values as keys (SOFATTN_ASSERT)
/// error  none; allocates. bytes: (dim + value_dim) * sizeof(element) per key
/// events none: this is no circuit
/// exact  f32_products: the numbers themselves; bf16_products: rounded to nearest, ties to even
/// paper  not in the paper
template <class Products>
class key_value_pages {
public:
    using element = typename Products::element;
    using factor = typename Products::factor;
    /// Elements of a factor.
    // NOLINTNEXTLINE(bugprone-sizeof-expression): one float, or two bf16
    static constexpr index_t each = sizeof(factor) / sizeof(element);
    static constexpr index_t page = exec::page_keys;
    static constexpr index_t value_steps = page / each;

    key_value_pages() = default;

    template <storage_float K, storage_float V>
    key_value_pages(key_view<K const> keys, value_view<V const> values)
        : steps_(ceil_div(keys.template extent<axis::dim>(), each)),
          registers_(ceil_div(values.template extent<axis::value_dim>(), exec::vector_width)),
          pages_(ceil_div(keys.template extent<axis::key>(), page)),
          keys_(store::for_overwrite({pages_ * steps_ * page})),
          values_(store::for_overwrite({pages_ * value_factors()})) {
        SOFATTN_ASSERT(keys.template extent<axis::key>() == values.template extent<axis::key>());
        std::vector<element> rows;
        for (index_t p = 0; p < pages_; ++p) {
            read<axis::dim>(keys, p, steps_ * each, rows);
            put_keys(rows.data(), key_page(p));
            read<axis::value_dim>(values, p, registers_ * exec::vector_width, rows);
            put_values(rows.data(), value_page(p));
        }
    }

    /// Factors of a query.
    [[nodiscard]] index_t steps() const noexcept { return steps_; }
    /// Of value columns.
    [[nodiscard]] index_t registers() const noexcept { return registers_; }
    [[nodiscard]] factor const* keys(index_t p) const noexcept {
        return reinterpret_cast<factor const*>(keys_.cview().data()) + p * steps_ * page;
    }
    [[nodiscard]] factor const* values(index_t p) const noexcept {
        return reinterpret_cast<factor const*>(values_.cview().data()) + p * value_factors();
    }

private:
    using store = tensor<float, axis::key>; // a factor has the size of a float

    [[nodiscard]] index_t value_factors() const noexcept {
        return registers_ * exec::vector_width * value_steps;
    }
    [[nodiscard]] element* key_page(index_t p) noexcept {
        return reinterpret_cast<element*>(keys_.view().data() + p * steps_ * page);
    }
    [[nodiscard]] element* value_page(index_t p) noexcept {
        return reinterpret_cast<element*>(values_.view().data() + p * value_factors());
    }

    /// The rows of a page, `width` elements each.
    template <class Column, class Rows>
    static void read(Rows from, index_t p, index_t width, std::vector<element>& rows) {
        rows.assign(static_cast<std::size_t>(page * width), element{});
        index_t const end = std::min(from.template extent<axis::key>(), (p + 1) * page);
        for (index_t k = p * page; k < end; ++k) {
            element* const to = rows.data() + (k - p * page) * width;
            for_each_float(from.data() + k * from.template stride<axis::key>(),
                           from.template extent<Column>(), from.template stride<Column>(),
                           [to](index_t d, float x) { to[d] = element(x); });
        }
    }
    void put_keys(element const* rows, element* to) const noexcept {
        for (index_t k = 0; k < page; ++k) {
            for (index_t s = 0; s < steps_; ++s) {
                for (index_t e = 0; e < each; ++e) {
                    to[(s * page + k) * each + e] = rows[(k * steps_ + s) * each + e];
                }
            }
        }
    }
    void put_values(element const* rows, element* to) const noexcept {
        constexpr index_t width = exec::vector_width;
        for (index_t c = 0; c < registers_; ++c) {
            for (index_t k = 0; k < page; ++k) {
                element const* const row = rows + (k * registers_ + c) * width;
                element* const into = to + (c * value_steps + k / each) * width * each + k % each;
                for (index_t lane = 0; lane < width; ++lane) {
                    into[lane * each] = row[lane];
                }
            }
        }
    }

    index_t steps_ = 0;
    index_t registers_ = 0;
    index_t pages_ = 0;
    store keys_;
    store values_;
};

} // namespace sofattn::sufa
