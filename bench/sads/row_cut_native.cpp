// SPDX-License-Identifier: MIT
// Selection on vector registers: the cut of a row, its kept keys, what each segment lost.
#include "support/data.hpp"
#include <sofattn/core/types.hpp>
#include <sofattn/sads/budget.hpp>
#include <sofattn/sads/kept_tile.hpp>
#include <sofattn/sads/row_cut.hpp>
#include <sofattn/sads/softmax_weight.hpp>

#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <numbers>
#include <span>
#include <string>
#include <vector>

namespace sofattn::bench {
namespace {

/// Rows of 8192 normal logits of the given spread, one budget of error each. `tails`: what
/// compensation asks for besides.
void select(benchmark::State& state, double spread, double error, bool tails) {
    constexpr index_t rows = 64;
    constexpr index_t keys = 8192;
    constexpr double octave = 1 << sads::weight_scale::position_bits;
    generator random;
    auto const normal = normal_tensor<axis::query, axis::key>(random, {rows, keys});
    std::vector<std::int16_t> given(static_cast<std::size_t>(rows * keys));
    for (std::size_t i = 0; i < given.size(); ++i) {
        double const logit = spread * static_cast<double>(normal.cview().data()[i]);
        given[i] = static_cast<std::int16_t>(logit * std::numbers::log2e * octave);
    }
    auto allowed = sads::budget::of_output_error(error);
    allowed.at_least = 32;
    allowed.sinks = 1;
    allowed.window = 16;
    auto const rule = sads::row_rule::of(allowed, keys, std::numbers::ln2 / octave);
    auto positions = given;
    sads::find_cut find;
    sads::kept_tile tile;
    sads::looked_pages const all_pages(~std::uint32_t{0});
    index_t kept = 0;
    for (auto _ : state) {
        std::ranges::copy(given, positions.begin()); // forced keys are taken out; 1 % of the time
        for (index_t r = 0; r < rows; ++r) {
            auto const row = std::span(positions).subspan(static_cast<std::size_t>(r * keys),
                                                          static_cast<std::size_t>(keys));
            sads::row_cut const cut = find(row, rule);
            for (index_t k = 0; k < keys; k += sads::kept_tile::most) {
                auto const part = row.subspan(static_cast<std::size_t>(k),
                                              static_cast<std::size_t>(sads::kept_tile::most));
                if (tails) {
                    tile.choose<true>(part, all_pages, cut);
                } else {
                    tile.choose<false>(part, all_pages, cut);
                }
                kept += tile.count();
                benchmark::DoNotOptimize(tile.positions());
                benchmark::ClobberMemory();
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
    for (bool const tails : {true, false}) {
        for (int const spread : {1, 2, 3}) {
            for (int const thousandths : {5, 10, 20}) {
                add("sads/row_cut/simd/tail:" + std::to_string(tails ? 1 : 0) +
                        "/spread:" + std::to_string(spread) +
                        "/error_thousandths:" + std::to_string(thousandths),
                    [=](benchmark::State& state) {
                        select(state, spread, thousandths / 1000.0, tails);
                    })
                    ->Unit(benchmark::kMillisecond);
            }
        }
    }
    return true;
}();

} // namespace
} // namespace sofattn::bench
