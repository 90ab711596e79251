// SPDX-License-Identifier: MIT
// The smallest and the largest code of every channel over pages of keys: a first level before the
// codes of single keys.
#pragma once

#include <sofattn/core/assert.hpp>
#include <sofattn/core/element.hpp>
#include <sofattn/core/error.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/core/view.hpp>
#include <sofattn/dlzs/code_panels.hpp>
#include <sofattn/dlzs/packed_index.hpp>
#include <sofattn/exec/int8_dot.hpp>

#include <algorithm>
#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>

namespace sofattn::dlzs {

/// How keys are paged, and how hopefully a page is looked at.
struct page_options {
    static constexpr int whole = 16; ///< parts that a query element is split into

    index_t keys = 16; ///< per page, a multiple of 16: whole registers on every target
    /// Parts of a query element that meet the end of a page's range which suits it; the others meet
    /// the other end. 8: the middle of the range. 16: a bound that no key of the page exceeds
    /// (Quest). By 10 to 12 more of the attention is found than by either (on recorded data, an
    /// eighth of 2048 keys scanned for the best 32: .9098 of the mass, by 8 .9081, by 16 .9072, by
    /// whole scan .9151).
    int hopeful = 11;
};

/// Ranges of codes of the pages of a KV head's keys; scanned without allocation, built with.
///
/// A page costs as much as two keys of the index. Its score for a query q, with codes c of the keys
/// as factors and f = trunc(q * hopeful / 16), is the sum over channels of
/// f * max c + (q - f) * min c where q > 0, and f * min c + (q - f) * max c elsewhere.
/// A page of one code per channel has the score of its keys.
///
/// in     key        code(channel) of the next key, as stored
///        queries    scan_queries of page_queries(those of the keys)
/// out    scores     [page] the largest of the rows, or of them and what is there already; int32
/// pre    dim as constructed; scores have padded(pages) places (SOFATTN_ASSERT)
/// error  construction throws `error` on options out of range, or a dimension that fits no head
/// events none: this is no circuit
/// exact  integers, the same on every target; appended one by one or all at once: the same bytes
/// paper  not in the paper; Quest (arXiv 2406.10774) bounds pages by ranges of channels
template <packed_policy Policy>
class page_ranges {
public:
    page_ranges() = default;
    page_ranges(index_t dim, page_options const& options)
        : ranges_(2 * dot_groups(dim)), dim_(dim), options_(options) {
        if (dim < 1 || dim > max_head_dim) {
            throw error("page_ranges: head dimension", std::to_string(dim),
                        "from 1 to " + std::to_string(max_head_dim));
        }
        if (options.keys < 16 || options.keys % 16 != 0) {
            throw error("page_ranges: keys per page", std::to_string(options.keys),
                        "a multiple of 16");
        }
        if (options.hopeful < page_options::whole / 2 || options.hopeful > page_options::whole) {
            throw error("page_ranges: hopeful parts", std::to_string(options.hopeful),
                        "from 8 to 16");
        }
    }

    [[nodiscard]] index_t size() const noexcept { return ranges_.size(); } ///< pages begun
    [[nodiscard]] page_options const& options() const noexcept { return options_; }
    [[nodiscard]] std::span<std::uint8_t const> bytes() const noexcept { return ranges_.bytes(); }
    [[nodiscard]] static constexpr index_t padded(index_t pages) noexcept {
        return packed_index<Policy>::padded(pages);
    }
    /// Of a channel in a page, as stored.
    [[nodiscard]] int smallest(index_t page, index_t d) const noexcept {
        return ranges_.code(page, place(d));
    }
    [[nodiscard]] int largest(index_t page, index_t d) const noexcept {
        return ranges_.code(page, place(d) + exec::dot_depth);
    }

    void reserve(index_t keys) { ranges_.reserve(ceil_div(keys, options_.keys)); }
    /// Room for one more key; takes none where `reserve` has made it.
    void make_room() {
        if (keys_ % options_.keys == 0) {
            ranges_.make_room();
        }
    }

