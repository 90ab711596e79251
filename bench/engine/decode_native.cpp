// SPDX-License-Identifier: MIT
// A decode step by descriptor and through the C library, against the kernels that both end in.
#include "support/data.hpp"
#include "support/timing.hpp"
#include <sofattn/attention/decode.hpp>
#include <sofattn/attention/options.hpp>
#include <sofattn/attention/problem.hpp>
#include <sofattn/attention/sparse_decode.hpp>
#include <sofattn/core/half.hpp>
#include <sofattn/core/tensor.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/engine/kv_pool.hpp>
#include <sofattn/engine/kv_sequence.hpp>
#include <sofattn/engine/run.hpp>
#include <sofattn/exec/parallel.hpp>
#ifdef SOFATTN_BENCH_LIBRARY
#include <sofattn/sofattn.h>
#endif

#include <benchmark/benchmark.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace sofattn::bench {
namespace {

constexpr index_t kv_heads = 8;
constexpr index_t heads = 32;
constexpr index_t dim = 128;
constexpr index_t kept = 2048;
constexpr index_t page_tokens = 64;

/// Keys and values of some tokens, uniform in [-1, 1): [kv_head, token, k|v].
tensor<half, axis::kv_head, axis::key, axis::channel> some_tokens(generator& random,
                                                                  index_t count) {
    tensor<half, axis::kv_head, axis::key, axis::channel> rows({kv_heads, count, 2 * dim});
    half* const data = rows.view().data();
    for (index_t i = 0; i < rows.view().size(); ++i) {
        data[i] = half(static_cast<float>(2.0 * random.uniform() - 1.0));
    }
    return rows;
}
engine::operand operand_of(tensor<half, axis::kv_head, axis::key, axis::channel> const& rows,
                           index_t first_channel) {
    auto const v = rows.cview();
    return {v.data() + first_channel, engine::dtype::f16, v.strides()[0] * 2, v.strides()[1] * 2};
}

/// A cache of so many tokens. `shuffled`: pages of two sequences take turns, so that no rows of more
/// than a page follow each other.
struct cache {
    cache(index_t keys, bool shuffled) {
        generator random;
        engine::kv_layout layout;
        layout.kv_heads = kv_heads;
        layout.qk_dim = dim;
        layout.v_dim = dim;
        layout.page_tokens = page_tokens;
        layout.pages = keys / page_tokens * (shuffled ? 2 : 1) + 2;
        if (!pool.open(layout).ok()) {
            return;
        }
        sequence = std::make_unique<engine::kv_sequence<half>>(pool);
        engine::kv_sequence<half> other(pool);
        constexpr index_t chunk = 4096;
        for (index_t done = 0; done < keys; done += chunk) {
            auto const rows = some_tokens(random, chunk);
            if (shuffled) {
                for (index_t i = 0; i < chunk / page_tokens; ++i) {
                    fits = fits && sequence->extend(page_tokens).ok() &&
                           other.extend(page_tokens).ok();
                }
            } else {
                fits = fits && sequence->extend(chunk).ok();
            }
            fits =
                fits && sequence->write(0, chunk, operand_of(rows, 0), operand_of(rows, dim)).ok();
        }
    }
    engine::kv_pool<half> pool;
    std::unique_ptr<engine::kv_sequence<half>> sequence;
    bool fits = true;
};

struct way {
    char const* name;
    std::function<void()> step;
};

#ifdef SOFATTN_BENCH_LIBRARY
void in_openmp(void* context, std::int64_t count, void (*task)(void*, std::int64_t, std::int64_t),
               void* data) {
    (*static_cast<exec::openmp const*>(context))(
        count, [&](index_t i, index_t thread) { task(data, i, thread); });
}
#endif

/// Pushes everything else out of the caches: the codes of one way must not be warm from the way before.
void forget_caches() {
    static std::vector<char> const other(96 << 20, 1);
    long sum = 0;
    for (std::size_t i = 0; i < other.size(); i += 64) {
        sum += other[i];
    }
    benchmark::DoNotOptimize(sum);
}

/// The kernel, the descriptor and the library in turn; times of the latter over the kernel's.
void step_of_decode(benchmark::State& state, index_t keys, index_t threads, bool sparse,
                    bool shuffled) {
    cache const of(keys, shuffled);
    if (!of.fits) {
        state.SkipWithError("the cache does not fit");
        return;
    }
    generator random;
    tensor<half, axis::head, axis::query, axis::dim> q({heads, 1, dim});
    for (index_t h = 0; h < heads; ++h) {
        for (index_t d = 0; d < dim; ++d) {
            q(h, 0, d) = half(static_cast<float>(2.0 * random.uniform() - 1.0));
        }
    }
    tensor<float, axis::head, axis::query, axis::value_dim> output({heads, 1, dim});
    exec::openmp const run(threads);

    engine::attention_desc d{};
    if (!of.sequence->describe(0, d).ok()) {
        state.SkipWithError("the cache cannot be described");
        return;
    }
    d.heads = heads;
    d.queries = 1;
    d.query = {q.view().data(), engine::dtype::f16, dim * 2, dim * 2};
    d.output = {output.view().data(), dim * 4, dim * 4};
    d.how = sparse ? engine::method::best_keys : engine::method::dense;
    d.count = kept;
    std::vector<std::byte> workspace(engine::workspace_bytes(d, threads));

    // What the kernels are told, with the same codes.
    paged_problem<half> paged;
    paged.queries = q.view();
    auto& pool = of.sequence->pool();
    paged.keys = pool.keys(0);
    paged.values = pool.values(0);
    paged.table = of.sequence->table();
    paged.tokens = keys;
    sparse_decode_options const options{kept, 4, 64, selection_scope::per_group};

    std::vector<way> ways;
    ways.push_back({"kernel", [&] {
                        if (sparse) {
                            sparse_decode(paged,
                                          std::span<engine::key_codes const>(of.sequence->codes(0)),
                                          options, output.view(), workspace, run);
                        } else {
                            dense_decode(paged, output.view(), workspace, run);
                        }
                    }});
    ways.push_back({"descriptor", [&] {
                        if (!engine::run(d, workspace.data(), workspace.size(), run).ok()) {
                            state.SkipWithError("refused");
                        }
                    }});
#ifdef SOFATTN_BENCH_LIBRARY
    // The library has codes of its own, and a copy of K and V where pages are shuffled.
    struct handles {
        sofattn_pool* pool = nullptr;
        sofattn_sequence* sequence = nullptr;
        ~handles() {
            sofattn_sequence_destroy(sequence);
            sofattn_pool_destroy(pool);
        }
    } c;
    sofattn_attention a;
    sofattn_attention_init(&a);
    a.method = sparse ? SOFATTN_BEST_KEYS : SOFATTN_DENSE;
    a.count = kept;
    std::vector<std::byte> c_workspace;
    {
        sofattn_layout layout;
        sofattn_layout_init(&layout);
        layout.type = SOFATTN_F16;
        layout.kv_heads = kv_heads;
        layout.qk_dim = layout.v_dim = dim;
        layout.page_tokens = page_tokens;
        layout.pages = keys / page_tokens;
        bool made = sofattn_pool_create(&layout, &c.pool).status == SOFATTN_OK &&
                    sofattn_sequence_create(c.pool, &c.sequence).status == SOFATTN_OK &&
                    sofattn_sequence_extend(c.sequence, keys).status == SOFATTN_OK;
        tensor<half, axis::kv_head, axis::key, axis::channel> rows({kv_heads, 1, 2 * dim});
        for (index_t t = 0; t < keys && made; ++t) {
            index_t const row = paged.table.row(t);
            for (index_t h = 0; h < kv_heads; ++h) {
                std::copy_n(&paged.keys(h, row, 0), 2 * dim, &rows(h, 0, 0));
            }
            auto const k = operand_of(rows, 0);
            sofattn_operand const key{k.data, SOFATTN_F16, k.head_stride, k.token_stride};
            sofattn_operand value = key;
            value.data = rows.cview().data() + dim;
            made = sofattn_sequence_write(c.sequence, 0, 1, &key, &value).status == SOFATTN_OK;
        }
        made = made && sofattn_sequence_describe(c.sequence, 0, &a).status == SOFATTN_OK;
        if (!made) {
            state.SkipWithError("the library's cache cannot be made");
            return;
        }
        a.heads = heads;
        a.queries = 1;
        a.query = {q.view().data(), SOFATTN_F16, dim * 2, dim * 2};
        a.output = output.view().data();
        a.output_head_stride = a.output_token_stride = dim * 4;
        if (!shuffled) {
            // Pages in order in both: the same memory for all ways.
            a.key = {d.key.data, SOFATTN_F16, d.key.head_stride, d.key.token_stride};
            a.value = {d.value.data, SOFATTN_F16, d.value.head_stride, d.value.token_stride};
            a.pool_pages = d.pages.pool_pages;
        }
        c_workspace.resize(sofattn_workspace_bytes(&a, threads));
    }
    ways.push_back({"library", [&] {
                        if (sofattn_run_parallel(&a, c_workspace.data(), c_workspace.size(),
                                                 threads, in_openmp,
                                                 const_cast<exec::openmp*>(&run))
                                .status != SOFATTN_OK) {
                            state.SkipWithError("refused");
                        }
                    }});
#endif

    std::vector<std::vector<double>> times(ways.size());
    std::size_t turn = 0;
    for (auto _ : state) {
        // Another goes first each turn: what follows a way over the same codes finds some of its page tables.
        for (std::size_t i = 0; i < ways.size(); ++i) {
            std::size_t const which = (turn + i) % ways.size();
            forget_caches();
            times[which].push_back(seconds_of([&] {
                ways[which].step();
                benchmark::DoNotOptimize(output.view().data());
                benchmark::ClobberMemory();
            }));
        }
        ++turn;
        state.SetIterationTime(times.front().back());
    }
    for (std::size_t i = 0; i < ways.size(); ++i) {
        std::string const name = ways[i].name;
        state.counters[name + "_ms"] = 1e3 * median(times[i]);
        if (i > 0) {
            // Pairs of one turn: machines change their pace.
            std::vector<double> ratios;
            for (std::size_t n = 0; n < times[i].size(); ++n) {
                ratios.push_back(times[i][n] / times[0][n]);
            }
            state.counters[name + "_over_kernel"] = median(ratios);
        }
    }
    state.counters["kv_bytes_per_token"] =
        static_cast<double>(of.sequence->pool().bytes_per_token());
    state.counters["code_bytes_per_token"] =
        static_cast<double>(of.sequence->code_bytes()) / static_cast<double>(keys);
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
