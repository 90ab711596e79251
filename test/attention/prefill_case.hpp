// SPDX-License-Identifier: MIT
// Layers to prefill, of many shapes, with and without pages that are worth skipping.
#pragma once

#include "attention/random_layer.hpp"
#include "support/generators.hpp"
#include <sofattn/core/element.hpp>
#include <sofattn/core/types.hpp>

#include <cmath>
#include <cstddef>
#include <vector>

namespace sofattn::test {

struct prefill_shape {
    index_t kv_heads, group, queries, keys, dim, value_dim;
    bool causal;
};

[[nodiscard]] inline std::vector<prefill_shape> prefill_shapes(generator& random) {
    std::vector<prefill_shape> all{{1, 1, 1, 1, 1, 1, true},       {1, 1, 300, 300, 64, 64, true},
                                   {2, 4, 37, 37, 128, 128, true}, {1, 2, 20, 700, 80, 96, false},
                                   {1, 3, 50, 255, 17, 5, false},  {1, 1, 530, 257, 16, 24, true},
                                   {1, 8, 40, 300, 128, 64, true}, {2, 1, 97, 600, 33, 130, true}};
    for (int i = 0; i < 12; ++i) {
        all.push_back({random.integer<index_t>(1, 2), random.integer<index_t>(1, 4),
                       random.integer<index_t>(1, 130), random.integer<index_t>(1, 600),
                       random.integer<index_t>(1, 140), random.integer<index_t>(1, 140),
                       random.chance(0.6)});
    }
    return all;
}

/// Logits of spreads from 0.5 to 3; few values are never all near 0 by chance.
template <class T>
struct prefill_case : random_layer<T> {
    prefill_case(generator& random, prefill_shape const& s)
        : random_layer<T>(random,
                          {s.kv_heads * s.group, s.kv_heads, s.queries, s.keys, s.dim, s.value_dim},
                          s.causal) {
        float const sharp = static_cast<float>(random.uniform(0.5, 3.0));
        for_each_index(this->q.view().extents(), [&](auto const& i) {
            at(this->q.view(), i) = T(sharp * to_float(at(this->q.view(), i)));
        });
        for_each_index(this->v.view().extents(), [&](auto const& i) {
            at(this->v.view(), i) = T(0.3f + to_float(at(this->v.view(), i)));
        });
    }
};

/// Keys in clusters that hang together in time, as trained ones do, and queries that follow one
/// another closely: there are pages to skip.
template <class T>
void cluster(generator& random, random_layer<T>& layer) {
    auto const drift = [&](auto view, index_t head, float inertia, float noise) {
        auto const [heads, tokens, dim] = view.extents();
        std::vector<float> state(static_cast<std::size_t>(dim));
        for (index_t t = 0; t < tokens; ++t) {
            for (index_t d = 0; d < dim; ++d) {
                auto& x = state[static_cast<std::size_t>(d)];
                x = inertia * x +
                    std::sqrt(1.0f - inertia * inertia) * static_cast<float>(random.normal());
                view(head, t, d) = T(2.0f * x + noise * static_cast<float>(random.normal()));
            }
        }
    };
    for (index_t h = 0; h < layer.q.view().extents()[0]; ++h) {
        drift(layer.q.view(), h, 0.97f, 0.2f);
    }
    for (index_t h = 0; h < layer.k.view().extents()[0]; ++h) {
        drift(layer.k.view(), h, 0.95f, 0.3f);
        for (index_t d = 0; d < layer.k.view().extents()[2]; ++d) { // one that all look at
            layer.k(h, 0, d) = T(3.0f * to_float(layer.k(h, 0, d)));
        }
    }
}

} // namespace sofattn::test