    template <std::invocable<index_t> Code>
    void append(Code code) {
        bool const opens = keys_ % options_.keys == 0;
        if (opens) {
            ranges_.append();
        }
        index_t const page = size() - 1;
        for (index_t d = 0; d < dim_; ++d) {
            int const c = code(d);
            index_t const at = place(d);
            if (opens || c < ranges_.code(page, at)) {
                ranges_.set(page, at, c);
            }
            if (opens || c > ranges_.code(page, at + exec::dot_depth)) {
                ranges_.set(page, at + exec::dot_depth, c);
            }
        }
        ++keys_;
    }

    /// Those of the first `keys`; code(key, channel) as stored, of the keys that stay.
    template <std::invocable<index_t, index_t> Code>
    void truncate(index_t keys, Code code) noexcept {
        SOFATTN_ASSERT(keys >= 0 && keys <= keys_);
        index_t const whole = keys / options_.keys;
        ranges_.truncate(whole);
        keys_ = whole * options_.keys;
        while (keys_ < keys) {
            append([&](index_t d) { return code(keys_, d); });
        }
    }

    [[nodiscard]] scan_queries page_queries(scan_queries const& of_keys) const noexcept {
        scan_queries result;
        result.rows = of_keys.rows;
        for (index_t r = 0; r < of_keys.rows; ++r) {
            result.set(r, 2 * dot_groups(dim_), [&](index_t i) {
                bool const meets_largest = i / exec::dot_depth % 2 != 0;
                index_t const d = i / (2 * exec::dot_depth) * exec::dot_depth + i % exec::dot_depth;
                int const q = d < dim_ ? of_keys.code(r, d) : 0;
                int const hopeful = q * options_.hopeful / page_options::whole;
                return meets_largest == (q > 0) ? hopeful : q - hopeful;
            });
        }
        return result;
    }
    void largest_scores(scan_queries const& queries, index_t pages, std::int32_t* to,
                        bool and_old) const noexcept {
        ranges_.scan(queries, pages, into_largest(to, and_old));
    }

private:
    /// Channels in whole words of a dot product.
    [[nodiscard]] static constexpr index_t dot_groups(index_t dim) noexcept {
        return ceil_div(dim, exec::dot_depth) * exec::dot_depth;
    }
    /// Of a channel's smallest code: words of four smallest and of four largest codes take turns.
    [[nodiscard]] static constexpr index_t place(index_t d) noexcept {
        return d / exec::dot_depth * 2 * exec::dot_depth + d % exec::dot_depth;
    }

    code_panels<Policy> ranges_;
    index_t dim_ = 0;
    index_t keys_ = 0;
    page_options options_;
};

/// A packed index with a first level of pages; both grow together, or, without memory, neither.
template <packed_policy Policy>
class paged_index {
public:
    paged_index() = default;
    explicit paged_index(key_calibration<Policy> calibration, page_options const& options = {})
        : keys_(std::move(calibration)), pages_(keys_.dim(), options) {}

    void reserve(index_t keys) {
        keys_.reserve(keys);
        pages_.reserve(keys);
    }
    template <storage_float T>
    void append(view<T const, axis::dim> key) {
        make_room();
        keys_.append(key);
        index_t const last = keys_.size() - 1;
        pages_.append([&](index_t d) { return keys_.code(last, d); });
    }
    template <storage_float T>
    void append(key_view<T const> keys) {
        reserve(keys_.size() + keys.template extent<axis::key>());
        for (index_t k = 0; k < keys.template extent<axis::key>(); ++k) {
            append(keys.template slice<axis::key>(k));
        }
    }

    /// As packed_index's.
    template <std::invocable<index_t> Code>
    void append_coded(Code code) {
        make_room();
        keys_.append_coded(code);
        pages_.append(code);
    }

    /// Forgets all keys but the first `keys`.
    void truncate(index_t keys) noexcept {
        keys_.truncate(keys);
        pages_.truncate(keys, [&](index_t key, index_t d) { return keys_.code(key, d); });
    }

    [[nodiscard]] index_t size() const noexcept { return keys_.size(); }
    [[nodiscard]] index_t dim() const noexcept { return keys_.dim(); }
    [[nodiscard]] packed_index<Policy> const& keys() const noexcept { return keys_; }
    [[nodiscard]] page_ranges<Policy> const& pages() const noexcept { return pages_; }

private:
    void make_room() {
        keys_.make_room();
        pages_.make_room();
    }

    packed_index<Policy> keys_;
    page_ranges<Policy> pages_;
};

} // namespace sofattn::dlzs
