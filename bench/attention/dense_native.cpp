// SPDX-License-Identifier: MIT
// Dense attention on the machine's registers, as a share of what its multiply-adds, or its dot
// products of bf16 or bytes, could do.
#include "support/data.hpp"
#include "support/peak.hpp"
#include "support/peak_int8.hpp"
#include <sofattn/attention/dense.hpp>
#include <sofattn/attention/problem.hpp>
#include <sofattn/core/bfloat16.hpp>
#include <sofattn/core/half.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/exec/parallel.hpp>

#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <string>
#include <vector>

namespace sofattn::bench {
namespace {

template <class T, class... Axes>
tensor<T, Axes...> stored(tensor<float, Axes...> const& from) {
    tensor<T, Axes...> to(from.cview().extents());
    auto const rows = from.cview();
    auto const into = to.view();
    for (index_t h = 0; h < rows.extents()[0]; ++h) {
        for (index_t k = 0; k < rows.extents()[1]; ++k) {
            for (index_t d = 0; d < rows.extents()[2]; ++d) {
                into(h, k, d) = T(rows(h, k, d));
            }
        }
    }
    return to;
}

/// Causal prefill of `heads` query heads that share one KV head.
template <class KeyValue, dense_products Products>
void prefill(benchmark::State& state, index_t heads, index_t tokens, index_t dim, index_t threads) {
    generator random;
    auto const q = stored<KeyValue>(
        normal_tensor<axis::head, axis::query, axis::dim>(random, {heads, tokens, dim}));
    auto const k = stored<KeyValue>(
        normal_tensor<axis::kv_head, axis::key, axis::dim>(random, {1, tokens, dim}));
    auto const v = stored<KeyValue>(
        normal_tensor<axis::kv_head, axis::key, axis::value_dim>(random, {1, tokens, dim}));
    problem<KeyValue> const given{q.cview(), k.cview(), v.cview(), /*causal=*/true};
    tensor<float, axis::head, axis::query, axis::value_dim> output({heads, tokens, dim});
    exec::openmp const run(threads);
    std::vector<std::byte> workspace(dense_workspace_bytes(given.shape(), threads));
    auto const start = std::chrono::steady_clock::now();
    for (auto _ : state) {
        dense_attention<Products>(given, output.view(), workspace, run);
        benchmark::DoNotOptimize(output.view().data());
        benchmark::ClobberMemory();
    }
    std::chrono::duration<double> const time = std::chrono::steady_clock::now() - start;
    // Two products of dim multiply-adds for half of all pairs.
    double const flops = 4.0 * static_cast<double>(heads * tokens * tokens * dim) / 2 *
                         static_cast<double>(state.iterations()) / time.count();
    state.counters["gflops"] = flops / 1e9;
    state.counters["of_peak"] =
        flops / (Products == dense_products::bf16 ? peak_bf16_flops(threads) : peak_flops(threads));
}

/// The same in bytes, beside bf16 products in the same loop: `over_bf16`, their median time over
/// that of bytes. The benchmark's own time is of both; `ms` is the median of bytes alone.
void prefill_int8(benchmark::State& state, index_t tokens, index_t dim, index_t threads) {
    generator random;
    auto const q = stored<bfloat16>(
        normal_tensor<axis::head, axis::query, axis::dim>(random, {1, tokens, dim}));
    auto const k = stored<bfloat16>(
        normal_tensor<axis::kv_head, axis::key, axis::dim>(random, {1, tokens, dim}));
    auto const v = stored<bfloat16>(
        normal_tensor<axis::kv_head, axis::key, axis::value_dim>(random, {1, tokens, dim}));
    problem<bfloat16> const given{q.cview(), k.cview(), v.cview(), /*causal=*/true};
    tensor<float, axis::head, axis::query, axis::value_dim> output({1, tokens, dim});
    exec::openmp const run(threads);
    std::vector<std::byte> workspace(dense_workspace_bytes(given.shape(), threads));
    std::vector<double> int8;
    std::vector<double> bf16;
    auto const timed = [&](auto attend) {
        auto const start = std::chrono::steady_clock::now();
        attend();
        benchmark::DoNotOptimize(output.view().data());
        benchmark::ClobberMemory();
        std::chrono::duration<double> const time = std::chrono::steady_clock::now() - start;
        return time.count();
    };
    for (auto _ : state) {
        int8.push_back(timed(
            [&] { dense_attention<dense_products::int8>(given, output.view(), workspace, run); }));
        bf16.push_back(timed(
            [&] { dense_attention<dense_products::bf16>(given, output.view(), workspace, run); }));
    }
    auto const median = [](std::vector<double>& times) {
        std::sort(times.begin(), times.end());
        return times[times.size() / 2];
    };
    double const operations = 4.0 * static_cast<double>(tokens * tokens * dim) / 2 / median(int8);
    state.counters["ms"] = median(int8) * 1e3;
    state.counters["gops"] = operations / 1e9;
    state.counters["of_peak"] = operations / peak_int8_ops(threads);
    state.counters["over_bf16"] = median(bf16) / median(int8);
}

template <class Prefill>
void add_shapes(std::string const& name, Prefill prefill) {
    for (index_t const dim : {64, 128}) {
        for (index_t const tokens : {512, 2048, 8192}) {
            for (index_t const threads : {1, 2}) {
                add("attention/dense/simd/type:" + name + "/tokens:" + std::to_string(tokens) +
                        "/dim:" + std::to_string(dim) + "/threads:" + std::to_string(threads),
                    [=](benchmark::State& state) { prefill(state, tokens, dim, threads); })
                    ->Unit(benchmark::kMillisecond)
                    ->UseRealTime();
            }
        }
    }
}

template <class KeyValue, dense_products Products = dense_products::f32>
void add_type(std::string const& name) {
    add_shapes(name, [](benchmark::State& state, index_t tokens, index_t dim, index_t threads) {
        prefill<KeyValue, Products>(state, 1, tokens, dim, threads);
    });
}

[[maybe_unused]] bool const added = [] {
    add_type<float>("f32");
    add_type<half>("f16");
    add_type<bfloat16>("bf16");
    add_type<half, dense_products::bf16>("f16_in_bf16");
    add_type<bfloat16, dense_products::bf16>("bf16_in_bf16");
    add_shapes("bf16_in_int8", prefill_int8);
    return true;
}();

} // namespace
} // namespace sofattn::bench
