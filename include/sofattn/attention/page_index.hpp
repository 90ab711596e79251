// SPDX-License-Identifier: MIT
// What prefill of whole pages knows of one KV head's keys and values before it meets a query.
#pragma once

#include <sofattn/attention/segment_sums.hpp>
#include <sofattn/core/element.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/core/view.hpp>
#include <sofattn/dlzs/page_sketch.hpp>
#include <sofattn/sufa/key_value_pages.hpp>

namespace sofattn {

/// Sketches of the keys' pages, sums of the values of each segment, and keys and values as products read
/// them: copies, so that what it is built from may go. Built once per KV head, and only read from then on;
/// allocates.
template <class Products>
class page_index {
public:
    /// Whether keys and values are rounded to bf16.
    static constexpr bool rounds = sufa::key_value_pages<Products>::each == 2;

    page_index() = default;

    /// keys [key, dim], values [key, value_dim]
    template <storage_float K, storage_float V>
    page_index(key_view<K const> keys, value_view<V const> values)
        : keys_(keys.template extent<axis::key>()), dim_(keys.template extent<axis::dim>()),
          sketches_(keys), value_sums_(values), pages_(keys, values) {}

    [[nodiscard]] dlzs::page_sketches const& sketches() const noexcept { return sketches_; }
    [[nodiscard]] segment_sums const& value_sums() const noexcept { return value_sums_; }
    [[nodiscard]] sufa::key_value_pages<Products> const& pages() const noexcept { return pages_; }
    [[nodiscard]] index_t keys() const noexcept { return keys_; }
    [[nodiscard]] index_t dim() const noexcept { return dim_; }
    [[nodiscard]] index_t value_dim() const noexcept { return value_sums_.value_dim(); }

private:
    index_t keys_ = 0;
    index_t dim_ = 0;
    dlzs::page_sketches sketches_;
    segment_sums value_sums_;
    sufa::key_value_pages<Products> pages_;
};

} // namespace sofattn
