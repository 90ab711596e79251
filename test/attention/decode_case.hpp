// SPDX-License-Identifier: MIT
// Random layers of few queries, and how far an output is from double precision.
#pragma once

#include "attention/random_layer.hpp"
#include "support/generators.hpp"
#include "support/guarded_workspace.hpp"
#include "support/same_bits.hpp"
#include <sofattn/attention/problem.hpp>
#include <sofattn/core/tensor.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/core/view.hpp>
#include <sofattn/ref/dense_attention.hpp>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <vector>

namespace sofattn::test {

using decode_output = tensor<float, axis::head, axis::query, axis::value_dim>;

struct decode_shape {
    index_t kv_heads = 1;
    index_t group = 4;
    index_t queries = 1;
    index_t keys = 300;
    index_t dim = 32;
    index_t value_dim = 32;
    bool causal = true;
};

[[nodiscard]] inline std::string described(decode_shape const& s) {
    std::string text = s.causal ? "causal" : "not causal";
    auto const add = [&](char const* what, index_t value) {
        text += ", " + std::to_string(value) + " " + what;
    };
    add("KV heads", s.kv_heads);
    add("query heads each", s.group);
    add("queries", s.queries);
    add("keys", s.keys);
    add("dimensions of keys", s.dim);
    add("of values", s.value_dim);
    return text;
}

/// Every other query looks for a key; values are positive.
template <class T = float>
struct decode_case : random_layer<T> {
    decode_case(generator& random, decode_shape const& s)
        : random_layer<T>(random,
                          {s.kv_heads * s.group, s.kv_heads, s.queries, s.keys, s.dim, s.value_dim},
                          s.causal) {
        this->make_values_positive();
        this->plant_matches(random, 0.5);
    }
};

/// Relative Frobenius error of a head's rows, the worst head, of attention to the keys for which
/// attended(head, query, key) holds; a row without any must be 0. NaN if an output is.
template <class Q, class KV, class Attended>
[[nodiscard]] double deviation(problem<Q, KV> const& given, decode_output const& output,
                               Attended attended) {
    problem_shape const s = given.shape();
    double worst = 0;
    for (index_t h = 0; h < s.heads; ++h) {
        auto const keys = given.keys.template slice<axis::kv_head>(h / s.group());
        auto const values = given.values.template slice<axis::kv_head>(h / s.group());
        double error = 0;
        double size = 0;
        for (index_t r = 0; r < s.queries; ++r) {
            std::vector<double> weights(static_cast<std::size_t>(s.visible(r)));
            ref::row_logits(
                given.queries.template slice<axis::head>(h).template slice<axis::query>(r), keys,
                s.scale, weights);
            bool any = false;
            for (index_t k = 0; k < s.visible(r); ++k) {
                bool const is = attended(h, r, k);
                any = any || is;
                weights[static_cast<std::size_t>(k)] =
                    is ? weights[static_cast<std::size_t>(k)]
                       : -std::numeric_limits<double>::infinity();
            }
            std::vector<double> truth(static_cast<std::size_t>(s.value_dim), 0.0);
            if (any) {
                ref::softmax(weights);
                ref::weighted_sum<KV>(weights, values, truth);
            }
            for (index_t d = 0; d < s.value_dim; ++d) {
                double const right = truth[static_cast<std::size_t>(d)];
                double const off = double{output(h, r, d)} - right;
                error += !any && std::bit_cast<std::uint32_t>(output(h, r, d)) != 0u
                             ? std::numeric_limits<double>::quiet_NaN()
                             : off * off;
                size += right * right;
            }
        }
        double const relative = size > 0 ? std::sqrt(error / size) : std::sqrt(error);
        worst = relative <= worst ? worst : relative; // NaN stays
    }
    return worst;
}
template <class Q, class KV>
[[nodiscard]] double deviation(problem<Q, KV> const& given, decode_output const& output) {
    return deviation(given, output, [](index_t, index_t, index_t) { return true; });
}

} // namespace sofattn::test
