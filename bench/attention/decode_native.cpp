// SPDX-License-Identifier: MIT
// Attention of one query per head to many keys, as a share of what memory could deliver.
#include "support/data.hpp"
#include "support/peak.hpp"
#include "support/timing.hpp"
#include <sofattn/attention/decode.hpp>
#include <sofattn/attention/options.hpp>
#include <sofattn/attention/problem.hpp>
#include <sofattn/attention/sparse_decode.hpp>
#include <sofattn/core/element.hpp>
#include <sofattn/core/half.hpp>
#include <sofattn/core/quantise.hpp>
#include <sofattn/core/scaled_view.hpp>
#include <sofattn/core/tensor.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/dlzs/packed_index.hpp>
#include <sofattn/dlzs/page_ranges.hpp>
#include <sofattn/dlzs/policy.hpp>
#include <sofattn/exec/parallel.hpp>

#include <benchmark/benchmark.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
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

/// Rows k|v: K and V of a key in one place.
struct layer {
    explicit layer(index_t tokens)
        : keys(tokens),
          q(random_halves<axis::head, axis::query, axis::dim>(random, {heads, 1, dim})),
          kv(random_halves<axis::kv_head, axis::key, axis::channel>(random,
                                                                    {kv_heads, keys, 2 * dim})) {}

    [[nodiscard]] problem<half> given() const {
        half const* const data = kv.view().data();
        std::array<index_t, 3> const extents{kv_heads, keys, dim};
        std::array<index_t, 3> const strides{keys * 2 * dim, 2 * dim, 1};
        return {q.view(), {data, extents, strides}, {data + dim, extents, strides}, true};
    }

    /// One at a time: they are large.
    static layer const& of(index_t tokens) {
        static std::unique_ptr<layer> last;
        if (!last || last->keys != tokens) {
            last.reset();
            last = std::make_unique<layer>(tokens);
        }
        return *last;
    }

    index_t keys;
    generator random;
    tensor<half, axis::head, axis::query, axis::dim> q;
    tensor<half, axis::kv_head, axis::key, axis::channel> kv;
};

