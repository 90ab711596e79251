// SPDX-License-Identifier: MIT
// Sparse prefill, key by key and page by page, against dense attention in f32, bf16 and int8, run in turn in one
// process, on made-up and on recorded heads.
#include "support/data.hpp"
#include "support/head.hpp"
#include "support/recorded.hpp"
#include "support/relative_error.hpp"
#include "support/timing.hpp"
#include <sofattn/attention/dense.hpp>
#include <sofattn/attention/options.hpp>
#include <sofattn/attention/page_prefill.hpp>
#include <sofattn/attention/prefill.hpp>
#include <sofattn/attention/problem.hpp>
#include <sofattn/core/error.hpp>
#include <sofattn/core/tensor.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/dlzs/policy.hpp>
#include <sofattn/exec/int8_tile.hpp>
#include <sofattn/exec/parallel.hpp>
#include <sofattn/sads/budget.hpp>
#include <sofattn/sufa/logit_source.hpp>

#include <benchmark/benchmark.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace sofattn::bench {
namespace {

using output_tensor = tensor<float, axis::head, axis::query, axis::value_dim>;

/// Of a query and a key that it sees.
double pairs_of(index_t tokens) { return static_cast<double>(tokens * (tokens + 1) / 2); }

// --- what a row runs on --------------------------------------------------------------------------

/// Where a head comes from.
struct source {
    int layer; ///< recorded; 0: made up
    index_t tokens;
    index_t dim;

    [[nodiscard]] std::string name() const {
        return (layer == 0 ? "data:random" : "data:recorded/layer:" + std::to_string(layer));
    }
    friend bool operator==(source const&, source const&) = default;
    friend auto operator<=>(source const&, source const&) = default;
};

/// A head, what dense attention makes of it, and how far bf16 is from that.
struct input {
    explicit input(source const& of)
        : from(of), data(of.layer == 0 ? random_head(of.tokens, of.dim)
                                       : recorded_head(of.layer, of.tokens, of.dim)),
          dense({1, of.tokens, of.dim}) {
        exec::openmp const run;
        std::vector<std::byte> workspace(
            dense_workspace_bytes(data.given().shape(), run.threads()));
        output_tensor bf16({1, of.tokens, of.dim});
        dense_attention(data.given(), dense.view(), workspace, run);
        dense_attention<dense_products::bf16>(data.given(), bf16.view(), workspace, run);
        bf16_error = relative_error(bf16, dense);
    }

    /// One at a time, as long ones are large: neighbouring rows share it.
    static input const& of(source const& wanted) {
        static std::unique_ptr<input> last;
        if (!last || last->from != wanted) {
            last.reset();
            last = std::make_unique<input>(wanted);
        }
        return *last;
    }

