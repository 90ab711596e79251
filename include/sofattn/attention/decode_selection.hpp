// SPDX-License-Identifier: MIT
// Which keys a decoding row keeps: those of the whole index, or of its best pages, that score best.
#pragma once

#include <sofattn/attention/attend_listed.hpp>
#include <sofattn/attention/options.hpp>
#include <sofattn/attention/problem.hpp>
#include <sofattn/core/assert.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/dlzs/packed_index.hpp>
#include <sofattn/dlzs/page_ranges.hpp>
#include <sofattn/exec/xsimd_lanes.hpp>
#include <sofattn/sads/best_keys.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <span>

namespace sofattn {

/// Which keys a decoding row keeps.
struct sparse_decode_options {
    index_t count = 2048; ///< keys, forced ones included
    index_t sinks = 4;    ///< the first keys, always kept
    index_t window = 64;  ///< the last keys that a row sees, always kept
    selection_scope scope = selection_scope::per_group;
    /// With a paged_index, only the keys of the best pages are scanned: those that hold so many keys
    /// per key of `count`, ...
    index_t scanned_per_kept = 4;
    index_t scanned_one_in =
        8; ///< ... and at least one of so many keys; 1: all, whatever the pages
};

namespace detail {

template <class Policy>
[[nodiscard]] dlzs::packed_index<Policy> const&
key_codes(dlzs::packed_index<Policy> const& index) noexcept {
    return index;
}
template <class Policy>
[[nodiscard]] dlzs::packed_index<Policy> const&
key_codes(dlzs::paged_index<Policy> const& index) noexcept {
    return index.keys();
}

/// Where a thread's scratch begins, in bytes.
struct sparse_decode_layout {
    index_t rows;        ///< that attend together
    index_t score_rows;  ///< of scores
    index_t score_count; ///< of a row
    index_t kept_most;   ///< keys
    index_t keys_at;
    index_t page_scores_at;
    index_t pages_at;
    index_t attend_at; ///< what attends to the kept keys
    index_t bytes;

    [[nodiscard]] static constexpr sparse_decode_layout
    of(problem_shape const& s, sparse_decode_options const& options) noexcept {
        constexpr index_t line = 64;
        auto const lines = [](index_t count) { return ceil_div(count, line) * line; };
        auto const registers = [](index_t count) {
            return ceil_div(count, exec::vector_width) * exec::vector_width;
        };
        bool const together = options.scope == selection_scope::per_group;
        index_t const group = s.heads / s.kv_heads;
        index_t const pages = ceil_div(s.keys, index_t{16}); // of the smallest size there is
        sparse_decode_layout l{};
        l.rows = together ? group : 1;
        l.score_rows = together ? 1 : std::min(group, dlzs::scan_queries::rows_most);
        l.score_count = registers(s.keys);
        l.kept_most = std::min(s.keys, options.count + options.sinks + options.window);
        l.keys_at = lines(l.score_rows * l.score_count * 4);
        l.page_scores_at = l.keys_at + lines((s.keys + sads::best_keys::slack) * 4);
        l.pages_at = l.page_scores_at + lines(registers(pages) * 4);
        l.attend_at = l.pages_at + lines((pages + sads::best_keys::slack) * 4);
        l.bytes = l.attend_at + lines(listed_rows::bytes(l.rows, l.kept_most, s.dim, s.value_dim));
        return l;
    }
};

/// Selects for the query heads of a KV head at a query that sees `visible` keys.
///
/// in     index      of all keys; row(i) query of head i of the group
///        rows       [first, first + count) of the group's heads
/// out    f(head, keys)  of each selection: its first head, and the keys that it keeps, ascending
///        The first `sinks` and the last `window` keys are kept, and of the others, up to `count`
///        with these, the best by score: the largest of the rows that select together, ties to the
///        lower key. With pages, n = max(scanned_per_kept * count, competing / scanned_one_in, rounded
///        up) of the others are scanned if these are more: those of the ceil(n / page keys) best pages
///        among the ones that hold any, by page score: the largest of the rows, ties to the lower
///        page. Pages score all keys that they have, seen or not
/// pre    memory as laid out
/// error  none
/// exact  the same keys on every target
class decode_selector {
public:
    decode_selector(sparse_decode_options const& options, sparse_decode_layout const& layout,
                    std::byte* scratch, index_t visible) noexcept
        : options_(options), layout_(layout), scores_(reinterpret_cast<std::int32_t*>(scratch)),
          page_scores_(reinterpret_cast<std::int32_t*>(scratch + layout.page_scores_at)),
          keys_(reinterpret_cast<key_id*>(scratch + layout.keys_at)),
          pages_(reinterpret_cast<key_id*>(scratch + layout.pages_at)),
          sinks_(std::min(options.sinks, visible)),
          window_(std::min(options.window, visible - sinks_)), visible_(visible) {}

