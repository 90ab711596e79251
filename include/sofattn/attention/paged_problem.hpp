// SPDX-License-Identifier: MIT
// What is attended to where keys and values lie in pages of a pool, as in a paged KV cache.
#pragma once

#include <sofattn/attention/logit_terms.hpp>
#include <sofattn/attention/problem.hpp>
#include <sofattn/core/element.hpp>
#include <sofattn/core/error.hpp>
#include <sofattn/core/page_table.hpp>
#include <sofattn/core/scaled_view.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/core/view.hpp>

#include <concepts>
#include <cstdint>
#include <limits>
#include <string>

namespace sofattn {

/// Keys, or values, of a KV head, as they are read token by token.
template <storage_float Query, storage_element KeyValue>
[[nodiscard]] auto keys_of(problem<Query, KeyValue> const& given, index_t kv) noexcept {
    return given.keys.template slice<axis::kv_head>(kv);
}
template <storage_float Query, storage_element KeyValue>
[[nodiscard]] auto values_of(problem<Query, KeyValue> const& given, index_t kv) noexcept {
    return given.values.template slice<axis::kv_head>(kv);
}

/// One sequence's attention; others may have pages of the same pool, some of them shared.
template <storage_float Query, storage_element KeyValue = Query>
struct paged_problem {
    view<Query const, axis::head, axis::query, axis::dim> queries;
    stored_view<KeyValue, axis::kv_head, axis::key, axis::dim> keys; ///< rows of the pool
    stored_view<KeyValue, axis::kv_head, axis::key, axis::value_dim> values;
    page_table table;
    index_t tokens = 0; ///< of the sequence
    bool causal = true;
    double scale = 0;   ///< 0: 1 / sqrt(dim)
    index_t window = 0; ///< as in problem
    index_t prefix = 0; ///< as in problem
    logit_terms terms{};

    /// As the arrays say, with the sequence's tokens as keys.
    [[nodiscard]] problem_shape extents() const noexcept {
        problem_shape s = in_pool().extents();
        s.keys = tokens;
        return s;
    }
    [[nodiscard]] detail::shape_fault fault() const noexcept {
        detail::shape_fault f = in_pool().fault();
        index_t const rows = keys.template extent<axis::key>();
        f.require(table.page_tokens > 0, "tokens per page", table.page_tokens, "at least 1");
        f.require(tokens > 0 && tokens <= table.capacity(), "tokens of the sequence", tokens,
                  "at least 1 and at most those of its pages, ", table.capacity());
        f.require(rows <= std::numeric_limits<key_id>::max(), "rows of the pool", rows, "at most ",
                  std::numeric_limits<key_id>::max());
        return f;
    }
    [[nodiscard]] bool is_valid() const noexcept {
        return !fault().found() && extents().is_valid();
    }
    /// Throws `error` if the arrays do not fit each other, or make no attention.
    [[nodiscard]] problem_shape shape() const {
        fault().raise();
        problem_shape const s = extents();
        s.validate();
        return s;
    }

    /// Throws `error` naming the first page that the pool has not. Not part of `shape`, which is asked
    /// for at every step.
    void require_pages() const {
        index_t const pages = keys.template extent<axis::key>() / table.page_tokens;
        detail::shape_fault f;
        for (std::int32_t const page : table.pages) {
            f.require(page >= 0 && page < pages, "page of the pool", page,
                      "at least 0 and less than ", pages);
        }
        f.raise();
    }

private:
    [[nodiscard]] problem<Query, KeyValue> in_pool() const noexcept {
        return {queries, keys, values, causal, scale, window, prefix, terms};
    }
};

template <storage_float Query, storage_element KeyValue>
[[nodiscard]] auto keys_of(paged_problem<Query, KeyValue> const& given, index_t kv) noexcept {
    return paged_view(given.keys.template slice<axis::kv_head>(kv), given.table, 0, given.tokens);
}
template <storage_float Query, storage_element KeyValue>
[[nodiscard]] auto values_of(paged_problem<Query, KeyValue> const& given, index_t kv) noexcept {
    return paged_view(given.values.template slice<axis::kv_head>(kv), given.table, 0, given.tokens);
}

/// `problem`, or `paged_problem`.
template <class T>
concept key_value_problem = requires(T const& given) {
    { given.extents() } -> std::same_as<problem_shape>;
    { given.is_valid() } -> std::same_as<bool>;
    given.queries;
    given.keys;
    given.values;
};

/// One whose keys and values are codes with scales.
template <class T>
concept scaled_problem = requires(T const& given) {
    given.keys.scales();
};

} // namespace sofattn
