// SPDX-License-Identifier: MIT
// What sparse prefill knows of the keys and values that a descriptor describes, key by key or by pages.
#pragma once

#include <sofattn/attention/dense.hpp>
#include <sofattn/attention/paged_problem.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/engine/check.hpp>
#include <sofattn/engine/descriptor.hpp>
#include <sofattn/engine/kv_pool.hpp>
#include <sofattn/engine/page_codes.hpp>
#include <sofattn/engine/run.hpp>
#include <sofattn/engine/verdict.hpp>

#include <cstddef>
#include <type_traits>
#include <utility>
#include <vector>

namespace sofattn::engine {

namespace detail {

/// take(what Codes are made of, [kv_head]), of keys that are all finite, and in a row where others are of no use.
template <class Codes, bool InRow, class Take>
[[nodiscard]] verdict make_codes(attention_desc d, Take take) noexcept {
    d.how = method::dense; // what else it describes is for the run
    d.products = dense_products::f32;
    d.selected = {};
    d.finite = finite_check::reject;
    verdict const good = check(d);
    if (!good.ok()) {
        return good;
    }
    if (InRow && d.pages.numbers != nullptr) {
        return {status::unsupported, "pages.numbers", 1,
                "left out with method::budget, which reads keys in a row"};
    }
    if (InRow && d.key.type == dtype::int8) {
        return {status::unsupported, "key.type", static_cast<double>(d.key.type),
                "f32, f16 or bf16 with method::budget"};
    }
    return with_types(d, [&](auto const& given) -> verdict {
        verdict const numbers = check_finite(given, d);
        if (!numbers.ok()) {
            return numbers;
        }
        return guarded([&] {
            std::vector<Codes> codes;
            codes.reserve(static_cast<std::size_t>(d.kv_heads));
            using given_type = std::remove_cvref_t<decltype(given)>;
            constexpr bool in_pool = requires { given.table; };
            if constexpr (!InRow || !(in_pool || scaled_problem<given_type>)) {
                for (index_t h = 0; h < d.kv_heads; ++h) {
                    codes.emplace_back(keys_of(given, h), values_of(given, h));
                }
            }
            take(std::move(codes));
        });
    });
}

template <dense_products Products, class Take>
[[nodiscard]] verdict make_codes_of_pages(attention_desc const& d, Take take) noexcept {
    using index = page_codes::index_type<Products>;
    return make_codes<index, false>(d, [&](std::vector<index>&& indexes) {
        take(page_codes::of<Products>(std::move(indexes)));
    });
}

} // namespace detail

/// Hands take(std::vector<prefill_codes>&&) the codes of each KV head, for method::budget. Allocates.
/// Keys must lie in a row and be finite. take may throw std::bad_alloc.
template <class Take>
[[nodiscard]] verdict make_prefill_codes(attention_desc const& d, Take take) noexcept {
    return detail::make_codes<prefill_codes, true>(d, take);
}

/// Hands take(page_codes&&) those of all KV heads, for method::pages with the same products, which are f32
/// or bf16. They are copies: keys and values may go. Keys may lie in pages of a pool; for the rest as above. A
/// sequence of a KV cache can keep such codes itself, as it grows (kv_layout::page_codes).
template <class Take>
[[nodiscard]] verdict make_page_codes(attention_desc const& d, Take take) noexcept {
    switch (d.products) {
    case dense_products::f32: return detail::make_codes_of_pages<dense_products::f32>(d, take);
    case dense_products::bf16: return detail::make_codes_of_pages<dense_products::bf16>(d, take);
    case dense_products::int8: break;
    }
    return {status::unsupported, "products", static_cast<double>(d.products),
            "f32 or bf16 with method::pages"};
}

} // namespace sofattn::engine
