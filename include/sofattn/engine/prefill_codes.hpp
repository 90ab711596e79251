// SPDX-License-Identifier: MIT
// What sparse prefill knows of the keys and values that a descriptor describes.
#pragma once

#include <sofattn/attention/paged_problem.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/engine/check.hpp>
#include <sofattn/engine/descriptor.hpp>
#include <sofattn/engine/kv_pool.hpp>
#include <sofattn/engine/run.hpp>
#include <sofattn/engine/verdict.hpp>

#include <cstddef>
#include <utility>
#include <vector>

namespace sofattn::engine {

/// Hands take(std::vector<prefill_codes>&&) the codes of each KV head, for method::budget. Allocates.
/// Keys must lie in a row and be finite. take may throw std::bad_alloc.
template <class Take>
[[nodiscard]] verdict make_prefill_codes(attention_desc d, Take take) noexcept {
    d.how = method::dense; // what else it describes is for the run
    d.products = dense_products::f32;
    d.selected = {};
    d.finite = finite_check::reject;
    verdict const good = check(d);
    if (!good.ok()) {
        return good;
    }
    if (d.pages.numbers != nullptr) {
        return {status::unsupported, "pages.numbers", 1,
                "left out with method::budget: sparse prefill reads keys in a row"};
    }
    return detail::with_types(d, [&](auto const& given) -> verdict {
        verdict const numbers = detail::check_finite(given, d);
        if (!numbers.ok()) {
            return numbers;
        }
        return detail::guarded([&] {
            std::vector<prefill_codes> codes;
            codes.reserve(static_cast<std::size_t>(d.kv_heads));
            if constexpr (!requires { given.table; }) {
                for (index_t h = 0; h < d.kv_heads; ++h) {
                    codes.emplace_back(keys_of(given, h), values_of(given, h));
                }
            }
            take(std::move(codes));
        });
    });
}

} // namespace sofattn::engine
