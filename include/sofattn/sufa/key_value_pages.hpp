// SPDX-License-Identifier: MIT
// Keys and values of one KV head in pages, as products with a few rows read them.
#pragma once

#include <sofattn/core/assert.hpp>
#include <sofattn/core/element.hpp>
#include <sofattn/core/page_table.hpp>
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
#include <memory>
#include <utility>
#include <vector>

namespace sofattn::sufa {

/// Copies: a page of exec::page_keys keys is [step, key] factors, its values are [column / vector_width,
/// step, vector_width]. A factor is a float, or two bf16: two channels of a key, or two keys' values of a
/// column. Whole registers without gaps, so a page is read from its start to its end.
///
/// They grow by blocks of 16 pages that stay where they are, so that no token is copied twice. A copy shares the
/// blocks that have been full, which nobody writes to any more, and has an own last one.
///
/// in     keys [key, dim], values [key, value_dim], any strides, or in pages of a pool
/// out    pages; what lies beyond the last channel or column is 0, beyond the last key 0 or what a key that is
///        forgotten had: finite
/// pre    as many values as keys, both at most max_head_dim (SOFATTN_ASSERT)
/// error  none; allocates but where it says noexcept.
///        bytes: (dim + value_dim) * sizeof(element) per key
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
    /// Of no key yet; grows.
    key_value_pages(index_t dim, index_t value_dim) noexcept
        : steps_(ceil_div(dim, each)), registers_(ceil_div(value_dim, exec::vector_width)) {
        SOFATTN_ASSERT(dim <= max_head_dim && value_dim <= max_head_dim);
    }
    template <token_rows<axis::dim> Keys, token_rows<axis::value_dim> Values>
    key_value_pages(Keys const& keys, Values const& values)
        : key_value_pages(keys.template extent<axis::dim>(),
                          values.template extent<axis::value_dim>()) {
        reserve(keys.template extent<axis::key>());
        append(keys, values);
    }
    key_value_pages(key_value_pages&&) noexcept = default;
    key_value_pages& operator=(key_value_pages&&) noexcept = default;
    key_value_pages(key_value_pages const& other)
        : steps_(other.steps_), registers_(other.registers_), size_(other.size_),
          blocks_(other.blocks_.begin(), other.blocks_.begin() + ceil_div(size_, block_keys)) {
        own_last();
    }
    key_value_pages& operator=(key_value_pages const& other) {
        key_value_pages copy(other);
        *this = std::move(copy);
        return *this;
    }
    ~key_value_pages() = default;

    /// Room for so many keys; appending up to there allocates nothing. If it throws nothing has changed.
    void reserve(index_t keys) {
        if (keys <= size_) {
            return;
        }
        auto const there = std::ssize(blocks_);
        index_t const needed = ceil_div(keys, block_keys);
        if (static_cast<std::size_t>(needed) > blocks_.capacity()) {
            blocks_.reserve(std::max(static_cast<std::size_t>(needed), 2 * blocks_.capacity()));
        }
        if (size_ % block_keys != 0 && blocks_[last()].was_full) {
            own_last();
        }
        if (needed > there) {
            auto const memory = memory_of(needed - there);
            for (index_t i = 0; i < needed - there; ++i) {
                float* const start = memory->view().data() + i * block_floats();
                blocks_.push_back({std::shared_ptr<float>(memory, start), false});
            }
        }
    }
    /// keys and values of all tokens, those that it has included; takes the others. pre: there is room
    template <token_rows<axis::dim> Keys, token_rows<axis::value_dim> Values>
    void append(Keys const& keys, Values const& values) noexcept {
        index_t const end = keys.template extent<axis::key>();
        SOFATTN_ASSERT(end == values.template extent<axis::key>());
        SOFATTN_ASSERT(end <= std::ssize(blocks_) * block_keys);
        rows_type rows;
        while (size_ < end) {
            block& into = blocks_[static_cast<std::size_t>(size_ / block_keys)];
            SOFATTN_ASSERT(!into.was_full);
            index_t const p = size_ / page;
            index_t const from = size_ % page;
            index_t const to = std::min(page, from + end - size_);
            auto* const key_page =
                reinterpret_cast<element*>(into.start.get() + p % block_pages * steps_ * page);
            auto* const value_page = reinterpret_cast<element*>(
                into.start.get() + block_pages * steps_ * page + p % block_pages * value_factors());
            if (from == 0 && to < page) {
                std::fill_n(key_page, steps_ * page * each, element{});
                std::fill_n(value_page, value_factors() * each, element{});
            }
            read(keys, size_, to - from, steps_ * each, rows);
            put_keys(rows, from, to, key_page);
            read(values, size_, to - from, registers_ * exec::vector_width, rows);
            put_values(rows, from, to, value_page);
            size_ += to - from;
            into.was_full = size_ % block_keys == 0;
        }
    }
    /// Forgets all keys but the first `keys`.
    void truncate(index_t keys) noexcept {
        SOFATTN_ASSERT(keys >= 0 && keys <= size_);
        size_ = keys;
        blocks_.erase(blocks_.begin() + ceil_div(keys, block_keys), blocks_.end());
    }

