// SPDX-License-Identifier: MIT
// Prediction on byte dot products, as a share of what those could do.
#include "support/data.hpp"
#include "support/peak_int8.hpp"
#include <sofattn/core/tensor.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/dlzs/key_panels.hpp>
#include <sofattn/dlzs/operands.hpp>
#include <sofattn/dlzs/policy.hpp>
#include <sofattn/exec/int8_tile.hpp>

#include <benchmark/benchmark.h>

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

namespace sofattn::bench {
namespace {

/// 96 rows against all keys, tile of 256 keys by tile, six rows at a time.
void predict(benchmark::State& state, index_t keys, index_t dim) {
    generator random;
    auto const k = normal_tensor<axis::kv_head, axis::key, axis::dim>(random, {1, keys, dim});
    dlzs::key_panels const panels(
        dlzs::key_index<dlzs::rotated_int8>(k.cview().template slice<axis::kv_head>(0)));
    constexpr index_t rows = 96;
    constexpr index_t tile = 256;
    std::vector<std::int32_t> codes(static_cast<std::size_t>(rows * panels.steps()), 0x0102ff05);
    std::vector<std::int32_t> const starts(static_cast<std::size_t>(rows), 0);
    std::vector<std::int32_t> scores(static_cast<std::size_t>(exec::tile_rows * tile));
    auto const start = std::chrono::steady_clock::now();
    for (auto _ : state) {
        for (index_t first = 0; first < keys; first += tile) {
            for (index_t r = 0; r < rows; r += exec::tile_rows) {
                for (index_t p = 0; p * exec::tile_width < tile; ++p) {
                    index_t const key = first + p * exec::tile_width;
                    exec::int8_tile(exec::tile_rows,
                                    {codes.data() + r * panels.steps(), panels.steps(),
                                     starts.data() + r,
                                     exec::columns_of(panels.tile_from(key / exec::page_keys),
                                                      p % exec::page_tiles),
                                     scores.data() + p * exec::tile_width, tile, panels.steps()});
                }
                benchmark::DoNotOptimize(scores.data());
                benchmark::ClobberMemory();
            }
        }
    }
    std::chrono::duration<double> const time = std::chrono::steady_clock::now() - start;
    double const pairs = static_cast<double>(rows * keys) * static_cast<double>(state.iterations());
    double const ops = 2.0 * pairs * static_cast<double>(dim) / time.count();
    state.SetItemsProcessed(rows * keys * state.iterations());
    state.counters["gops"] = ops / 1e9;
    state.counters["of_peak"] = ops / peak_int8_ops(1);
}

[[maybe_unused]] bool const added = [] {
    for (index_t const dim : {64, 128}) {
        for (index_t const keys : {2048, 8192, 32768}) {
            add("dlzs/predict/simd/keys:" + std::to_string(keys) + "/dim:" + std::to_string(dim),
                [=](benchmark::State& state) { predict(state, keys, dim); })
                ->Unit(benchmark::kMillisecond);
        }
    }
    return true;
}();

} // namespace
} // namespace sofattn::bench
