// SPDX-License-Identifier: MIT
// Where the tokens of a sequence lie in a pool of pages: the block table of paged attention.
#pragma once

#include <sofattn/core/assert.hpp>
#include <sofattn/core/types.hpp>

#include <cstddef>
#include <cstdint>
#include <span>

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

} // namespace sofattn
