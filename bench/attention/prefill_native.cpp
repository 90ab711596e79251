// SPDX-License-Identifier: MIT
// Sparse prefill against dense attention in f32 and bf16, run in turn in one process.
#include "support/data.hpp"
#include <sofattn/attention/dense.hpp>
#include <sofattn/attention/prefill.hpp>
#include <sofattn/attention/problem.hpp>
#include <sofattn/core/bfloat16.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/dlzs/policy.hpp>
#include <sofattn/exec/parallel.hpp>
#include <sofattn/sufa/logit_source.hpp>

#include <benchmark/benchmark.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace sofattn::bench {
namespace {

/// Made-up causal head: normal keys and values, queries with logits of spread 2, and a first key
/// that all of them attend to with a logit of about 9, as trained models have.
struct layer {
    layer(index_t tokens, index_t dim)
        : q(normal_tensor<axis::head, axis::query, axis::dim>(random, {1, tokens, dim})),
          k(normal_tensor<axis::kv_head, axis::key, axis::dim>(random, {1, tokens, dim})),
          v(normal_tensor<axis::kv_head, axis::key, axis::value_dim>(random, {1, tokens, dim})) {
        float const along = 9.0f / std::sqrt(static_cast<float>(dim));
        for (index_t i = 0; i < tokens; ++i) {
            for (index_t d = 0; d < dim; ++d) {
                q(0, i, d) = 2.0f * q(0, i, d) + along * k(0, 0, d);
            }
        }
    }
    generator random;
    tensor<float, axis::head, axis::query, axis::dim> q;
    tensor<float, axis::kv_head, axis::key, axis::dim> k;
    tensor<float, axis::kv_head, axis::key, axis::value_dim> v;
};

double seconds_of(auto&& work) {
    auto const start = std::chrono::steady_clock::now();
    work();
    std::chrono::duration<double> const time = std::chrono::steady_clock::now() - start;
    return time.count();
}

double median(std::vector<double> values) {
    auto const middle = values.begin() + std::ssize(values) / 2;
    std::nth_element(values.begin(), middle, values.end());
    return *middle;
}

template <sufa::logit_source Source>
void prefill(benchmark::State& state, index_t tokens, index_t dim, double error, index_t threads) {
    layer const data(tokens, dim);
    problem<float> const given{data.q.cview(), data.k.cview(), data.v.cview(), /*causal=*/true};
    problem_shape const shape = given.shape();
    attention_options options;
    using sparse_type = sparse_prefill<dlzs::rotated_int8, Source, true>;
    options.tile_keys = sparse_type::tile_keys;
    options.budget = sads::budget::of_output_error(error);
    options.budget.at_least = 32;
    options.budget.sinks = 1;
    options.budget.window = 16;
    sparse_type const sparse(options);
    sparse.check(shape);
    exec::openmp const run(threads);
    tensor<float, axis::head, axis::query, axis::value_dim> output({1, tokens, dim});
    std::vector<std::byte> workspace(sparse_type::workspace_bytes(shape, threads));
    std::vector<std::byte> dense_workspace(dense_workspace_bytes(shape, threads));

    std::atomic<std::int64_t> kept{0};
    auto indexes = sparse_type::index(given, run);
    sparse(given, indexes, output.view(), workspace, run,
           [&](index_t, index_t, index_t, std::span<std::int32_t const> keys) {
               kept += std::ssize(keys);
           });
    std::vector<double> indexing;
    std::vector<double> attending;
    std::vector<double> f32;
    std::vector<double> bf16;
    for (auto _ : state) {
        indexing.push_back(seconds_of([&] { indexes = sparse_type::index(given, run); }));
        attending.push_back(
            seconds_of([&] { sparse(given, indexes, output.view(), workspace, run); }));
        state.SetIterationTime(attending.back());
        f32.push_back(
            seconds_of([&] { dense_attention(given, output.view(), dense_workspace, run); }));
        bf16.push_back(seconds_of([&] {
            dense_attention<dense_products::bf16>(given, output.view(), dense_workspace, run);
        }));
        benchmark::DoNotOptimize(output.view().data());
        benchmark::ClobberMemory();
    }
    auto const pairs = static_cast<double>(tokens * (tokens + 1) / 2);
    state.counters["kept"] = static_cast<double>(kept.load()) / pairs;
    state.counters["index_ms"] = 1e3 * median(indexing);
    state.counters["over_f32"] = median(f32) / median(attending);
    state.counters["over_bf16"] = median(bf16) / median(attending);
    state.counters["ns_per_pair"] = 1e9 * median(attending) * static_cast<double>(threads) / pairs;
}

template <sufa::logit_source Source>
void add_source(std::string const& name) {
    for (index_t const tokens : {1024, 2048, 8192}) {
        for (int const thousandths : {3, 5, 10, 20}) {
            for (index_t const threads : {1, 2}) {
                add("attention/prefill/simd/logits:" + name + "/tokens:" + std::to_string(tokens) +
                        "/dim:128/error_thousandths:" + std::to_string(thousandths) +
                        "/threads:" + std::to_string(threads),
                    [=](benchmark::State& state) {
                        prefill<Source>(state, tokens, 128, thousandths / 1000.0, threads);
                    })
                    ->Unit(benchmark::kMillisecond)
                    ->UseManualTime();
            }
        }
    }
}

[[maybe_unused]] bool const added = [] {
    add_source<sufa::reused>("reused");
    add_source<sufa::recomputed>("computed");
    return true;
}();

} // namespace
} // namespace sofattn::bench
