// SPDX-License-Identifier: MIT
// Layers of random numbers, dense attention over them, and how far it is from double precision.
#pragma once

#include "attention/random_layer.hpp"
#include "support/generators.hpp"
#include "support/guarded_workspace.hpp"
#include <sofattn/attention/dense.hpp>
#include <sofattn/attention/problem.hpp>
#include <sofattn/core/tensor.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/exec/parallel.hpp>
#include <sofattn/ref/dense_attention.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

namespace sofattn::test {

inline constexpr index_t judged_rows = 8; // of each head, where shapes are many

using output_tensor = tensor<float, axis::head, axis::query, axis::value_dim>;
using output_layer = view<float, axis::head, axis::query, axis::value_dim>;
template <class T>
using query_tensor = tensor<T, axis::head, axis::query, axis::dim>;
template <class T>
using key_tensor = tensor<T, axis::kv_head, axis::key, axis::dim>;
template <class T>
using value_tensor = tensor<T, axis::kv_head, axis::key, axis::value_dim>;

struct dense_shape {
    index_t kv_heads = 2;
    index_t group = 2;
    index_t queries = 70;
    index_t keys = 110;
    index_t dim = 16;
    index_t value_dim = 24;
    bool causal = false;
    double scale = 0;
    index_t window = 0;
};

/// Every other query looks for a key. Of few outputs all may come close to 0 by chance: values are
/// positive then.
template <class T = float>
struct dense_case : random_layer<T> {
    dense_case(generator& random, dense_shape const& s)
        : random_layer<T>(random,
                          {s.kv_heads * s.group, s.kv_heads, s.queries, s.keys, s.dim, s.value_dim},
                          s.causal) {
        this->scale = s.scale;
        this->window = s.window;
        this->plant_matches(random, 0.5);
        index_t const seeing = s.causal ? std::min(s.queries, s.keys) : s.queries;
        if (std::min(seeing, judged_rows) * s.value_dim < 64) {
            this->make_values_positive();
        }
    }
};

template <dense_products Products = dense_products::f32, class Run = exec::serial, class Q,
          class KV>
output_tensor attend(problem<Q, KV> const& given, Run const& run = {}, std::size_t shift = 0) {
    problem_shape const s = given.shape();
    output_tensor output({s.heads, s.queries, s.value_dim});
    guarded_workspace workspace(dense_workspace_bytes(s, run.threads()), shift);
    dense_attention<Products>(given, output.view(), workspace.span(), run);
    CHECK(workspace.kept_outside());
    return output;
}

/// Relative Frobenius error of a head's rows, the worst head: at most `rows_most` rows of each, the
/// first and the last among them. NaN if a row is, or if one that sees no key is not zero.
template <class Q, class KV>
double deviation(generator& random, problem<Q, KV> const& given, output_tensor const& output,
                 index_t rows_most = 400) {
    problem_shape const s = given.shape();
    double worst = 0;
    for (index_t h = 0; h < s.heads; ++h) {
        std::vector<index_t> rows(static_cast<std::size_t>(s.queries));
        std::iota(rows.begin(), rows.end(), index_t{0});
        if (s.queries > rows_most) {
            random.shuffle(rows);
            rows.resize(static_cast<std::size_t>(rows_most));
            rows.insert(rows.end(), {index_t{0}, s.queries - 1});
        }
        auto const keys = given.keys.template slice<axis::kv_head>(h / s.group());
        auto const values = given.values.template slice<axis::kv_head>(h / s.group());
        double error = 0;
        double size = 0;
        for (index_t const r : rows) {
            key_range const sees = s.sees(r);
            index_t const seen = sees.to - sees.from;
            std::vector<double> weights(static_cast<std::size_t>(seen));
            ref::row_logits(
                given.queries.template slice<axis::head>(h).template slice<axis::query>(r),
                keys.template range<axis::key>(sees.from, seen), s.scale, weights);
            ref::softmax(weights);
            std::vector<double> truth(static_cast<std::size_t>(s.value_dim));
            ref::weighted_sum<KV>(weights, values.template range<axis::key>(sees.from, seen),
                                  truth);
            for (index_t d = 0; d < s.value_dim; ++d) {
                double const right = truth[static_cast<std::size_t>(d)];
                double const off = double{output(h, r, d)} - right;
                error += weights.empty() && off != 0 ? std::numeric_limits<double>::quiet_NaN()
                                                     : off * off;
                size += right * right;
            }
        }
        double const relative = size > 0 ? std::sqrt(error / size) : std::sqrt(error);
        worst = relative <= worst ? worst : relative; // NaN stays
    }
    return worst;
}

template <class T>
T one_of(generator& random, std::vector<T> const& from) {
    return from[random.integer<std::size_t>(0, from.size() - 1)];
}

/// Every listed number of each kind at least once, with others drawn at random.
inline std::vector<dense_shape> generated_shapes(generator& random) {
    std::vector<index_t> const queries{1, 2, 5, 6, 7, 12, 13, 63, 64, 65, 191, 192, 193, 400};
    std::vector<index_t> const keys{1, 2, 5, 6, 7, 95, 96, 97, 191, 192, 193, 300};
    std::vector<index_t> const dims{1, 2, 3, 15, 16, 17, 64, 80, 127, 128, 255, 256};
    std::vector<index_t> const value_dims{1, 3, 8, 16, 17, 64, 80, 128, 255, 256};
    std::vector<index_t> const groups{1, 2, 3, 4, 8};
    std::vector<dense_shape> shapes;
    auto const add = [&](auto field, std::vector<index_t> const& values) {
        for (index_t const value : values) {
            for (bool const causal : {false, true}) {
                dense_shape s{.kv_heads = random.integer<index_t>(1, 2),
                              .group = one_of(random, groups),
                              .queries = one_of(random, queries),
                              .keys = one_of(random, keys),
                              .dim = one_of(random, dims),
                              .value_dim = one_of(random, value_dims),
                              .causal = causal};
                s.*field = value;
                shapes.push_back(s);
            }
        }
    };
    add(&dense_shape::queries, queries);
    add(&dense_shape::keys, keys);
    add(&dense_shape::dim, dims);
    add(&dense_shape::value_dim, value_dims);
    add(&dense_shape::group, groups);
    for (index_t const window : {1, 2, 7, 8, 64, 95, 96, 97, 191, 192, 193, 400}) {
        for (int i = 0; i < 3; ++i) {
            shapes.push_back({.kv_heads = random.integer<index_t>(1, 2),
                              .group = one_of(random, groups),
                              .queries = random.integer<index_t>(1, 600),
                              .keys = random.integer<index_t>(1, 600),
                              .dim = one_of(random, dims),
                              .value_dim = one_of(random, value_dims),
                              .causal = true,
                              .window = window});
        }
    }
    for (int i = 0; i < 20; ++i) {
        shapes.push_back({.kv_heads = 1,
                          .group = random.integer<index_t>(1, 4),
                          .queries = random.integer<index_t>(1, 400),
                          .keys = random.integer<index_t>(1, 300),
                          .dim = random.integer<index_t>(1, 256),
                          .value_dim = random.integer<index_t>(1, 256),
                          .causal = random.chance(0.5)});
    }
    return shapes;
}

inline std::string described(dense_shape const& s) {
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
    add("keys in the window", s.window);
    return text;
}

} // namespace sofattn::test
