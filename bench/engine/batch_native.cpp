// SPDX-License-Identifier: MIT
// Decode steps of sequences of different lengths: one batch through the C library, the library's calls one
// after another, and kernels one after another.
#ifdef SOFATTN_BENCH_LIBRARY
#include "engine/decode_step.hpp"
#include "support/data.hpp"
#include <sofattn/attention/decode.hpp>
#include <sofattn/attention/options.hpp>
#include <sofattn/attention/sparse_decode.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/exec/parallel.hpp>
#include <sofattn/sofattn.h>

#include <benchmark/benchmark.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace sofattn::bench {
namespace {

/// Sparse: those from 2048 keys on, as the library does.
void steps_of_batch(benchmark::State& state, index_t threads, bool sparse) {
    std::vector<index_t> const lengths{512,  1024, 1536,  2048,  3072,  4096,
                                       6144, 8192, 12288, 16384, 24576, 32768};
    constexpr index_t dense_below = 2048;
    decode_cache of(lengths, false);
    library_cache const twin(of, false);
    if (!of.fits || !twin.fits()) {
        state.SkipWithError("the caches do not fit");
        return;
    }
    generator random;
    exec::openmp const run(threads);
    sparse_decode_options const options{kept, 4, 64, selection_scope::per_group};
    std::vector<query_tensor> queries;
    std::vector<step_output> outputs;
    for (std::size_t i = 0; i < lengths.size(); ++i) {
        queries.push_back(some_query(random));
        outputs.emplace_back(std::array<index_t, 3>{heads, 1, dim});
    }
    std::vector<sofattn_attention> all(lengths.size());
    std::vector<sofattn_attention const*> pointers;
    std::size_t bytes = 0;
    for (std::size_t i = 0; i < lengths.size(); ++i) {
        sofattn_attention_init(&all[i]);
        all[i].method = sparse ? SOFATTN_BEST_KEYS : SOFATTN_DENSE;
        all[i].count = kept;
        if (!twin.describe(i, queries[i], outputs[i], all[i])) {
            state.SkipWithError("a cache cannot be described");
            return;
        }
        bytes = std::max(bytes, sofattn_workspace_bytes(&all[i], threads));
        pointers.push_back(&all[i]);
    }
    auto const count = static_cast<std::int64_t>(all.size());
    bytes = std::max(bytes, sofattn_batch_workspace_bytes(pointers.data(), count, threads));
    std::vector<std::byte> workspace(bytes);
    auto* const loop = const_cast<exec::openmp*>(&run);

    std::vector<way> ways;
    ways.push_back(
        {"kernels", [&] {
             for (std::size_t i = 0; i < lengths.size(); ++i) {
                 auto const paged = of.problem_of(i, queries[i]);
                 auto const codes = std::span<engine::key_codes const>(of.sequences[i]->codes(0));
                 if (sparse && lengths[i] >= dense_below) {
                     sparse_decode(paged, codes, options, outputs[i].view(), workspace, run);
                 } else {
                     dense_decode(paged, outputs[i].view(), workspace, run);
                 }
             }
         }});
    ways.push_back(
        {"calls", [&] {
             for (sofattn_attention const& a : all) {
                 if (!library_cache::is_ok(sofattn_run_parallel(
                         &a, workspace.data(), workspace.size(), threads, in_openmp, loop))) {
                     state.SkipWithError("refused");
                 }
             }
         }});
    ways.push_back({"batch", [&] {
                        if (!library_cache::is_ok(sofattn_batch_run_parallel(
                                pointers.data(), count, workspace.data(), workspace.size(), threads,
                                in_openmp, loop, nullptr))) {
                            state.SkipWithError("refused");
                        }
                    }});
    take_turns(state, ways, threads);
}

[[maybe_unused]] bool const added = [] {
    for (bool const sparse : {false, true}) {
        for (index_t const threads : {1, 2}) {
            add("engine/batch/simd/" + std::string(sparse ? "best_keys" : "dense") +
                    "/threads:" + std::to_string(threads),
                [=](benchmark::State& state) { steps_of_batch(state, threads, sparse); })
                ->Unit(benchmark::kMillisecond)
                ->Iterations(33)
                ->UseManualTime();
        }
    }
    return true;
}();

} // namespace
} // namespace sofattn::bench
#endif
