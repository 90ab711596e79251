// SPDX-License-Identifier: MIT
// Where the tokens of a sequence lie in a pool of pages: the block table of paged attention.
#pragma once

#include <sofattn/core/assert.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/core/view.hpp>

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>

namespace sofattn {

/// Token t of the sequence is row `row(t)` of the pool: row t % page_tokens of page pages[t / page_tokens].
/// Does not own the numbers.
struct page_table {
    std::span<std::int32_t const> pages{}; ///< numbers of pool pages, in the order of the sequence
    index_t page_tokens = 1;

    /// Tokens that the pages hold at most.
    [[nodiscard]] index_t capacity() const noexcept { return std::ssize(pages) * page_tokens; }

    [[nodiscard]] key_id row(index_t token) const noexcept {
        SOFATTN_DASSERT(token >= 0 && token < capacity());
        auto const page = static_cast<std::size_t>(token / page_tokens);
        return static_cast<key_id>(pages[page] * page_tokens + token % page_tokens);
    }
    /// Whether rows of tokens [first, first + count) follow each other.
    [[nodiscard]] bool is_run(index_t first, index_t count) const noexcept {
        if (count <= 0) {
            return true;
        }
        auto const last = static_cast<std::size_t>((first + count - 1) / page_tokens);
        for (auto p = static_cast<std::size_t>(first / page_tokens); p < last; ++p) {
            if (pages[p + 1] != pages[p] + 1) {
                return false;
            }
        }
        return true;
    }
};

/// Tokens of a sequence in pages, read as Rows are: view<T, axis::key, Column> of the pool, or its scaled_view.
/// Copied freely.
template <class Rows>
class paged_view {
public:
    using element_type = typename Rows::element_type;

    /// `rows` of the pool; tokens [first, first + count) of the table.
    constexpr paged_view(Rows rows, page_table const& table, index_t first, index_t count) noexcept
        : rows_(rows), table_(table), first_(first), count_(count) {}

    template <class Axis>
    [[nodiscard]] constexpr index_t extent() const noexcept {
        return std::is_same_v<Axis, axis::key> ? count_ : rows_.template extent<Axis>();
    }
    /// Tokens have none: rows may lie anywhere.
    template <class Axis>
        requires(!std::is_same_v<Axis, axis::key>)
    [[nodiscard]] constexpr index_t stride() const noexcept {
        return rows_.template stride<Axis>();
    }
    [[nodiscard]] decltype(auto) operator()(index_t token, index_t column) const noexcept {
        return rows_(table_.row(first_ + token), column);
    }
    /// One token's row.
    template <class Axis>
        requires(std::is_same_v<Axis, axis::key>)
    [[nodiscard]] constexpr auto slice(index_t token) const noexcept {
        return rows_.template slice<axis::key>(table_.row(first_ + token));
    }
    template <class Axis>
        requires(std::is_same_v<Axis, axis::key>)
    [[nodiscard]] constexpr paged_view range(index_t first, index_t count) const noexcept {
        return {rows_, table_, first_ + first, count};
    }

private:
    Rows rows_;
    page_table table_;
    index_t first_;
    index_t count_;
};

/// Keys or values of one KV head, read token by token: a view [key, Column], or a paged_view.
template <class T, class Column>
concept token_rows = requires(T const& rows, index_t token) {
    { rows.template extent<axis::key>() } -> std::same_as<index_t>;
    { rows.template extent<Column>() } -> std::same_as<index_t>;
    { rows.template slice<axis::key>(token).template extent<Column>() } -> std::same_as<index_t>;
};

} // namespace sofattn
