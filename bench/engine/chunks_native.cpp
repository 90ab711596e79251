// SPDX-License-Identifier: MIT
// Prefill in chunks over a KV cache: by pages, with codes that grow with the cache, against dense attention over
// the cache and against prefill by pages of all tokens at once, in turn in one process.
#include "support/data.hpp"
#include "support/head.hpp"
#include "support/recorded.hpp"
#include "support/relative_error.hpp"
#include "support/timing.hpp"
#include <sofattn/attention/dense.hpp>
#include <sofattn/attention/options.hpp>
#include <sofattn/attention/page_prefill.hpp>
#include <sofattn/attention/problem.hpp>
#include <sofattn/core/tensor.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/engine/elements.hpp>
#include <sofattn/engine/kv_pool.hpp>
#include <sofattn/engine/kv_sequence.hpp>
#include <sofattn/engine/run.hpp>
#include <sofattn/exec/parallel.hpp>
#include <sofattn/sads/budget.hpp>

#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace sofattn::bench {
namespace {

using output_tensor = tensor<float, axis::head, axis::query, axis::value_dim>;

constexpr index_t tokens = 32768;
constexpr index_t dim = 64;
constexpr index_t dense_below = 1024;

struct row {
    int layer; ///< recorded
    bool rounds;
    index_t chunk;
    index_t threads;

    [[nodiscard]] dense_products products() const {
        return rounds ? dense_products::bf16 : dense_products::f32;
    }
};

template <class Rows>
engine::operand operand_of(Rows const& rows, index_t first) {
    auto const v = rows.cview();
    return {v.data() + first * v.strides()[1], engine::dtype::f32, v.strides()[0] * 4,
            v.strides()[1] * 4};
}

/// Seconds, and whether nothing was refused.
struct outcome {
    double writing = 0;
    double attending = 0;
    double code_bytes_per_token = 0;
    bool good = true;
};

/// All tokens through a cache of their own, chunk by chunk.
outcome in_chunks(head const& data, row const& r, engine::method how, output_tensor& output) {
    engine::kv_layout layout;
    layout.qk_dim = layout.v_dim = dim;
    layout.pages = tokens / layout.page_tokens;
    layout.coded_from = 0;
    if (how == engine::method::pages) {
        layout.page_codes = r.rounds ? engine::kept_page_codes::bf16 : engine::kept_page_codes::f32;
    }
    engine::kv_pool<float> pool;
    outcome found;
    found.good = pool.open(layout).ok();
    engine::kv_sequence<float> sequence(pool);
    exec::openmp const run(r.threads);
    std::vector<std::byte> workspace;
    for (index_t first = 0; first < tokens && found.good; first += r.chunk) {
        found.writing += seconds_of([&] {
            found.good =
                sequence.extend(r.chunk).ok() &&
                sequence.write(0, r.chunk, operand_of(data.k, first), operand_of(data.v, first))
                    .ok();
        });
        engine::attention_desc d{};
        d.how = how;
        d.dense_below = how == engine::method::pages ? dense_below : 0;
        found.good = found.good && sequence.describe(0, d).ok();
        d.heads = 1;
        d.queries = r.chunk;
        d.query = operand_of(data.q, first);
        auto const out = output.view();
        d.output = {out.data() + first * out.strides()[1], out.strides()[0] * 4,
                    out.strides()[1] * 4};
        d.products = r.products();
        d.mass = how == engine::method::pages ? 0.99 : 0.0;
        workspace.resize(std::max(workspace.size(), engine::workspace_bytes(d, r.threads)));
        found.attending += seconds_of([&] {
            found.good = found.good && engine::run<engine::elements<engine::dtype::f32>>(
                                           d, workspace.data(), workspace.size(), run)
                                           .ok();
        });
    }
    found.code_bytes_per_token = static_cast<double>(sequence.code_bytes()) / tokens;
    return found;
}

template <dense_products Products>
void prefill_in_chunks(benchmark::State& state, row const& r) {
    head const data = recorded_head(r.layer, tokens, dim);
    problem<float> const given = data.given();
    exec::openmp const run(r.threads);
    attention_options options;
    options.budget = sads::budget::of_mass(0.99);
    page_prefill<Products> const at_once(options, dense_below);
    std::vector<std::byte> workspace(
        std::max(page_prefill<Products>::workspace_bytes(given.shape(), r.threads),
                 dense_workspace_bytes(given.shape(), r.threads)));
    output_tensor exact({1, tokens, dim});
    dense_attention(given, exact.view(), workspace, run);
    output_tensor whole({1, tokens, dim});
    output_tensor chunks({1, tokens, dim});
    output_tensor dense({1, tokens, dim});
    std::vector<double> writing, attending, writing_dense, dense_attending, indexing, once;
    outcome pages;
    for (auto _ : state) {
        pages = in_chunks(data, r, engine::method::pages, chunks);
        outcome const of_dense = in_chunks(data, r, engine::method::dense, dense);
        if (!pages.good || !of_dense.good) {
            state.SkipWithError("refused");
            return;
        }
        writing.push_back(pages.writing);
        attending.push_back(pages.attending);
        writing_dense.push_back(of_dense.writing);
        dense_attending.push_back(of_dense.attending);
        std::vector<typename page_prefill<Products>::index_type> indexes;
        indexing.push_back(seconds_of([&] { indexes = at_once.index(given, run); }));
        once.push_back(seconds_of([&] { at_once(given, indexes, whole.view(), workspace, run); }));
        state.SetIterationTime(pages.writing + pages.attending);
    }
    state.counters["write_ms"] = 1e3 * median(writing);
    state.counters["attend_ms"] = 1e3 * median(attending);
    state.counters["write_without_codes_ms"] = 1e3 * median(writing_dense);
    state.counters["dense_ms"] = 1e3 * median(dense_attending);
    state.counters["index_at_once_ms"] = 1e3 * median(indexing);
    state.counters["at_once_ms"] = 1e3 * median(once);
    state.counters["over_dense"] =
        (median(writing_dense) + median(dense_attending)) / (median(writing) + median(attending));
    state.counters["over_at_once"] =
        (median(indexing) + median(once)) / (median(writing) + median(attending));
    state.counters["error"] = relative_error(chunks, exact);
    state.counters["error_at_once"] = relative_error(whole, exact);
    state.counters["code_bytes_per_token"] = pages.code_bytes_per_token;
}

[[maybe_unused]] bool const added = [] {
    if (!recorded_is_missing().empty()) {
        return false;
    }
    for (int const layer : recorded_layers) {
        for (bool const rounds : {false, true}) {
            for (index_t const chunk : {512, 2048}) {
                for (index_t const threads : {1, 2}) {
                    row const r{layer, rounds, chunk, threads};
                    add("engine/chunked_prefill/simd/layer:" + std::to_string(layer) +
                            "/products:" + (rounds ? "bf16" : "f32") + "/chunk:" +
                            std::to_string(chunk) + "/threads:" + std::to_string(threads),
                        [r](benchmark::State& state) {
                            r.rounds ? prefill_in_chunks<dense_products::bf16>(state, r)
                                     : prefill_in_chunks<dense_products::f32>(state, r);
                        })
                        ->Unit(benchmark::kMillisecond)
                        ->Iterations(3)
                        ->UseManualTime();
                }
            }
        }
    }
    return true;
}();

} // namespace
} // namespace sofattn::bench
