// SPDX-License-Identifier: MIT
// A descriptor's queries, keys and values as views of their types.
#pragma once

#include <sofattn/attention/paged_problem.hpp>
#include <sofattn/attention/problem.hpp>
#include <sofattn/core/bfloat16.hpp>
#include <sofattn/core/half.hpp>
#include <sofattn/core/scaled_view.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/core/view.hpp>
#include <sofattn/engine/descriptor.hpp>
#include <sofattn/engine/verdict.hpp>

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace sofattn::engine {

/// The types of queries, keys and values that a program compiles `run` for. Each pair of them makes kernels of
/// its own, so that who has models in f16 alone compiles a third with elements<dtype::f16>; other descriptors
/// are then refused by name.
template <dtype... Types>
struct elements {
    [[nodiscard]] static constexpr bool has(dtype type) noexcept {
        return ((type == Types) || ...);
    }
};
using every_element = elements<dtype::f32, dtype::f16, dtype::bf16, dtype::int8>;

namespace detail {

template <class T, class... Axes>
[[nodiscard]] view<T const, Axes...> as_view(operand const& of, std::int64_t heads,
                                             std::int64_t tokens, std::int64_t dim) noexcept {
    constexpr auto bytes = static_cast<std::int64_t>(sizeof(T));
    return {static_cast<T const*>(of.data),
            {heads, tokens, dim},
            {of.head_stride / bytes, of.token_stride / bytes, 1}};
}

/// Keys or values, with the scales of codes.
template <class T, class Column>
[[nodiscard]] stored_view<T, axis::kv_head, axis::key, Column>
as_stored(operand const& of, row_scales const& scales, std::int64_t heads, std::int64_t rows,
          std::int64_t dim) noexcept {
    auto const numbers = as_view<T, axis::kv_head, axis::key, Column>(of, heads, rows, dim);
    if constexpr (std::same_as<T, std::int8_t>) {
        return {numbers,
                {scales.data, {heads, rows}, {scales.head_stride / 4, scales.token_stride / 4}}};
    } else {
        return numbers;
    }
}

/// f(given) with the problem in its types; `d` has passed `check`.
template <class Query, class KeyValue, class F>
verdict with_problem(attention_desc const& d, F f) noexcept {
    bool const in_pages = d.pages.numbers != nullptr;
    std::int64_t const rows = in_pages ? d.pages.pool_pages * d.pages.page_tokens : d.keys;
    problem<Query, KeyValue> in_row;
    in_row.queries =
        as_view<Query, axis::head, axis::query, axis::dim>(d.query, d.heads, d.queries, d.qk_dim);
    in_row.keys = as_stored<KeyValue, axis::dim>(d.key, d.key_scales, d.kv_heads, rows, d.qk_dim);
    in_row.values =
        as_stored<KeyValue, axis::value_dim>(d.value, d.value_scales, d.kv_heads, rows, d.v_dim);
    in_row.causal = d.mask != mask_kind::none;
    in_row.scale = d.scale;
    in_row.window = d.window;
    in_row.prefix = d.prefix;
    in_row.terms = {d.softcap, d.alibi_slopes, d.sink_logits};
    if (!in_pages) {
        return f(in_row);
    }
    paged_problem<Query, KeyValue> paged;
    paged.queries = in_row.queries;
    paged.keys = in_row.keys;
    paged.values = in_row.values;
    paged.table = {{d.pages.numbers, static_cast<std::size_t>(d.pages.count)}, d.pages.page_tokens};
    paged.tokens = d.keys;
    paged.causal = in_row.causal;
    paged.scale = in_row.scale;
    paged.window = in_row.window;
    paged.prefix = in_row.prefix;
    paged.terms = in_row.terms;
    return f(paged);
}

template <dtype Type>
using element_of = std::conditional_t<
    Type == dtype::f32, float,
    std::conditional_t<Type == dtype::f16, half,
                       std::conditional_t<Type == dtype::bf16, bfloat16, std::int8_t>>>;

/// f(given) if `Compiled` has both types.
template <class Compiled, dtype Query, dtype Key, class F>
verdict with_pair(attention_desc const& d, F f) noexcept {
    if constexpr (Compiled::has(Query) && Compiled::has(Key)) {
        return with_problem<element_of<Query>, element_of<Key>>(d, f);
    } else {
        constexpr char const* limit = "one of those that `run` was compiled for";
        return Compiled::has(Query)
                   ? verdict{status::unsupported, "key.type", static_cast<double>(Key), limit}
                   : verdict{status::unsupported, "query.type", static_cast<double>(Query), limit};
    }
}

template <class Compiled = every_element, class F>
verdict with_types(attention_desc const& d, F f) noexcept {
    using enum dtype;
    bool const widened = d.query.type == f32;
    switch (d.key.type) {
    case f32: return with_pair<Compiled, f32, f32>(d, f);
    case f16:
        return widened ? with_pair<Compiled, f32, f16>(d, f) : with_pair<Compiled, f16, f16>(d, f);
    case bf16:
        return widened ? with_pair<Compiled, f32, bf16>(d, f)
                       : with_pair<Compiled, bf16, bf16>(d, f);
    case int8:
        return widened               ? with_pair<Compiled, f32, int8>(d, f)
               : d.query.type == f16 ? with_pair<Compiled, f16, int8>(d, f)
                                     : with_pair<Compiled, bf16, int8>(d, f);
    }
    return {status::out_of_range, "key.type", static_cast<double>(d.key.type),
            "f32, f16, bf16 or int8"};
}

} // namespace detail

} // namespace sofattn::engine