    /// Keys.
    [[nodiscard]] index_t size() const noexcept { return size_; }
    /// Of the blocks that have keys, shared ones included.
    [[nodiscard]] index_t bytes() const noexcept {
        return ceil_div(size_, block_keys) * block_floats() * static_cast<index_t>(sizeof(float));
    }
    /// Factors of a query.
    [[nodiscard]] index_t steps() const noexcept { return steps_; }
    /// Of value columns.
    [[nodiscard]] index_t registers() const noexcept { return registers_; }
    [[nodiscard]] factor const* keys(index_t p) const noexcept {
        return reinterpret_cast<factor const*>(block_of(p)) + p % block_pages * steps_ * page;
    }
    [[nodiscard]] factor const* values(index_t p) const noexcept {
        return reinterpret_cast<factor const*>(block_of(p)) + block_pages * steps_ * page +
               p % block_pages * value_factors();
    }

private:
    static constexpr index_t block_pages = 16;
    static constexpr index_t block_keys = block_pages * page;
    using floats = tensor<float, axis::key>; // a factor has the size of a float
    using rows_type = std::array<element, static_cast<std::size_t>(page* max_head_dim)>;

    /// The keys of 16 pages, then their values; in memory that blocks may have together.
    struct block {
        std::shared_ptr<float> start;
        bool was_full = false; ///< since then copies may share it
    };

    [[nodiscard]] index_t value_factors() const noexcept {
        return registers_ * exec::vector_width * value_steps;
    }
    [[nodiscard]] index_t block_floats() const noexcept {
        return block_pages * (steps_ * page + value_factors());
    }
    [[nodiscard]] float const* block_of(index_t p) const noexcept {
        return blocks_[static_cast<std::size_t>(p / block_pages)].start.get();
    }
    [[nodiscard]] std::shared_ptr<floats> memory_of(index_t blocks) const {
        return std::make_shared<floats>(floats::for_overwrite({blocks * block_floats()}));
    }
    [[nodiscard]] std::size_t last() const noexcept {
        return static_cast<std::size_t>(size_ / block_keys);
    }
    /// The last block, if it has room, becomes one that is written to.
    void own_last() {
        index_t const pages = ceil_div(size_ % block_keys, page);
        if (pages == 0) {
            return;
        }
        auto const own = memory_of(1);
        float const* const from = blocks_[last()].start.get();
        float* const to = own->view().data();
        std::copy_n(from, pages * steps_ * page, to);
        index_t const values = block_pages * steps_ * page;
        std::copy_n(from + values, pages * value_factors(), to + values);
        blocks_[last()] = {std::shared_ptr<float>(own, to), false};
    }

    /// Rows of tokens [first, first + count), `width` elements each.
    template <class Rows>
    static void read(Rows const& from, index_t first, index_t count, index_t width,
                     rows_type& rows) noexcept {
        for (index_t k = 0; k < count; ++k) {
            element* const to = rows.data() + k * width;
            auto const row = from.template slice<axis::key>(first + k);
            for_each_float(row, [to](index_t d, float x) { to[d] = element(x); });
            std::fill(to + row.size(), to + width, element{});
        }
    }
    /// Keys [from, to) of a page.
    void put_keys(rows_type const& rows, index_t from, index_t to, element* into) const noexcept {
        for (index_t k = from; k < to; ++k) {
            element const* const row = rows.data() + (k - from) * steps_ * each;
            for (index_t s = 0; s < steps_; ++s) {
                for (index_t e = 0; e < each; ++e) {
                    into[(s * page + k) * each + e] = row[s * each + e];
                }
            }
        }
    }
    void put_values(rows_type const& rows, index_t from, index_t to, element* into) const noexcept {
        constexpr index_t width = exec::vector_width;
        for (index_t c = 0; c < registers_; ++c) {
            for (index_t k = from; k < to; ++k) {
                element const* const row = rows.data() + ((k - from) * registers_ + c) * width;
                element* const at = into + (c * value_steps + k / each) * width * each + k % each;
                for (index_t lane = 0; lane < width; ++lane) {
                    at[lane * each] = row[lane];
                }
            }
        }
    }

    index_t steps_ = 0;
    index_t registers_ = 0;
    index_t size_ = 0;
    std::vector<block> blocks_; ///< those of the keys, and room
};

} // namespace sofattn::sufa
