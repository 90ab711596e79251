// SPDX-License-Identifier: MIT
// A decode step by descriptor and through the C library, against the kernels that both end in.
#include "engine/decode_step.hpp"
#include "support/data.hpp"
#include <sofattn/attention/decode.hpp>
#include <sofattn/attention/options.hpp>
#include <sofattn/attention/sparse_decode.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/engine/run.hpp>
#include <sofattn/exec/parallel.hpp>
#ifdef SOFATTN_BENCH_LIBRARY
#include <sofattn/sofattn.h>
#endif

#include <benchmark/benchmark.h>

#include <cstddef>
#include <span>
#include <string>
#include <vector>

namespace sofattn::bench {
namespace {

/// The kernel, the descriptor and the library in turn.
void step_of_decode(benchmark::State& state, index_t keys, index_t threads, bool sparse,
                    bool shuffled) {
    decode_cache of({keys}, shuffled);
    // Every way has codes of its own, as the library must: shared ones would be found sooner by the second.
    decode_cache const twice({keys}, shuffled);
    if (!of.fits || !twice.fits) {
        state.SkipWithError("the cache does not fit");
        return;
    }
    generator random;
    query_tensor const q = some_query(random);
    step_output output({heads, 1, dim});
    exec::openmp const run(threads);
    auto const& sequence = *of.sequences.front();

    engine::attention_desc d{};
    if (!sequence.describe(0, d).ok()) {
        state.SkipWithError("the cache cannot be described");
        return;
    }
    d.heads = heads;
    d.queries = 1;
    d.query = {q.cview().data(), engine::dtype::f16, dim * 2, dim * 2};
    d.output = {output.view().data(), dim * 4, dim * 4};
    d.how = sparse ? engine::method::best_keys : engine::method::dense;
    d.count = kept;
    d.codes = twice.sequences.front()->codes(0).data();
    // One for all ways: one of its own is out of the second core's caches, where the others' is in.
    std::vector<std::byte> workspace(engine::workspace_bytes(d, threads));

    // What the kernels are told.
    auto const paged = of.problem_of(0, q);
    sparse_decode_options const options{kept, 4, 64, selection_scope::per_group};

    std::vector<way> ways;
    ways.push_back({"kernel", [&] {
                        if (sparse) {
                            sparse_decode(paged,
                                          std::span<engine::key_codes const>(sequence.codes(0)),
                                          options, output.view(), workspace, run);
                        } else {
                            dense_decode(paged, output.view(), workspace, run);
                        }
                    }});
    ways.push_back({"descriptor", [&] {
                        if (!engine::run<stored>(d, workspace.data(), workspace.size(), run).ok()) {
                            state.SkipWithError("refused");
                        }
                    }});
#ifdef SOFATTN_BENCH_LIBRARY
    library_cache const twin(of, shuffled);
    sofattn_attention a;
    sofattn_attention_init(&a);
    a.method = sparse ? SOFATTN_BEST_KEYS : SOFATTN_DENSE;
    a.count = kept;
    if (!twin.fits() || !twin.describe(0, q, output, a)) {
        state.SkipWithError("the library's cache cannot be made");
        return;
    }
    if (sofattn_workspace_bytes(&a, threads) > workspace.size()) {
        state.SkipWithError("the library wants more workspace");
        return;
    }
    ways.push_back({"library", [&] {
                        if (!library_cache::is_ok(sofattn_run_parallel(
                                &a, workspace.data(), workspace.size(), threads, in_openmp,
                                const_cast<exec::openmp*>(&run)))) {
                            state.SkipWithError("refused");
                        }
                    }});
#endif
    take_turns(state, ways, threads);
    state.counters["kv_bytes_per_token"] = static_cast<double>(of.pool.bytes_per_token());
    state.counters["code_bytes_per_token"] =
        static_cast<double>(sequence.code_bytes()) / static_cast<double>(keys);
}

[[maybe_unused]] bool const added = [] {
    for (index_t const keys : {32768, 131072}) {
        for (index_t const threads : {1, 2}) {
            for (bool const sparse : {false, true}) {
                for (bool const shuffled : {false, true}) {
                    add("engine/decode/simd/" + std::string(sparse ? "best_keys" : "dense") +
                            "/pages:" + (shuffled ? "shuffled" : "in_order") +
                            "/keys:" + std::to_string(keys) + "/threads:" + std::to_string(threads),
                        [=](benchmark::State& state) {
                            step_of_decode(state, keys, threads, sparse, shuffled);
                        })
                        ->Unit(benchmark::kMillisecond)
                        ->Iterations(33)
                        ->UseManualTime();
                }
            }
        }
    }
    return true;
}();

} // namespace
} // namespace sofattn::bench
