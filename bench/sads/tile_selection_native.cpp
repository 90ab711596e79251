// SPDX-License-Identifier: MIT
// Selection on vector registers: weights, the cut, the kept keys, what each segment lost.
#include "support/data.hpp"
#include <sofattn/core/types.hpp>
#include <sofattn/sads/budget.hpp>
#include <sofattn/sads/tile_selection.hpp>

#include <benchmark/benchmark.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace sofattn::bench {
namespace {

/// Rows of 8192 normal logits of the given spread, one budget of error each.
void select(benchmark::State& state, double spread, double error) {
    constexpr index_t rows = 64;
    constexpr index_t keys = 8192;
    constexpr double unit = 15000.0; // scores per spread, as 8-bit products of 128 channels have
    generator random;
    auto const normal = normal_tensor<axis::query, axis::key>(random, {rows, keys});
    std::vector<std::int32_t> scores(static_cast<std::size_t>(rows * keys));
    for (index_t i = 0; i < rows * keys; ++i) {
        scores[static_cast<std::size_t>(i)] =
            static_cast<std::int32_t>(unit * static_cast<double>(normal.cview().data()[i]));
    }
    auto allowed = sads::budget::of_output_error(error);
    allowed.at_least = 32;
    allowed.sinks = 1;
    allowed.window = 16;
    auto const rule = sads::row_rule::of(allowed, keys, spread / unit);
    sads::tile_selection selection;
    index_t kept = 0;
    for (auto _ : state) {
        for (index_t r = 0; r < rows; ++r) {
            sads::grain_row row;
            for (index_t k = 0; k < keys; k += sads::tile_selection::tile_keys) {
                kept += selection(scores.data() + r * keys + k, k, sads::tile_selection::tile_keys,
                                  rule, row);
            }
        }
    }
    auto const all = static_cast<double>(rows * keys) * static_cast<double>(state.iterations());
    state.SetItemsProcessed(rows * keys * state.iterations());
    state.counters["kept"] = static_cast<double>(kept) / all;
    state.counters["s_per_score"] =
        benchmark::Counter(all, benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
}

[[maybe_unused]] bool const added = [] {
    for (int const spread : {1, 2, 3}) {
        for (int const thousandths : {5, 10, 20}) {
            add("sads/tile_selection/simd/spread:" + std::to_string(spread) +
                    "/error_thousandths:" + std::to_string(thousandths),
                [=](benchmark::State& state) { select(state, spread, thousandths / 1000.0); })
                ->Unit(benchmark::kMillisecond);
        }
    }
    return true;
}();

} // namespace
} // namespace sofattn::bench
