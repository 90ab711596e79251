// SPDX-License-Identifier: MIT
// Random layers whose keys and values are codes with scales, and the floats that these stand for.
#pragma once

#include "attention/decode_case.hpp"
#include "support/generators.hpp"
#include <sofattn/attention/paged_problem.hpp>
#include <sofattn/attention/problem.hpp>
#include <sofattn/core/element.hpp>
#include <sofattn/core/page_table.hpp>
#include <sofattn/core/scaled_view.hpp>
#include <sofattn/core/tensor.hpp>
#include <sofattn/core/types.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <vector>

namespace sofattn::test {

/// Where scales come from: the rows' largest numbers; or the next power of two, so that scale * code has no
/// rounding, and neither have products by it.
enum class scale_kind { any, power_of_two };

/// Codes and scales of rows, and scale * code.
template <class Column>
struct scaled_tensor {
    template <class T>
    scaled_tensor(generator& random, view<T const, axis::kv_head, axis::key, Column> rows,
                  scale_kind kind)
        : codes(rows.extents()), scales({rows.extents()[0], rows.extents()[1]}),
          wide(rows.extents()) {
        auto const [heads, tokens, columns] = rows.extents();
        for (index_t h = 0; h < heads; ++h) {
            for (index_t t = 0; t < tokens; ++t) {
                float most = 0;
                for (index_t d = 0; d < columns; ++d) {
                    most = std::max(most, std::abs(to_float(rows(h, t, d))));
                }
                float scale = most / 127.0f;
                if (kind == scale_kind::power_of_two) {
                    scale = std::exp2(std::ceil(std::log2(scale)));
                }
                scale = random.chance(0.1) ? -scale : scale; // a number like any other
                scales(h, t) = scale;
                for (index_t d = 0; d < columns; ++d) {
                    float const code = std::nearbyint(to_float(rows(h, t, d)) / scale);
                    codes(h, t, d) = static_cast<std::int8_t>(code);
                    wide(h, t, d) = scale * code;
                }
            }
        }
    }
    [[nodiscard]] scaled_view<axis::kv_head, axis::key, Column> view() const {
        return {codes.cview(), scales.cview()};
    }

    tensor<std::int8_t, axis::kv_head, axis::key, Column> codes;
    tensor<float, axis::kv_head, axis::key> scales;
    tensor<float, axis::kv_head, axis::key, Column> wide;
};

template <class Query = float>
struct scaled_case {
    scaled_case(generator& random, decode_shape const& s, scale_kind kind = scale_kind::any)
        : floats(random, s), k(random, floats.k.cview(), kind), v(random, floats.v.cview(), kind) {}

    [[nodiscard]] problem<Query, std::int8_t> given() const {
        return {floats.q.view(), k.view(), v.view(), floats.causal, 0, window, prefix, terms};
    }
    /// The same numbers in f32.
    [[nodiscard]] problem<Query, float> widened() const {
        return {floats.q.view(), k.wide.cview(), v.wide.cview(), floats.causal, 0,
                window,          prefix,         terms};
    }

    decode_case<Query> floats; ///< before they were codes
    scaled_tensor<axis::dim> k;
    scaled_tensor<axis::value_dim> v;
    index_t window = 0;
    index_t prefix = 0;
    logit_terms terms{};
};

/// Codes and scales of a layer in shuffled pages of a pool; K, V and both scales of a token side by side.
template <class Query>
struct scaled_pages {
    scaled_pages(generator& random, scaled_case<Query> const& layer, index_t page_tokens)
        : of(layer), page(page_tokens) {
        problem_shape const s = of.given().shape();
        index_t const used = ceil_div(s.keys, page);
        numbers.resize(static_cast<std::size_t>(used + 3));
        std::iota(numbers.begin(), numbers.end(), 0);
        random.shuffle(numbers);
        numbers.resize(static_cast<std::size_t>(used));
        index_t const rows = (used + 3) * page;
        codes = random_codes<std::int8_t, axis::kv_head, axis::key, axis::dim>(
            random, {s.kv_heads, rows, s.dim + s.value_dim}, 127);
        scales.assign(static_cast<std::size_t>(s.kv_heads * rows * 2), 1e9f);
        for (index_t h = 0; h < s.kv_heads; ++h) {
            for (index_t t = 0; t < s.keys; ++t) {
                index_t const row = table().row(t);
                for (index_t d = 0; d < s.dim; ++d) {
                    codes(h, row, d) = of.k.codes(h, t, d);
                }
                for (index_t d = 0; d < s.value_dim; ++d) {
                    codes(h, row, s.dim + d) = of.v.codes(h, t, d);
                }
                auto const at = static_cast<std::size_t>((h * rows + row) * 2);
                scales[at] = of.k.scales(h, t);
                scales[at + 1] = of.v.scales(h, t);
            }
        }
    }
    [[nodiscard]] page_table table() const { return {numbers, page}; }
    [[nodiscard]] paged_problem<Query, std::int8_t> given() const {
        problem<Query, std::int8_t> const in_row = of.given();
        problem_shape const s = in_row.shape();
        auto const all = codes.cview();
        index_t const rows = all.template extent<axis::key>();
        auto const scales_from = [&](index_t which) {
            return view<float const, axis::kv_head, axis::key>(scales.data() + which,
                                                               {s.kv_heads, rows}, {rows * 2, 2});
        };
        paged_problem<Query, std::int8_t> p;
        p.queries = in_row.queries;
        p.keys = {all.template range<axis::dim>(0, s.dim), scales_from(0)};
        p.values = {all.template range<axis::dim>(s.dim, s.value_dim)
                        .template renamed<axis::kv_head, axis::key, axis::value_dim>(),
                    scales_from(1)};
        p.table = table();
        p.tokens = s.keys;
        p.causal = in_row.causal;
        p.window = in_row.window;
        p.prefix = in_row.prefix;
        p.terms = in_row.terms;
        return p;
    }

    scaled_case<Query> const& of;
    index_t page;
    std::vector<std::int32_t> numbers;
    tensor<std::int8_t, axis::kv_head, axis::key, axis::dim> codes;
    std::vector<float> scales;
};

} // namespace sofattn::test