    template <class Index, class Row, class F>
    void operator()(Index const& index, index_t group, index_t first, index_t rows, Row row,
                    F f) const noexcept {
        constexpr index_t rows_most = dlzs::scan_queries::rows_most;
        auto const& codes = key_codes(index);
        bool const together = options_.scope == selection_scope::per_group;
        // Heads that select together must have comparable scores: one step for all of the group.
        auto const step = codes.magnitude_step(group, row);
        dlzs::scan_queries queries;
        auto const encode = [&](index_t r, index_t count) {
            codes.encode_with(step, first + r, count, row, queries);
        };
        if constexpr (requires { index.pages(); }) {
            index_t const pages = pages_scanned(index.pages().options().keys);
            if (pages < competing_pages(index.pages().options().keys)) {
                index_t const each = together ? rows : 1;
                for (index_t r = 0; r < rows; r += each) {
                    f(first + r, of_best_pages(index, pages, r, each, queries, encode));
                }
                return;
            }
        }
        for (index_t r = 0; r < rows && visible_ > 0; r += rows_most) {
            encode(r, std::min(rows_most, rows - r));
            if (together) {
                codes.largest_scores(queries, visible_, scores_, r > 0);
            } else {
                codes.scores(queries, visible_, scores_, layout_.score_count);
            }
        }
        for (index_t s = 0; s < (together ? 1 : rows); ++s) {
            index_t const best =
                sads::best_keys{}(scores_ + s * layout_.score_count + sinks_, competing(), wanted(),
                                  static_cast<key_id>(sinks_), keys_ + sinks_);
            f(first + s, with_forced(best));
        }
    }

private:
    [[nodiscard]] index_t competing() const noexcept { return visible_ - sinks_ - window_; }
    [[nodiscard]] index_t wanted() const noexcept { return options_.count - sinks_ - window_; }
    [[nodiscard]] index_t first_page(index_t page) const noexcept { return sinks_ / page; }
    [[nodiscard]] index_t end_page(index_t page) const noexcept {
        return ceil_div(visible_ - window_, page);
    }
    [[nodiscard]] index_t competing_pages(index_t page) const noexcept {
        return competing() > 0 ? end_page(page) - first_page(page) : 0;
    }
    [[nodiscard]] index_t pages_scanned(index_t page) const noexcept {
        index_t const keys = std::max(options_.scanned_per_kept * options_.count,
                                      ceil_div(competing(), options_.scanned_one_in));
        return keys < competing() ? ceil_div(keys, page) : competing_pages(page);
    }

    [[nodiscard]] std::span<key_id const> with_forced(index_t best) const noexcept {
        std::iota(keys_, keys_ + sinks_, key_id{0});
        key_id* const end = keys_ + sinks_ + best;
        std::iota(end, end + window_, static_cast<key_id>(visible_ - window_));
        return {keys_, static_cast<std::size_t>(sinks_ + best + window_)};
    }

    template <class Index, class Encode>
    [[nodiscard]] std::span<key_id const>
    of_best_pages(Index const& index, index_t scanned, index_t first, index_t rows,
                  dlzs::scan_queries& queries, Encode const& encode) const noexcept {
        constexpr index_t rows_most = dlzs::scan_queries::rows_most;
        auto const& pages = index.pages();
        index_t const page = pages.options().keys;
        index_t const begin = first_page(page);
        index_t const end = end_page(page);
        for (index_t r = 0; r < rows; r += rows_most) {
            encode(first + r, std::min(rows_most, rows - r));
            pages.largest_scores(pages.page_queries(queries), end, page_scores_, r > 0);
        }
        index_t const found = sads::best_keys{}(page_scores_ + begin, end - begin, scanned,
                                                static_cast<key_id>(begin), pages_);
        std::span<key_id const> const best(pages_, static_cast<std::size_t>(found));
        for (index_t r = 0; r < rows; r += rows_most) {
            if (rows > rows_most) {
                encode(first + r, std::min(rows_most, rows - r));
            }
            index.keys().largest_scores_of_pages(queries, best, page, scores_, r > 0);
        }
        // Sinks and window share pages with what competes: at the ends of what was scanned.
        index_t const before = best.front() == begin ? sinks_ - begin * page : 0;
        index_t const after = best.back() == end - 1 ? end * page - (visible_ - window_) : 0;
        key_id* const keys = keys_ + sinks_;
        index_t const kept = sads::best_keys{}(scores_ + before, found * page - before - after,
                                               wanted(), static_cast<key_id>(before), keys);
        auto const size = static_cast<key_id>(page);
        for (index_t i = 0; i < kept; ++i) {
            keys[i] = pages_[keys[i] / size] * size + keys[i] % size;
        }
        return with_forced(kept);
    }

    sparse_decode_options const& options_;
    sparse_decode_layout const& layout_;
    std::int32_t* scores_;      ///< [row, key], or of the keys of the best pages
    std::int32_t* page_scores_; ///< [page]
    key_id* keys_;
    key_id* pages_;
    index_t sinks_;
    index_t window_;
    index_t visible_;
};

} // namespace detail

} // namespace sofattn
