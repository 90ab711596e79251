// SPDX-License-Identifier: MIT
// The pipeline on vector registers and its reference, run in turn in one process: the same template,
// another execution policy.
#include "support/data.hpp"
#include "support/head.hpp"
#include "support/recorded.hpp"
#include "support/timing.hpp"
#include <sofattn/attention/attention.hpp>
#include <sofattn/attention/prefill.hpp>
#include <sofattn/attention/presets.hpp>
#include <sofattn/core/error.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/dlzs/policy.hpp>
#include <sofattn/exec/executor.hpp>
#include <sofattn/exec/parallel.hpp>
#include <sofattn/sads/adaptive.hpp>
#include <sofattn/sads/row_selectors.hpp>
#include <sofattn/sufa/rivals.hpp>

#include <benchmark/benchmark.h>

#include <cstddef>
#include <string>
#include <type_traits>
#include <vector>

namespace sofattn::bench {
namespace {

/// A composition, but for its execution policy.
template <class P, class S, class A, class Tail = sufa::no_tail>
struct composed {
    template <class X>
    using on = attention<P, S, A, X, rass::reuse_aware, dlzs::coded_weights, Tail>;
};
/// What sparse_prefill computes with all pages looked at.
using in_grains = composed<dlzs::rotated_int8, sads::adaptive<sads::grain_by_grain>,
                           presets::recommended::attender, sufa::segment_tail>;
template <class Preset>
using preset = composed<typename Preset::predictor, typename Preset::selector,
                        typename Preset::attender, typename Preset::tail>;

struct row {
    int layer; ///< recorded; 0: made up
    index_t tokens;
    index_t dim;
    index_t threads;
};

/// Seconds of sparse_prefill, its index included, as the pipeline makes its own.
double prefill_seconds(problem<float> const& given, attention_options const& options,
                       exec::openmp const& threads,
                       view<float, axis::head, axis::query, axis::value_dim> output) {
    sparse_prefill<> const prefill(options, /*dense_below=*/0, /*page_loss=*/0.0);
    std::vector<std::byte> workspace(
        sparse_prefill<>::workspace_bytes(given.shape(), threads.threads()));
    return seconds_of(
        [&] { prefill(given, prefill.index(given, threads), output, workspace, threads); });
}

template <class Composed>
void run(benchmark::State& state, attention_options const& options, row const& r) {
    head const data =
        r.layer == 0 ? random_head(r.tokens, r.dim) : recorded_head(r.layer, r.tokens, r.dim);
    problem<float> const given = data.given();
    tensor<float, axis::head, axis::query, axis::value_dim> output({1, r.tokens, r.dim});
    typename Composed::template on<exec::simd> const fast(options);
    typename Composed::template on<exec::reference> const defined(options);
    exec::openmp const threads(r.threads);
    exec::simd simd;
    exec::reference reference;
    attention_result result;
    std::vector<double> ours;
    std::vector<double> theirs;
    std::vector<double> prefill;
    for (auto _ : state) {
        ours.push_back(seconds_of([&] { result = fast(simd, threads, given, output.view()); }));
        benchmark::DoNotOptimize(output.view().data());
        state.SetIterationTime(ours.back());
        theirs.push_back(seconds_of([&] { defined(reference, threads, given, output.view()); }));
        benchmark::DoNotOptimize(output.view().data());
        if constexpr (std::is_same_v<Composed, in_grains>) {
            prefill.push_back(prefill_seconds(given, options, threads, output.view()));
        }
        benchmark::ClobberMemory();
    }
    if (!prefill.empty()) {
        state.counters["over_prefill"] = median(prefill) / median(ours);
    }
    state.counters["over_reference"] = median(theirs) / median(ours);
    state.counters["reference_ms"] = 1e3 * median(theirs);
    state.counters["kept"] = result.kept_share();
    state.counters["ns_per_pair"] = 1e9 * median(ours) * static_cast<double>(r.threads) /
                                    static_cast<double>(result.visible_pairs);
}

template <class Composed>
void add_rows(std::string const& name, attention_options const& options) {
    for (row const& r :
         {row{0, 512, 64, 1}, row{0, 2048, 128, 1}, row{16, 2048, 64, 1}, row{16, 2048, 64, 2}}) {
        add("attention/pipeline/simd/preset:" + name +
                (r.layer == 0 ? "/data:random" : "/data:recorded/layer:16") +
                "/tokens:" + std::to_string(r.tokens) + "/dim:" + std::to_string(r.dim) +
                "/threads:" + std::to_string(r.threads),
            [=](benchmark::State& state) {
                std::string const missing = r.layer == 0 ? "" : recorded_is_missing();
                if (!missing.empty()) {
                    state.SkipWithError(missing.c_str());
                    return;
                }
                try {
                    run<Composed>(state, options, r);
                } catch (error const& e) { // a file that is not as it should be
                    state.SkipWithError(e.what());
                }
            })
            ->Unit(benchmark::kMillisecond)
            ->UseManualTime();
    }
}

[[maybe_unused]] bool const added = [] {
    add_rows<preset<presets::paper>>("paper", presets::paper::options());
    add_rows<preset<presets::recommended>>("recommended", presets::recommended::options());
    add_rows<in_grains>("recommended_in_grains", presets::recommended::options());
    add_rows<composed<dlzs::dlzs8, sads::segment_topk<>, sufa::sorted_updating<>>>(
        "dlzs8_sads", presets::paper::options());
    add_rows<composed<dlzs::int8, sads::full_topk, sufa::flash_attention_2>>(
        "int8_full_topk", presets::paper::options());
    add_rows<composed<dlzs::unpredicted, sads::keep_all, sufa::flash_attention_2>>("dense", {});
    return true;
}();

} // namespace
} // namespace sofattn::bench
