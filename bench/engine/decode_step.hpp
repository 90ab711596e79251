// SPDX-License-Identifier: MIT
// Caches of some sequences, the library's twin of them, and ways to take a step that alternate.
#pragma once

#include "support/data.hpp"
#include "support/timing.hpp"
#include <sofattn/attention/paged_problem.hpp>
#include <sofattn/core/half.hpp>
#include <sofattn/core/tensor.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/engine/descriptor.hpp>
#include <sofattn/engine/elements.hpp>
#include <sofattn/engine/kv_pool.hpp>
#include <sofattn/engine/kv_sequence.hpp>
#include <sofattn/exec/parallel.hpp>
#ifdef SOFATTN_BENCH_LIBRARY
#include <sofattn/sofattn.h>
#endif

#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace sofattn::bench {

inline constexpr index_t kv_heads = 8;
inline constexpr index_t heads = 32;
inline constexpr index_t dim = 128;
inline constexpr index_t kept = 2048;
inline constexpr index_t page_tokens = 64;

/// [kv_head, token, k|v]
using token_rows_tensor = tensor<half, axis::kv_head, axis::key, axis::channel>;
using query_tensor = tensor<half, axis::head, axis::query, axis::dim>;
using stored = engine::elements<engine::dtype::f16>; // what descriptors are compiled for
using step_output = tensor<float, axis::head, axis::query, axis::value_dim>;

inline void fill(generator& random, half* data, index_t count) {
    for (index_t i = 0; i < count; ++i) {
        data[i] = half(static_cast<float>(2.0 * random.uniform() - 1.0));
    }
}
/// Uniform in [-1, 1).
[[nodiscard]] inline query_tensor some_query(generator& random) {
    query_tensor q({heads, 1, dim});
    fill(random, q.view().data(), q.view().size());
    return q;
}
[[nodiscard]] inline engine::operand operand_of(token_rows_tensor const& rows, index_t first) {
    auto const v = rows.cview();
    return {v.data() + first, engine::dtype::f16, v.strides()[0] * 2, v.strides()[1] * 2};
}

/// A pool and sequences of so many tokens, uniform in [-1, 1). `shuffled`: a sequence's pages take turns with
/// those of nobody, so that no rows of more than a page follow each other.
struct decode_cache {
    decode_cache(std::vector<index_t> const& lengths, bool shuffled) {
        engine::kv_layout layout;
        layout.kv_heads = kv_heads;
        layout.qk_dim = dim;
        layout.v_dim = dim;
        layout.page_tokens = page_tokens;
        for (index_t const keys : lengths) {
            layout.pages += ceil_div(keys, page_tokens) * (shuffled ? 2 : 1);
        }
        if (!pool.open(layout).ok()) {
            fits = false;
            return;
        }
        generator random;
        engine::kv_sequence<half> nobody(pool);
        for (index_t const keys : lengths) {
            auto& sequence =
                *sequences.emplace_back(std::make_unique<engine::kv_sequence<half>>(pool));
            constexpr index_t most = 4096;
            for (index_t done = 0; done < keys; done += most) {
                index_t const count = std::min(most, keys - done);
                for (index_t i = 0; i < count; i += page_tokens) {
                    index_t const tokens = std::min(page_tokens, count - i);
                    fits = fits && sequence.extend(tokens).ok() &&
                           (!shuffled || nobody.extend(tokens).ok());
                }
                token_rows_tensor rows({kv_heads, count, 2 * dim});
                fill(random, rows.view().data(), rows.view().size());
                fits = fits &&
                       sequence.write(0, count, operand_of(rows, 0), operand_of(rows, dim)).ok();
            }
        }
    }
    /// What kernels are told of a sequence's step.
    [[nodiscard]] paged_problem<half> problem_of(std::size_t sequence, query_tensor const& q) {
        paged_problem<half> paged;
        paged.queries = q.cview();
        paged.keys = pool.keys(0);
        paged.values = pool.values(0);
        paged.table = sequences[sequence]->table();
        paged.tokens = sequences[sequence]->length();
        return paged;
    }

    engine::kv_pool<half> pool;
    std::vector<std::unique_ptr<engine::kv_sequence<half>>> sequences;
    bool fits = true;
};

#ifdef SOFATTN_BENCH_LIBRARY
/// The same sequences in the library, which has codes of its own, and a copy of K and V where pages are shuffled.
class library_cache {
public:
    explicit library_cache(decode_cache& of, bool shuffled) : of_(of), shuffled_(shuffled) {
        sofattn_layout layout;
        sofattn_layout_init(&layout);
        layout.type = SOFATTN_F16;
        layout.kv_heads = kv_heads;
        layout.qk_dim = layout.v_dim = dim;
        layout.page_tokens = page_tokens;
        layout.pages = of.pool.layout().pages;
        fits_ = is_ok(sofattn_pool_create(&layout, &pool_));
        for (auto const& sequence : of.sequences) {
            sequences_.push_back(nullptr);
            fits_ = fits_ && is_ok(sofattn_sequence_create(pool_, &sequences_.back())) &&
                    copy(*sequence);
        }
    }
    library_cache(library_cache const&) = delete;
    library_cache& operator=(library_cache const&) = delete;
    ~library_cache() {
        for (auto* const sequence : sequences_) {
            sofattn_sequence_destroy(sequence);
        }
        sofattn_pool_destroy(pool_);
    }