void dense(benchmark::State& state, index_t keys, index_t threads) {
    problem<half> const given = layer::of(keys).given();
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

/// The same K and V as 8-bit codes k|v, and the scales of a token side by side: half the bytes.
struct coded_layer {
    explicit coded_layer(layer const& from)
        : q(from.q), keys(from.keys), codes({kv_heads, keys, 2 * dim}),
          scales({kv_heads, 2 * keys}) {
        std::array<float, static_cast<std::size_t>(dim)> row;
        for (index_t h = 0; h < kv_heads; ++h) {
            for (index_t part = 0; part < 2 * keys; ++part) { // k of a token, v, k of the next
                half const* const of = &from.kv(h, part / 2, part % 2 * dim);
                std::transform(of, of + dim, row.begin(), to_float<half>);
                auto const step = quantiser_step::covering(largest_magnitude(row), 127);
                scales(h, part) = step.step;
                for (index_t d = 0; d < dim; ++d) {
                    codes(h, part / 2, part % 2 * dim + d) =
                        static_cast<std::int8_t>(step.code(row[static_cast<std::size_t>(d)], 127));
                }
            }
        }
    }
    [[nodiscard]] problem<half, std::int8_t> given() const {
        std::array<index_t, 3> const extents{kv_heads, keys, dim};
        std::array<index_t, 3> const strides{keys * 2 * dim, 2 * dim, 1};
        auto const of = [&](index_t which) -> view<float const, axis::kv_head, axis::key> {
            return {scales.cview().data() + which,
                    {kv_heads, keys},
                    {scales.cview().stride<axis::kv_head>(), 2}};
        };
        std::int8_t const* const data = codes.cview().data();
        return {q.view(),
                {{data, extents, strides}, of(0)},
                {{data + dim, extents, strides}, of(1)},
                true};
    }

    tensor<half, axis::head, axis::query, axis::dim> const& q;
    index_t keys;
    tensor<std::int8_t, axis::kv_head, axis::key, axis::channel> codes;
    tensor<float, axis::kv_head, axis::key> scales;
};

/// A dense step over f16 and one over int8 in turn.
void coded(benchmark::State& state, index_t keys, index_t threads) {
    problem<half> const given = layer::of(keys).given();
    coded_layer const of_codes(layer::of(keys));
    problem<half, std::int8_t> const coded_given = of_codes.given();
    tensor<float, axis::head, axis::query, axis::value_dim> output({heads, 1, dim});
    exec::openmp const run(threads);
    std::vector<std::byte> workspace(decode_workspace_bytes(given.shape(), threads));
    auto const timed = [&](auto const& step) {
        return seconds_of([&] {
            dense_decode(step, output.view(), workspace, run);
            benchmark::DoNotOptimize(output.view().data());
            benchmark::ClobberMemory();
        });
    };
    std::vector<double> f16_times;
    std::vector<double> int8_times;
    std::vector<double> ratios;
    for (auto _ : state) {
        f16_times.push_back(timed(given));
        int8_times.push_back(timed(coded_given));
        ratios.push_back(f16_times.back() / int8_times.back());
        state.SetIterationTime(int8_times.back());
    }
    double const bytes = static_cast<double>(kv_heads * keys * 2 * (dim + 4));
    state.counters["f16_ms"] = 1e3 * median(f16_times);
    state.counters["int8_ms"] = 1e3 * median(int8_times);
    state.counters["speedup"] = median(ratios);
    state.counters["GB/s"] = bytes / median(int8_times) / 1e9;
    state.counters["of_peak"] = bytes / median(int8_times) / read_bandwidth(threads);
}

template <class Index>
struct policy_of;
template <template <class> class Index, class Policy>
struct policy_of<Index<Policy>> {
    using type = Policy;
};

/// A dense step and a sparse one in turn, so that neither finds its keys in a cache.
template <class Index>
void sparse(benchmark::State& state, index_t keys, index_t threads, selection_scope scope) {
    problem<half> const given = layer::of(keys).given();
    std::vector<Index> indices;
    for (index_t h = 0; h < kv_heads; ++h) {
        auto const all = given.keys.slice<axis::kv_head>(h);
        indices.emplace_back(dlzs::key_calibration<typename policy_of<Index>::type>::of(
            all.range<axis::key>(0, 4096), 1.2f));
        indices.back().append(all);
    }
    sparse_decode_options const options{2048, 4, 64, scope};
    tensor<float, axis::head, axis::query, axis::value_dim> output({heads, 1, dim});
    exec::openmp const run(threads);
    std::vector<std::byte> workspace(
        std::max(decode_workspace_bytes(given.shape(), threads),
                 sparse_decode_workspace_bytes(given, options, threads)));
    auto const timed = [&](auto step) {
        return seconds_of([&] {
            step();
            benchmark::DoNotOptimize(output.view().data());
            benchmark::ClobberMemory();
        });
    };
    std::vector<double> dense_times;
    std::vector<double> sparse_times;
    for (auto _ : state) {
        dense_times.push_back(timed([&] { dense_decode(given, output.view(), workspace, run); }));
        sparse_times.push_back(timed([&] {
            sparse_decode(given, std::span<Index const>(indices), options, output.view(), workspace,
                          run);
        }));
        state.SetIterationTime(sparse_times.back());
    }
    state.counters["dense_ms"] = 1e3 * median(dense_times);
    state.counters["sparse_ms"] = 1e3 * median(sparse_times);
    state.counters["speedup"] = median(dense_times) / median(sparse_times);
}

template <class Index>
void add_sparse(char const* pages, index_t keys, index_t threads) {
    using policy = typename policy_of<Index>::type;
    for (auto const scope : {selection_scope::per_group, selection_scope::per_query_head}) {
        add("attention/decode/simd/sparse/index:" + std::string(policy::name) + "/pages:" + pages +
                "/scope:" + (scope == selection_scope::per_group ? "group" : "head") +
                "/keys:" + std::to_string(keys) + "/threads:" + std::to_string(threads),
            [=](benchmark::State& state) { sparse<Index>(state, keys, threads, scope); })
            ->Unit(benchmark::kMillisecond)
            ->Iterations(15)
            ->UseManualTime();
    }
}

[[maybe_unused]] bool const added = [] {
    for (index_t const keys : {32768, 131072}) {
        for (index_t const threads : {1, 2}) {
            add("attention/decode/simd/dense/keys:" + std::to_string(keys) +
                    "/threads:" + std::to_string(threads),
                [=](benchmark::State& state) { dense(state, keys, threads); })
                ->Unit(benchmark::kMillisecond)
                ->UseRealTime();
            add("attention/decode/simd/dense_int8/keys:" + std::to_string(keys) +
                    "/threads:" + std::to_string(threads),
                [=](benchmark::State& state) { coded(state, keys, threads); })
                ->Unit(benchmark::kMillisecond)
                ->Iterations(25)
                ->UseManualTime();
            add_sparse<dlzs::paged_index<dlzs::centred_int4>>("16", keys, threads);
            add_sparse<dlzs::packed_index<dlzs::centred_int4>>("none", keys, threads);
            add_sparse<dlzs::packed_index<dlzs::lz_keys>>("none", keys, threads);
            add_sparse<dlzs::packed_index<dlzs::int8>>("none", keys, threads);
        }
    }
    return true;
}();

} // namespace
} // namespace sofattn::bench
