// SPDX-License-Identifier: MIT
// Q, K and V of a layer, at random.
#pragma once

#include "support/generators.hpp"
#include <sofattn/attention/problem.hpp>
#include <sofattn/core/element.hpp>
#include <sofattn/core/tensor.hpp>
#include <sofattn/core/types.hpp>

#include <cmath>

namespace sofattn::test {

struct layer_shape {
    index_t heads = 4;
    index_t kv_heads = 2;
    index_t queries = 70;
    index_t keys = 70;
    index_t dim = 16;
    index_t value_dim = 24;
};

/// Standard normal, so logits are of order 1; what a test needs beside that, it adds.
template <class T = float>
struct random_layer {
    random_layer(generator& random, layer_shape const& s, bool causal_mask)
        : causal(causal_mask), q(random_matrix<T, axis::head, axis::query, axis::dim>(
                                   random, {s.heads, s.queries, s.dim})),
          k(random_matrix<T, axis::kv_head, axis::key, axis::dim>(random,
                                                                  {s.kv_heads, s.keys, s.dim})),
          v(random_matrix<T, axis::kv_head, axis::key, axis::value_dim>(
              random, {s.kv_heads, s.keys, s.value_dim})) {}

    [[nodiscard]] problem<T> given() const {
        return {q.view(), k.view(), v.view(), causal, scale, window};
    }

    /// That share of the queries looks for some key, so that top-k means something.
    void plant_matches(generator& random, double share) {
        auto const [heads, queries, dim] = q.view().extents();
        auto const [kv_heads, keys, same] = k.view().extents();
        for (index_t h = 0; h < heads; ++h) {
            for (index_t r = 0; r < queries; ++r) {
                if (share < 1.0 && !random.chance(share)) {
                    continue;
                }
                index_t const match = random.integer<index_t>(0, keys - 1);
                for (index_t d = 0; d < dim; ++d) {
                    q(h, r, d) = T(to_float(q(h, r, d)) +
                                   0.7f * to_float(k(h / (heads / kv_heads), match, d)));
                }
            }
        }
    }

    /// Outputs then never come close to 0 by chance, which no arithmetic gets right relatively.
    void make_values_positive() {
        for_each_index(v.view().extents(), [&](auto const& i) {
            at(v.view(), i) = T(0.5f + std::abs(to_float(at(v.view(), i))));
        });
    }

    bool causal;
    double scale = 0;   ///< as in problem
    index_t window = 0; ///< as in problem
    tensor<T, axis::head, axis::query, axis::dim> q;
    tensor<T, axis::kv_head, axis::key, axis::dim> k;
    tensor<T, axis::kv_head, axis::key, axis::value_dim> v;
};

} // namespace sofattn::test