    [[nodiscard]] bool fits() const { return fits_; }
    /// Its step, where `a` says how.
    [[nodiscard]] bool describe(std::size_t sequence, query_tensor const& q, step_output& output,
                                sofattn_attention& a) const {
        bool const ok = is_ok(sofattn_sequence_describe(sequences_[sequence], 0, &a));
        a.heads = heads;
        a.queries = 1;
        a.query = {q.cview().data(), SOFATTN_F16, dim * 2, dim * 2};
        a.output = output.view().data();
        a.output_head_stride = a.output_token_stride = dim * 4;
        engine::attention_desc d{};
        if (!shuffled_ && ok && of_.sequences[sequence]->describe(0, d).ok()) {
            // Pages in order in both: the same memory for all ways.
            a.key = {d.key.data, SOFATTN_F16, d.key.head_stride, d.key.token_stride};
            a.value = {d.value.data, SOFATTN_F16, d.value.head_stride, d.value.token_stride};
            a.pool_pages = d.pages.pool_pages;
        }
        return ok;
    }
    [[nodiscard]] static bool is_ok(sofattn_verdict const& v) { return v.status == SOFATTN_OK; }

private:
    bool copy(engine::kv_sequence<half> const& from) {
        auto const keys = of_.pool.keys(0);
        bool ok = is_ok(sofattn_sequence_extend(sequences_.back(), from.length()));
        token_rows_tensor rows({kv_heads, 1, 2 * dim});
        for (index_t t = 0; t < from.length() && ok; ++t) {
            for (index_t h = 0; h < kv_heads; ++h) {
                std::copy_n(&keys(h, from.table().row(t), 0), 2 * dim, &rows(h, 0, 0));
            }
            auto const k = operand_of(rows, 0);
            sofattn_operand const key{k.data, SOFATTN_F16, k.head_stride, k.token_stride};
            sofattn_operand value = key;
            value.data = rows.cview().data() + dim;
            ok = is_ok(sofattn_sequence_write(sequences_.back(), 0, 1, &key, &value));
        }
        return ok;
    }

    decode_cache& of_;
    bool shuffled_;
    sofattn_pool* pool_ = nullptr;
    std::vector<sofattn_sequence*> sequences_;
    bool fits_ = false;
};

inline void in_openmp(void* context, std::int64_t count,
                      void (*task)(void*, std::int64_t, std::int64_t), void* data) {
    (*static_cast<exec::openmp const*>(context))(
        count, [&](index_t i, index_t thread) { task(data, i, thread); });
}
#endif

struct way {
    char const* name;
    std::function<void()> step;
};

/// Pushes everything else out of the caches, of each thread's core: the codes of one way must not be warm from
/// the way before.
inline void forget_caches(index_t threads) {
    static std::vector<char> const other(96 << 20, 1);
#ifdef _OPENMP
#pragma omp parallel num_threads(static_cast <int>(threads))
#else
    static_cast<void>(threads);
#endif
    {
        long sum = 0;
        for (std::size_t i = 0; i < other.size(); i += 64) {
            sum += other[i];
        }
        benchmark::DoNotOptimize(sum);
    }
}

/// All ways in each iteration, and times of the others over that of the first.
inline void take_turns(benchmark::State& state, std::vector<way> const& ways, index_t threads) {
    std::vector<std::vector<double>> times(ways.size());
    std::size_t turn = 0;
    for (auto _ : state) {
        // Another goes first each time: what follows a way over the same codes finds some of its page tables.
        for (std::size_t i = 0; i < ways.size(); ++i) {
            std::size_t const which = (turn + i) % ways.size();
            forget_caches(threads);
            times[which].push_back(seconds_of([&] {
                ways[which].step();
                benchmark::ClobberMemory();
            }));
        }
        ++turn;
        state.SetIterationTime(times.front().back());
    }
    for (std::size_t i = 0; i < ways.size() && turn > 0; ++i) {
        std::string const name = ways[i].name;
        state.counters[name + "_ms"] = 1e3 * median(times[i]);
        if (i > 0) {
            // Pairs of one turn: machines change their pace.
            std::vector<double> ratios;
            for (std::size_t n = 0; n < times[i].size(); ++n) {
                ratios.push_back(times[i][n] / times[0][n]);
            }
            state.counters[name + "_over_" + ways[0].name] = median(ratios);
        }
    }
}

} // namespace sofattn::bench
