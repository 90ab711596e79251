// SPDX-License-Identifier: MIT
// A pipeline on vector registers beside its reference: the same scores and keys, and outputs within
// what float rounds.
#pragma once

#include "attention/layer_case.hpp"
#include "support/generators.hpp"
#include <sofattn/attention/attention.hpp>
#include <sofattn/exec/executor.hpp>
#include <sofattn/exec/parallel.hpp>

#include <doctest/doctest.h>

#include <cmath>
#include <cstddef>
#include <string>
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

/// Rows of kept keys are written by whoever has the row, so threads need no lock.
template <class Attention, class Problem, class Run = exec::serial>
scored_record<typename Attention::score> scored_run(Attention const& attend, Problem const& given,
                                                    Run const& threads = {}) {
    problem_shape const s = given.shape();
    scored_record<typename Attention::score> record{
        {},
        tensor<float, axis::head, axis::query, axis::value_dim>({s.heads, s.queries, s.value_dim}),
        {}};
    record.kept.resize(static_cast<std::size_t>(s.heads * s.queries));
    typename Attention::execution x;
    record.result =
        attend(x, threads, given, record.output.view(), [&](index_t h, index_t r, auto kept) {
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
        if (!sufa::reuses_scores<A>) {
            CHECK(found.result.key_loads == wanted.result.key_loads);
        }
        CHECK(relative_distance(found.output, wanted.output) <= tolerance);
    }
};

} // namespace sofattn::test
