// SPDX-License-Identifier: MIT
// A pipeline on vector registers beside its reference: the same scores and keys, and outputs within
// what float rounds.
#pragma once

#include "attention/layer_case.hpp"
#include "support/generators.hpp"
#include <sofattn/attention/attention.hpp>
#include <sofattn/core/output_array.hpp>
#include <sofattn/exec/executor.hpp>
#include <sofattn/exec/parallel.hpp>
#include <sofattn/sads/row_selectors.hpp>
#include <sofattn/sufa/rivals.hpp>

#include <boost/hana/tuple.hpp>
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace sofattn::test {

/// What a run gave, scores included.
template <class Score>
struct scored_record {
    attention_result result;
    tensor<float, axis::head, axis::query, axis::value_dim> output;
    std::vector<std::vector<ranked<Score>>> kept; ///< [head * queries + query]
};

/// Rows of kept keys are written by whoever has the row, so threads need no lock. Outputs go to `to`, if given.
template <class Attention, class Problem, class Run = exec::serial>
scored_record<typename Attention::score> scored_run(Attention const& attend, Problem const& given,
                                                    Run const& threads = {},
                                                    output_array const* to = nullptr) {
    problem_shape const s = given.shape();
    scored_record<typename Attention::score> record{
        {},
        tensor<float, axis::head, axis::query, axis::value_dim>({s.heads, s.queries, s.value_dim}),
        {}};
    record.kept.resize(static_cast<std::size_t>(s.heads * s.queries));
    typename Attention::execution x;
    record.result =
        attend(x, threads, given, to != nullptr ? *to : output_array(record.output.view()),
               [&](index_t h, index_t r, auto kept) {
                   auto& row = record.kept[static_cast<std::size_t>(h * s.queries + r)];
                   row.insert(row.end(), kept.begin(), kept.end());
               });
    return record;
}

/// Relative Frobenius norm of the difference of two outputs.
template <class Tensor>
[[nodiscard]] double relative_distance(Tensor const& found, Tensor const& wanted) {
    double off = 0;
    double size = 0;
    for_each_index(wanted.view().extents(), [&](auto const& i) {
        double const right = static_cast<double>(at(wanted.view(), i));
        double const difference = static_cast<double>(at(found.view(), i)) - right;
        off += difference * difference;
        size += right * right;
    });
    return size > 0 ? std::sqrt(off / size) : std::sqrt(off);
}

/// Only the execution differs.
template <class P, class S, class A, class Tail = sufa::no_tail, class Schedule = rass::reuse_aware>
struct on_both {
    template <class X>
    using pipeline = attention<P, S, A, X, Schedule, dlzs::coded_weights, Tail>;

    template <class Problem>
    static void check(Problem const& given, attention_options const& options,
                      double tolerance = 2e-5) {
        std::string const name =
            std::string(P::name) + "/" + S::name + "/" + A::name + "/" + Tail::name;
        CAPTURE(name);
        auto const wanted = scored_run(pipeline<exec::reference>(options), given);
        auto const found = scored_run(pipeline<exec::simd>(options), given);
        CHECK(found.kept == wanted.kept);
        CHECK(found.result.visible_pairs == wanted.result.visible_pairs);
        CHECK(found.result.kept_pairs == wanted.result.kept_pairs);
        CHECK(found.result.value_loads == wanted.result.value_loads);
        CHECK(found.result.generated == wanted.result.generated);
        // Which reused logits are near enough to be computed is a border that float moves.
        std::uint64_t const apart = sufa::reuses_scores<A> ? 1 + wanted.result.key_loads / 100 : 0;
        CHECK(found.result.key_loads <= wanted.result.key_loads + apart);
        CHECK(found.result.key_loads + apart >= wanted.result.key_loads);
        CHECK(relative_distance(found.output, wanted.output) <= tolerance);
    }
};

// --- cases of any kind ---------------------------------------------------------------------------

inline layer_shape some_shape(generator& random) {
    layer_shape s;
    s.kv_heads = random.integer<index_t>(1, 2);
    s.heads = s.kv_heads * random.integer<index_t>(1, 3);
    s.queries =
        random.chance(0.2) ? random.integer<index_t>(120, 150) : random.integer<index_t>(1, 40);
    s.keys = random.chance(0.2) ? random.integer<index_t>(1, 8) : random.integer<index_t>(8, 260);
    s.dim = random.chance(0.3) ? 64 : random.integer<index_t>(1, 70);
    s.value_dim = random.chance(0.3) ? 64 : random.integer<index_t>(1, 70);
    return s;
}

/// Logits of different spreads; outputs that are not near 0 by chance.
inline layer_case some_layer(generator& random) {
    layer_case layer(random, some_shape(random), random.chance(0.6));
    layer.make_values_positive();
    auto const sharp = static_cast<float>(random.uniform(0.3, 3.0));
    for_each_index(layer.q.view().extents(),
                   [&](auto const& i) { at(layer.q.view(), i) *= sharp; });
    return layer;
}

/// A budget that means something to the selector.
template <class S>
attention_options some_options(generator& random) {
    attention_options options;
    auto& b = options.budget;
    if (weighs_scores<S>) {
        b = random.chance(0.5) ? sads::budget::of_mass(random.uniform(0.3, 1.0))
                               : sads::budget::of_output_error(std::exp2(random.uniform(-9, -1)));
        if (random.chance(0.2)) {
            b.at_most = random.integer<index_t>(4, 60);
        }
    } else {
        b = sads::budget::of_ratio(random.uniform(0.02, 0.6));
    }
    b.radius = std::is_same_v<S, sads::threshold> || random.chance(0.3)
                   ? random.uniform(0.5, 8.0)
                   : std::numeric_limits<double>::infinity();
    b.at_least = random.integer<index_t>(0, 4);
    if (random.chance(0.5)) {
        b.sinks = random.integer<index_t>(0, 3);
        b.window = random.integer<index_t>(0, 9);
    }
    options.tile_keys = random.chance(0.3) ? 128 : random.integer<index_t>(1, 90);
    options.scope =
        random.chance(0.4) ? selection_scope::per_group : selection_scope::per_query_head;
    return options;
}

template <class P, class S, class A, class Tail = sufa::no_tail>
void check_some(generator& random, int rounds) {
    for (int round = 0; round < rounds; ++round) {
        layer_case const layer = some_layer(random);
        auto const options = some_options<S>(random);
        CAPTURE(layer.shape.heads);
        CAPTURE(layer.shape.kv_heads);
        CAPTURE(layer.shape.queries);
        CAPTURE(layer.shape.keys);
        CAPTURE(layer.shape.dim);
        CAPTURE(layer.shape.value_dim);
        CAPTURE(layer.causal);
        CAPTURE(options.tile_keys);
        on_both<P, S, A, Tail>::check(layer.given(), options);
    }
}

/// All attenders.
inline constexpr auto attenders =
    boost::hana::tuple_t<sufa::sorted_updating<>, sufa::sorted_updating<sufa::ascending>,
                         sufa::flash_attention_2, sufa::two_pass,
                         sufa::sorted_updating<sufa::descending, sufa::reused>,
                         sufa::sorted_updating<sufa::ascending, sufa::reused>>;

} // namespace sofattn::test
