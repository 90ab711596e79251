// SPDX-License-Identifier: MIT
// The whole pipeline on one causal head: both presets, and dense attention as the baseline.
#include "support/data.hpp"
#include <sofattn/attention/attention.hpp>
#include <sofattn/attention/presets.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/dlzs/policy.hpp>
#include <sofattn/exec/executor.hpp>
#include <sofattn/sads/row_selectors.hpp>
#include <sofattn/sufa/rivals.hpp>

#include <benchmark/benchmark.h>

#include <cstdint>
#include <string>

namespace sofattn::bench {
namespace {

constexpr index_t tokens = 512;
constexpr index_t dim = 64;

using dense = attention<dlzs::unpredicted, sads::keep_all, sufa::flash_attention_2>;

template <class Attention>
void run(benchmark::State& state, attention_options const& options) {
    generator random;
    auto const q = normal_tensor<axis::head, axis::query, axis::dim>(random, {1, tokens, dim});
    auto const k = normal_tensor<axis::kv_head, axis::key, axis::dim>(random, {1, tokens, dim});
    auto const v =
        normal_tensor<axis::kv_head, axis::key, axis::value_dim>(random, {1, tokens, dim});
    problem<float> const given{q.view(), k.view(), v.view(), /*causal=*/true};
    tensor<float, axis::head, axis::query, axis::value_dim> output({1, tokens, dim});
    Attention const attend(options);
    typename Attention::execution x;
    attention_result result;
    for (auto _ : state) {
        result = attend(x, given, output.view());
        benchmark::DoNotOptimize(output.view().data());
        benchmark::ClobberMemory();
    }
    // Dense-equivalent: the pairs there are, not those that were kept.
    state.SetItemsProcessed(state.iterations() * static_cast<std::int64_t>(result.visible_pairs));
    state.counters["kept_share"] = result.kept_share();
}

template <class Attention>
void add_preset(std::string const& name, attention_options const& options) {
    add("attention/pipeline/reference/preset:" + name + "/tokens:512/dim:64",
        [options](benchmark::State& state) { run<Attention>(state, options); })
        ->Unit(benchmark::kMillisecond);
}

[[maybe_unused]] bool const added = [] {
    add_preset<presets::attention<presets::paper>>("paper", presets::paper::options());
    add_preset<presets::attention<presets::recommended>>("recommended",
                                                         presets::recommended::options());
    add_preset<dense>("dense", {});
    return true;
}();

} // namespace
} // namespace sofattn::bench
