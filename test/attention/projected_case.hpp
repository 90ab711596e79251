// SPDX-License-Identifier: MIT
// Tokens and projections of a small layer whose keys and values are made on demand.
#pragma once

#include "support/generators.hpp"
#include <sofattn/attention/problem.hpp>
#include <sofattn/core/tensor.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/dlzs/rope.hpp>

namespace sofattn::test {

struct projected_case {
    static constexpr index_t channels = 40;

    projected_case(generator& random, bool with_bias)
        : x(random_matrix<float, axis::key, axis::channel>(random, {70, channels})),
          wk(random_matrix<float, axis::channel, axis::kv_head, axis::dim>(random,
                                                                           {channels, 2, 16})),
          wv(random_matrix<float, axis::channel, axis::kv_head, axis::value_dim>(
              random, {channels, 2, 24})),
          bk(random_matrix<float, axis::kv_head, axis::dim>(random, {2, 16})),
          bv(random_matrix<float, axis::kv_head, axis::value_dim>(random, {2, 24})),
          q(random_matrix<float, axis::head, axis::query, axis::dim>(random, {4, 70, 16})),
          biased(with_bias) {}

    [[nodiscard]] projected_problem<float> given() const {
        projected_problem<float> p;
        p.queries = q.view();
        p.tokens = x.view();
        p.key_weights = wk.view();
        p.value_weights = wv.view();
        if (biased) {
            p.key_bias = bk.view();
            p.value_bias = bv.view();
        }
        p.rotation = &rotation;
        p.causal = true;
        p.scale = 0.02;
        return p;
    }

    tensor<float, axis::key, axis::channel> x;
    tensor<float, axis::channel, axis::kv_head, axis::dim> wk;
    tensor<float, axis::channel, axis::kv_head, axis::value_dim> wv;
    tensor<float, axis::kv_head, axis::dim> bk;
    tensor<float, axis::kv_head, axis::value_dim> bv;
    tensor<float, axis::head, axis::query, axis::dim> q;
    dlzs::rope rotation{16, dlzs::rope_layout::interleaved};
    bool biased;
};

} // namespace sofattn::test
