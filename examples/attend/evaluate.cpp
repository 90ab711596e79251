// SPDX-License-Identifier: MIT
#include "attend/evaluate.hpp"

#include <sofattn/attention/problem.hpp>
#include <sofattn/core/tensor.hpp>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <exception>

namespace sofattn::attend {

namespace {

/// One head group: the queries that read one KV head.
struct group_views {
    problem<float> given;
    problem_shape shape;
};

group_views group_of(layer_views const& layer, index_t kv_head) {
    index_t const kv_heads = layer.keys.extent<axis::kv_head>();
    index_t const size = layer.queries.extent<axis::head>() / kv_heads;
    problem<float> given;
    given.queries = layer.queries.range<axis::head>(kv_head * size, size);
    given.keys = layer.keys.range<axis::kv_head>(kv_head, 1);
    given.values = layer.values.range<axis::kv_head>(kv_head, 1);
    given.causal = layer.causal;
    given.scale = layer.scale;
    return {given, given.shape()};
}

/// A policy's output on one group, kept until the rows are judged.
struct group_run {
    run_output result;
    tensor<float, axis::head, axis::query, axis::value_dim> output;
};

tensor<float, axis::head, axis::query, axis::value_dim> make_output(problem_shape const& shape) {
    return tensor<float, axis::head, axis::query, axis::value_dim>(
        {shape.heads, shape.queries, shape.value_dim});
}

group_run run_group(group_views const& group, index_t first_head, named_policy const& policy,
                    policy_outcome& outcome) {
    group_run run;
    run.output = make_output(group.shape);
    attention_options options = policy.options;
    if (!options.head_budgets.empty()) { // of the layer's heads, these
        auto const first = options.head_budgets.begin() + first_head;
        options.head_budgets = {first, first + group.shape.heads};
    }
    auto const start = std::chrono::steady_clock::now();
    run.result = policy.run(group.given, options, run.output.view());
    outcome.time_seconds +=
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    outcome.counts += run.result.counts;
    outcome.key_loads += run.result.key_loads;
    return run;
}

/// Judges what the runs kept and made against `truth`: [run][head].
std::vector<std::vector<ref::quality>> judge(group_views const& truth,
                                             std::span<group_run const> runs, index_t first_row) {
    std::vector<std::vector<ref::quality>> sums(
        runs.size(), std::vector<ref::quality>(static_cast<std::size_t>(truth.shape.heads)));
    auto const keys = truth.given.keys.slice<axis::kv_head>(0);
    auto const values = truth.given.values.slice<axis::kv_head>(0);
    for (index_t h = 0; h < truth.shape.heads; ++h) {
        auto const queries = truth.given.queries.slice<axis::head>(h);
        for (index_t q = first_row; q < truth.shape.queries; ++q) {
            index_t const visible = truth.shape.visible(q);
            if (visible == 0) {
                continue;
            }
            ref::row_truth const row(queries.slice<axis::query>(q), keys, values, visible,
                                     truth.shape.scale);
            for (std::size_t r = 0; r < runs.size(); ++r) {
                auto const& kept =
                    runs[r].result.kept_keys[static_cast<std::size_t>(h * truth.shape.queries + q)];
                sums[r][static_cast<std::size_t>(h)] +=
                    row.judge(kept, std::span(&runs[r].output(h, q, 0),
                                              static_cast<std::size_t>(truth.shape.value_dim)));
            }
        }
    }
    return sums;
}

/// Runs work(kv_head) for all head groups, on as many threads as there are, and passes on the first
/// exception.
template <class Work>
void for_each_group(index_t kv_heads, Work work) {
    std::exception_ptr failure;
#ifdef _OPENMP
#pragma omp parallel for schedule(dynamic)
#endif
    for (index_t kv = 0; kv < kv_heads; ++kv) {
        try {
            work(kv);
        } catch (...) {
#ifdef _OPENMP
#pragma omp critical
#endif
            failure = std::current_exception();
        }
    }
    if (failure) {
        std::rethrow_exception(failure);
    }
}

} // namespace

void for_each_head_group(layer_views const& given,
                         std::function<void(index_t kv_head, problem<float> const&)> const& work) {
    for_each_group(given.keys.extent<axis::kv_head>(),
                   [&](index_t kv) { work(kv, group_of(given, kv).given); });
}

mean_quality mean_quality::of(std::span<ref::quality const> heads) noexcept {
    mean_quality mean;
    ref::quality all;
    for (auto const& head : heads) {
        all += head;
        mean.output_error_relative += head.error() / static_cast<double>(heads.size());
    }
    mean.kept_share = all.kept_share();
    mean.recall = all.recall();
    mean.mass = all.mass();
    return mean;
}

std::vector<policy_outcome> evaluate(layer_views const& given,
                                     std::span<named_policy const> policies, std::size_t judged,
                                     index_t first_row, on_progress const& progress) {
    index_t const kv_heads = given.keys.extent<axis::kv_head>();
    // Per group first, then added in order: sums do not depend on which thread was faster.
    std::vector<std::vector<policy_outcome>> by_group(static_cast<std::size_t>(kv_heads),
                                                      std::vector<policy_outcome>(policies.size()));
    std::atomic<std::size_t> done = 0;
    auto const steps = static_cast<double>(kv_heads) * static_cast<double>(policies.size() + 1);
    auto const step = [&] { progress(static_cast<double>(++done) / steps); };

    for_each_group(kv_heads, [&](index_t kv) {
        group_views const group = group_of(given, kv);
        auto& outcomes = by_group[static_cast<std::size_t>(kv)];
        std::vector<group_run> runs;
        for (std::size_t p = 0; p < policies.size(); ++p) {
            group_run run = run_group(group, kv * group.shape.heads, policies[p], outcomes[p]);
            if (p < judged) {
                runs.push_back(std::move(run));
            }
            step();
        }
        auto const sums = judge(group, runs, first_row);
        for (std::size_t p = 0; p < sums.size(); ++p) {
            outcomes[p].heads = sums[p];
        }
        step();
    });

    std::vector<policy_outcome> total(policies.size());
    for (auto const& outcomes : by_group) {
        for (std::size_t p = 0; p < policies.size(); ++p) {
            total[p].heads.insert(total[p].heads.end(), outcomes[p].heads.begin(),
                                  outcomes[p].heads.end());
            total[p].counts += outcomes[p].counts;
            total[p].key_loads += outcomes[p].key_loads;
            total[p].time_seconds += outcomes[p].time_seconds;
        }
    }
    return total;
}

mean_quality quality_of(layer_views const& truth, group_runner const& run, index_t first_row,
                        on_progress const& progress) {
    index_t const kv_heads = truth.keys.extent<axis::kv_head>();
    std::vector<std::vector<ref::quality>> by_group(static_cast<std::size_t>(kv_heads));
    std::atomic<index_t> done = 0;
    for_each_group(kv_heads, [&](index_t kv) {
        group_views const group = group_of(truth, kv);
        std::vector<group_run> runs(1);
        runs.front().output = make_output(group.shape);
        runs.front().result = run(kv, group.given, runs.front().output.view());
        by_group[static_cast<std::size_t>(kv)] = judge(group, runs, first_row).front();
        progress(static_cast<double>(++done) / static_cast<double>(kv_heads));
    });
    std::vector<ref::quality> heads;
    for (auto const& group : by_group) {
        heads.insert(heads.end(), group.begin(), group.end());
    }
    return mean_quality::of(heads);
}

} // namespace sofattn::attend
