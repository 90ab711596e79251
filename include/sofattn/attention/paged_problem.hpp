// SPDX-License-Identifier: MIT
// What is attended to where keys and values lie in pages of a pool, as in a paged KV cache.
#pragma once

#include <sofattn/attention/problem.hpp>
#include <sofattn/core/element.hpp>
#include <sofattn/core/error.hpp>
#include <sofattn/core/page_table.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/core/view.hpp>

#include <cmath>
#include <cstdint>
#include <limits>
#include <string>

namespace sofattn {

/// One sequence's attention; others may have pages of the same pool, some of them shared.
template <storage_float Query, storage_float KeyValue = Query>
struct paged_problem {
    view<Query const, axis::head, axis::query, axis::dim> queries;
    view<KeyValue const, axis::kv_head, axis::key, axis::dim> keys; ///< rows of the pool
    view<KeyValue const, axis::kv_head, axis::key, axis::value_dim> values;
    page_table table;
    index_t tokens = 0; ///< of the sequence
    bool causal = true;
    double scale = 0; ///< 0: 1 / sqrt(dim)

    /// With the sequence's tokens as keys. Throws `error` if the arrays do not fit each other.
    [[nodiscard]] problem_shape shape() const {
        problem_shape s = problem<Query, KeyValue>{queries, keys, values, causal, scale}.shape();
        index_t const rows = s.keys;
        s.keys = tokens;
        detail::require(table.page_tokens > 0, "tokens per page", table.page_tokens, "at least 1");
        detail::require(tokens > 0 && tokens <= table.capacity(), "tokens of the sequence", tokens,
                        "at least 1 and at most those of its pages, ", table.capacity());
        detail::require(rows <= std::numeric_limits<key_id>::max(), "rows of the pool", rows,
                        "at most ", std::numeric_limits<key_id>::max());
        return s;
    }

    /// Throws `error` naming the first page that the pool has not. Not part of `shape`, which is asked
    /// for at every step.
    void require_pages() const {
        index_t const pages = keys.template extent<axis::key>() / table.page_tokens;
        for (std::int32_t const page : table.pages) {
            detail::require(page >= 0 && page < pages, "page of the pool", page,
                            "at least 0 and less than ", pages);
        }
    }
};

} // namespace sofattn
