// SPDX-License-Identifier: MIT
// A random layer, and what attention over a given selection of it must be.
#pragma once

#include "attention/random_layer.hpp"
#include "support/generators.hpp"
#include <sofattn/attention/attention.hpp>
#include <sofattn/core/tensor.hpp>
#include <sofattn/ref/dense_attention.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

namespace sofattn::test {

/// Options that tests vary; tiles are short, so that small layers have several.
[[nodiscard]] inline attention_options
with(sads::budget budget, index_t tile = 16,
     selection_scope scope = selection_scope::per_query_head) {
    attention_options options;
    options.budget = budget;
    options.tile_keys = tile;
    options.scope = scope;
    return options;
}

/// Every query looks for some key.
struct layer_case : random_layer<float> {
    layer_case(generator& random, layer_shape s, bool causal_mask)
        : random_layer(random, s, causal_mask), shape(s) {
        plant_matches(random, 1.0);
    }

    layer_shape shape;
};

/// What a run gave.
struct run_record {
    attention_result result;
    tensor<float, axis::head, axis::query, axis::value_dim> output;
    std::vector<std::vector<key_id>> kept; ///< [head * queries + query], in order of consumption

    friend bool same(run_record const& a, run_record const& b) {
        bool equal = a.kept == b.kept;
        for_each_index(a.output.view().extents(), [&](auto const& i) {
            equal = equal && at(a.output.view(), i) == at(b.output.view(), i);
        });
        return equal;
    }
};

template <class Attention, class Problem>
run_record run(Attention const& attend, typename Attention::execution& x, Problem const& given) {
    problem_shape const s = given.shape();
    run_record record;
    record.output =
        tensor<float, axis::head, axis::query, axis::value_dim>({s.heads, s.queries, s.value_dim});
    record.kept.resize(static_cast<std::size_t>(s.heads * s.queries));
    record.result = attend(x, given, record.output.view(), [&](index_t h, index_t r, auto kept) {
        for (auto const& entry : kept) {
            record.kept[static_cast<std::size_t>(h * s.queries + r)].push_back(entry.key);
        }
    });
    return record;
}

template <class Attention, class Problem>
run_record run(Attention const& attend, Problem const& given) {
    typename Attention::execution x;
    return run(attend, x, given);
}

/// Largest difference of outputs, relative to the row's largest |output|, from a softmax in double
/// over exactly the kept keys.
inline double deviation(layer_case const& layer, run_record const& record) {
    problem_shape const s = layer.given().shape();
    double worst = 0;
    for (index_t h = 0; h < s.heads; ++h) {
        auto const keys = layer.k.cview().slice<axis::kv_head>(h / s.group());
        auto const values = layer.v.cview().slice<axis::kv_head>(h / s.group());
        for (index_t r = 0; r < s.queries; ++r) {
            auto const& kept = record.kept[static_cast<std::size_t>(h * s.queries + r)];
            std::vector<double> all(static_cast<std::size_t>(s.keys));
            ref::row_logits(layer.q.cview().slice<axis::head>(h).slice<axis::query>(r), keys,
                            s.scale, all);
            std::vector<double> weights;
            for (key_id key : kept) {
                weights.push_back(all[static_cast<std::size_t>(key)]);
            }
            ref::softmax(weights);
            double largest = 0;
            double off = 0;
            for (index_t d = 0; d < s.value_dim; ++d) {
                double sum = 0;
                for (std::size_t i = 0; i < kept.size(); ++i) {
                    sum += weights[i] * static_cast<double>(values(kept[i], d));
                }
                largest = std::max(largest, std::abs(sum));
                off = std::max(off, std::abs(sum - static_cast<double>(record.output(h, r, d))));
            }
            worst = std::max(worst, largest > 0 ? off / largest : off);
        }
    }
    return worst;
}

} // namespace sofattn::test
