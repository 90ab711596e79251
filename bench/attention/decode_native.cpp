// SPDX-License-Identifier: MIT
// Attention of one query per head to many keys, as a share of what memory could deliver.
#include "support/data.hpp"
#include "support/peak.hpp"
#include <sofattn/attention/decode.hpp>
#include <sofattn/attention/problem.hpp>
#include <sofattn/core/half.hpp>
#include <sofattn/core/tensor.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/exec/parallel.hpp>

#include <benchmark/benchmark.h>

#include <array>
#include <chrono>
#include <cstddef>
#include <string>
#include <vector>

namespace sofattn::bench {
namespace {

using seconds = std::chrono::duration<double>;

constexpr index_t kv_heads = 8;
constexpr index_t heads = 32;
constexpr index_t dim = 128;

/// Uniform numbers in [-1, 1), quickly: there are many.
template <class... Axes>
tensor<half, Axes...> random_halves(generator& random,
                                    std::array<index_t, sizeof...(Axes)> extents) {
    tensor<half, Axes...> result(extents);
    half* const data = result.view().data(); // rows are whole cache lines: no padding
    for (index_t i = 0; i < result.view().size(); ++i) {
        data[i] = half(static_cast<float>(2.0 * random.uniform() - 1.0));
    }
    return result;
}

struct layer {
    explicit layer(index_t keys)
        : q(random_halves<axis::head, axis::query, axis::dim>(random, {heads, 1, dim})),
          k(random_halves<axis::kv_head, axis::key, axis::dim>(random, {kv_heads, keys, dim})),
          v(random_halves<axis::kv_head, axis::key, axis::value_dim>(random,
                                                                     {kv_heads, keys, dim})) {}

    [[nodiscard]] problem<half> given() const { return {q.view(), k.view(), v.view(), true}; }

    generator random;
    tensor<half, axis::head, axis::query, axis::dim> q;
    tensor<half, axis::kv_head, axis::key, axis::dim> k;
    tensor<half, axis::kv_head, axis::key, axis::value_dim> v;
};

void dense(benchmark::State& state, index_t keys, index_t threads) {
    layer const data(keys);
    problem<half> const given = data.given();
    tensor<float, axis::head, axis::query, axis::value_dim> output({heads, 1, dim});
    exec::openmp const run(threads);
    std::vector<std::byte> workspace(decode_workspace_bytes(given.shape(), threads));
    auto const start = std::chrono::steady_clock::now();
    for (auto _ : state) {
        dense_decode(given, output.view(), workspace, run);
        benchmark::DoNotOptimize(output.view().data());
        benchmark::ClobberMemory();
    }
    seconds const time = std::chrono::steady_clock::now() - start;
    double const bytes = 2.0 * sizeof(half) * static_cast<double>(kv_heads * keys * dim) *
                         static_cast<double>(state.iterations()) / time.count();
    state.counters["GB/s"] = bytes / 1e9;
    state.counters["of_peak"] = bytes / read_bandwidth(threads);
}

[[maybe_unused]] bool const added = [] {
    for (index_t const keys : {32768, 131072}) {
        for (index_t const threads : {1, 2}) {
            add("attention/decode/simd/dense/keys:" + std::to_string(keys) +
                    "/threads:" + std::to_string(threads),
                [=](benchmark::State& state) { dense(state, keys, threads); })
                ->Unit(benchmark::kMillisecond)
                ->UseRealTime();
        }
    }
    return true;
}();

} // namespace
} // namespace sofattn::bench
