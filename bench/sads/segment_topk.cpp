// SPDX-License-Identifier: MIT
// Selection of a tenth of a row, or of what an error asks for: SADS and its rivals, as a definition
// and as a circuit.
#include "support/data.hpp"
#include <sofattn/core/order.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/exec/executor.hpp>
#include <sofattn/probe/event.hpp>
#include <sofattn/sads/adaptive.hpp>
#include <sofattn/sads/budget.hpp>
#include <sofattn/sads/candidates.hpp>
#include <sofattn/sads/row_selectors.hpp>
#include <sofattn/sads/segment_topk.hpp>

#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

namespace sofattn::bench {
namespace {

constexpr double ratio = 0.10;
constexpr index_t segment = 128; // keys
using score = std::int32_t;

/// Scores spread evenly over the row, the paper's kind II.
std::vector<score> spread_row(index_t keys) {
    generator random;
    std::vector<score> row(static_cast<std::size_t>(keys));
    std::ranges::generate(row, [&] { return static_cast<score>(20000.0 * random.normal()); });
    return row;
}

/// The distance from the best score to the last one that the ratio keeps: a threshold with it keeps
/// as many keys as the other selectors.
double radius_that_keeps(std::vector<score> row, index_t keep) {
    std::ranges::sort(row, std::greater<>());
    return static_cast<double>(row.front() - row[static_cast<std::size_t>(keep - 1)]);
}

template <class Selector, class Execution>
void select(benchmark::State& state) {
    index_t const keys = state.range(0);
    auto const row = spread_row(keys);
    auto rule = sads::row_rule::of(sads::budget::of_ratio(ratio), keys, 1.0);
    if constexpr (requires { Selector::weighs; }) {
        constexpr double logit_step = 1e-4; // a row of logits with deviation 2
        rule = sads::row_rule::of(sads::budget::of_output_error(0.02), keys, logit_step);
    } else if constexpr (!Selector::sorted) {
        rule.radius = radius_that_keeps(row, rule.keep);
    }
    sads::select_scratch<score> scratch(keys);
    sads::running_row<score> so_far;
    scratch.row = &so_far;
    std::vector<ranked<score>> kept(static_cast<std::size_t>(keys));
    Execution x;
    index_t count = 0;
    for (auto _ : state) {
        x = {};
        so_far = {};
        count = Selector{}(x, sads::score_run<score>{row, 0}, rule, {segment}, scratch,
                           std::span(kept));
        benchmark::DoNotOptimize(kept.data());
        benchmark::ClobberMemory();
    }
    state.SetItemsProcessed(state.iterations() * keys); // scores
    state.counters["kept"] = static_cast<double>(count);
    if constexpr (Execution::probe_type::enabled) {
        state.counters["compares"] = static_cast<double>(x.probe.count(probe::event::compare));
    }
}

template <class Selector, class Execution>
void add_selector(std::string const& stage_and_executor) {
    add("sads/" + stage_and_executor, select<Selector, Execution>)
        ->ArgName("n")
        ->Arg(1024)
        ->Arg(4096);
}

template <class Execution>
void add_executor(std::string const& executor) {
    add_selector<sads::segment_topk<sads::contiguous>, Execution>("segment_topk/" + executor +
                                                                  "/layout:contiguous");
    add_selector<sads::segment_topk<sads::strided>, Execution>("segment_topk/" + executor +
                                                               "/layout:strided");
    add_selector<sads::full_topk, Execution>("full_topk/" + executor);
    add_selector<sads::threshold, Execution>("threshold/" + executor);
    add_selector<sads::adaptive<>, Execution>("adaptive/" + executor);
}

[[maybe_unused]] bool const added = [] {
    add_executor<exec::reference>("reference");
    add_executor<exec::counting>("counting");
    return true;
}();

} // namespace
} // namespace sofattn::bench
