// SPDX-License-Identifier: MIT
// One causal attention head to measure on, made up; recorded.hpp has others.
#pragma once

#include "support/data.hpp"
#include <sofattn/attention/problem.hpp>
#include <sofattn/core/tensor.hpp>
#include <sofattn/core/types.hpp>

#include <cmath>

namespace sofattn::bench {

struct head {
    tensor<float, axis::head, axis::query, axis::dim> q;        // [1, tokens, dim]
    tensor<float, axis::kv_head, axis::key, axis::dim> k;       // [1, tokens, dim]
    tensor<float, axis::kv_head, axis::key, axis::value_dim> v; // [1, tokens, dim]

    [[nodiscard]] problem<float> given() const {
        return {q.cview(), k.cview(), v.cview(), /*causal=*/true};
    }
};

/// Normal keys and values, queries with logits of spread 2, and a first key that all of them attend
/// to with a logit of about 9, as trained models have.
[[nodiscard]] inline head random_head(index_t tokens, index_t dim) {
    generator random;
    head made{normal_tensor<axis::head, axis::query, axis::dim>(random, {1, tokens, dim}),
              normal_tensor<axis::kv_head, axis::key, axis::dim>(random, {1, tokens, dim}),
              normal_tensor<axis::kv_head, axis::key, axis::value_dim>(random, {1, tokens, dim})};
    float const along = 9.0f / std::sqrt(static_cast<float>(dim));
    for (index_t i = 0; i < tokens; ++i) {
        for (index_t d = 0; d < dim; ++d) {
            made.q(0, i, d) = 2.0f * made.q(0, i, d) + along * made.k(0, 0, d);
        }
    }
    return made;
}

} // namespace sofattn::bench