    source from;
    head data;
    output_tensor dense;
    double bf16_error = 0;
};

// --- budgets -------------------------------------------------------------------------------------

attention_options options_of(double output_error) {
    attention_options options;
    options.budget = sads::budget::of_output_error(output_error);
    options.budget.sinks = 1;
    options.budget.window = 16;
    return options;
}

/// The budget of output error, from 1e-7 to 0.03, whose kept share is within 4 % of `wanted` or
/// nearest to it: short rows keep their window, and in peaked ones there is little to keep. Of
/// budgets that keep as much, the smallest one tried. `kept` falls where the budget grows, about in
/// inverse proportion.
double budget_for(double wanted, auto const& kept) {
    double error = 0.01;
    double slope = -1; // of the logarithms
    double last_error = 0;
    double last_share = 0;
    double best = error;
    double distance = std::numeric_limits<double>::infinity();
    for (int step = 0; step < 10 && distance >= 0.04 && error != last_error; ++step) {
        double const share = kept(error);
        double const off = std::log(share / wanted);
        if (std::abs(off) < distance - 0.01 || (std::abs(off) < distance + 0.01 && error < best)) {
            distance = std::abs(off);
            best = error;
        }
        if (step > 0) {
            slope =
                std::clamp(std::log(share / last_share) / std::log(error / last_error), -2.0, -0.2);
        }
        last_error = error;
        last_share = share;
        error = std::clamp(error * std::exp(-off / slope), 1e-7, 0.03);
    }
    return best;
}

// --- rows ----------------------------------------------------------------------------------------

constexpr index_t sparse_always = 0; // to see where it begins to pay

struct row {
    source from;
    int aim; ///< percent of keys to keep, or per mille of the mass to lose with pages
    index_t threads;
};

/// Sparse and dense attention in turn; index(run) codes keys, attend(run) is the call that a row times.
template <class Index, class Attend>
void measure(benchmark::State& state, row const& r, input const& in, Index index, Attend attend) {
    problem<float> const given = in.data.given();
    exec::openmp const run(r.threads);
    output_tensor output({1, r.from.tokens, r.from.dim});
    std::vector<std::byte> dense_workspace(dense_workspace_bytes(given.shape(), r.threads));
    std::vector<double> indexing;
    std::vector<double> attending;
    std::vector<double> f32;
    std::vector<double> bf16;
    std::vector<double> int8;
    for (auto _ : state) {
        indexing.push_back(seconds_of([&] { index(run); }));
        attending.push_back(seconds_of([&] { attend(run); }));
        state.SetIterationTime(attending.back());
        f32.push_back(
            seconds_of([&] { dense_attention(given, output.view(), dense_workspace, run); }));
        bf16.push_back(seconds_of([&] {
            dense_attention<dense_products::bf16>(given, output.view(), dense_workspace, run);
        }));
        int8.push_back(seconds_of([&] {
            dense_attention<dense_products::int8>(given, output.view(), dense_workspace, run);
        }));
        benchmark::DoNotOptimize(output.view().data());
        benchmark::ClobberMemory();
    }
    state.counters["bf16_error"] = in.bf16_error;
    state.counters["index_ms"] = 1e3 * median(indexing);
    state.counters["over_f32"] = median(f32) / median(attending);
    state.counters["over_bf16"] = median(bf16) / median(attending);
    state.counters["over_int8"] = median(int8) / median(attending);
    state.counters["ns_per_pair"] =
        1e9 * median(attending) * static_cast<double>(r.threads) / pairs_of(r.from.tokens);
}

template <sufa::logit_source Source>
void keep_keys(benchmark::State& state, row const& r) {
    using sparse_type = sparse_prefill<dlzs::rotated_int8, Source, true>;
    input const& in = input::of(r.from);
    problem<float> const given = in.data.given();
    problem_shape const shape = given.shape();
    exec::openmp const all_cores; // for what is not timed
    output_tensor output({1, r.from.tokens, r.from.dim});
    std::vector<std::byte> workspace(
        sparse_type::workspace_bytes(shape, std::max(r.threads, all_cores.threads())));
    auto indexes = sparse_type(options_of(1.0), sparse_always).index(given, all_cores);
    auto const kept_by = [&](sparse_type const& sparse) {
        std::atomic<std::int64_t> kept{0};
        sparse(given, indexes, output.view(), workspace, all_cores,
               [&](index_t, index_t, index_t, std::span<std::int32_t const> keys) {
                   kept += std::ssize(keys);
               });
        return static_cast<double>(kept.load()) / pairs_of(r.from.tokens);
    };
    auto const made = [&](double budget) { return sparse_type(options_of(budget), sparse_always); };
    // The same for any number of threads and either source of logits.
    static std::map<std::pair<source, int>, double> budgets;
    auto& budget = budgets[{r.from, r.aim}];
    if (budget == 0) {
        budget =
            budget_for(r.aim / 100.0, [&](double candidate) { return kept_by(made(candidate)); });
    }
    sparse_type const sparse = made(budget);
    sparse.check(shape);
    state.counters["kept"] = kept_by(sparse);
    state.counters["budget"] = budget;
    state.counters["error"] = relative_error(output, in.dense);
    measure(
        state, r, in, [&](exec::openmp const& run) { indexes = sparse.index(given, run); },
        [&](exec::openmp const& run) { sparse(given, indexes, output.view(), workspace, run); });
}

template <dense_products Products>
void keep_pages(benchmark::State& state, row const& r) {
    using sparse_type = page_prefill<Products>;
    input const& in = input::of(r.from);
    problem<float> const given = in.data.given();
    problem_shape const shape = given.shape();
    exec::openmp const all_cores;
    output_tensor output({1, r.from.tokens, r.from.dim});
    std::vector<std::byte> workspace(
        sparse_type::workspace_bytes(shape, std::max(r.threads, all_cores.threads())));
    attention_options options;
    options.budget = sads::budget::of_mass(1.0 - r.aim / 1000.0);
    options.budget.sinks = 1;
    options.budget.window = 16;
    sparse_type const sparse(options, sparse_always);
    sparse.check(shape);
    auto indexes = sparse.index(given, all_cores);
    std::atomic<std::int64_t> looked{0};
    sparse(given, indexes, output.view(), workspace, all_cores,
           [&](prefill_row first, index_t rows, index_t key, std::uint32_t pages) {
               for (index_t q = first.query; q < first.query + rows; ++q) { // keys that it sees
                   for (std::uint32_t bits = pages; bits != 0; bits &= bits - 1) {
                       index_t const from = key + std::countr_zero(bits) * exec::page_keys;
                       looked += std::clamp<index_t>(q + 1 - from, 0, exec::page_keys);
                   }
               }
           });
    state.counters["kept"] = static_cast<double>(looked.load()) / pairs_of(r.from.tokens);
    state.counters["error"] = relative_error(output, in.dense);
    measure(
        state, r, in, [&](exec::openmp const& run) { indexes = sparse.index(given, run); },
        [&](exec::openmp const& run) { sparse(given, indexes, output.view(), workspace, run); });
}

void add_row(std::string const& method, std::string const& aim, row const& r,
             void (*run)(benchmark::State&, row const&)) {
    auto* const added_row =
        add("attention/prefill/simd/" + r.from.name() + "/method:" + method +
                "/tokens:" + std::to_string(r.from.tokens) + "/dim:" + std::to_string(r.from.dim) +
                "/" + aim + ":" + std::to_string(r.aim) + "/threads:" + std::to_string(r.threads),
            [=](benchmark::State& state) {
                std::string const missing = r.from.layer == 0 ? "" : recorded_is_missing();
                if (!missing.empty()) {
                    state.SkipWithError(missing.c_str());
                    return;
                }
                try {
                    run(state, r);
                } catch (error const& e) { // a file that is not as it should be
                    state.SkipWithError(e.what());
                }
            })
            ->Unit(benchmark::kMillisecond)
            ->UseManualTime();
    if (r.from.tokens >= 32768) {
        added_row->Iterations(3); // one would do for Google Benchmark, but makes no median
    }
}

/// Everything on one recorded layer and on made-up data; the rest shows how far layers differ.
void add_rows(source const& from) {
    bool const all = from.layer == 0 || from.layer == 16;
    bool const swept = from.tokens == 8192 && from.dim == 128;
    bool const both = all && from.dim == 128;
    for (int const percent : {20, 10, 5, 3, 2}) {
        bool const extreme = percent == 20 || percent == 2;
        bool const below_window = from.tokens == 512 && percent < 5;
        if (below_window || (extreme && !swept) || (!all && from.dim == 64)) {
            continue;
        }
        for (index_t const threads : {1, 2}) {
            if (threads == 1 || both) {
                add_row("keys_reused", "kept_percent", {from, percent, threads},
                        keep_keys<sufa::reused>);
            }
        }
        if (all && swept) {
            add_row("keys_computed", "kept_percent", {from, percent, 1},
                    keep_keys<sufa::recomputed>);
        }
    }
    for (int const permille : {1, 3, 10, 30, 100}) {
        bool const extreme = permille == 1 || permille == 100;
        if ((extreme && !swept) || (!all && from.dim == 64)) {
            continue;
        }
        for (index_t const threads : {1, 2}) {
            if (threads == 1 || both) {
                add_row("pages_f32", "lost_permille", {from, permille, threads},
                        keep_pages<dense_products::f32>);
                add_row("pages_bf16", "lost_permille", {from, permille, threads},
                        keep_pages<dense_products::bf16>);
            }
        }
    }
}

[[maybe_unused]] bool const added = [] {
    std::vector<int> layers{0};
    layers.insert(layers.end(), recorded_layers.begin(), recorded_layers.end());
    for (int const layer : layers) {
        for (index_t const dim : {64, 128}) {
            for (index_t const tokens : {512, 1024, 2048, 8192, 32768}) {
                add_rows({layer, tokens, dim});
            }
        }
    }
    return true;
}();

} // namespace
} // namespace sofattn::bench
