// SPDX-License-Identifier: MIT
// What byte dot products can do at best, measured in the process of those who ask.
#pragma once

#include <sofattn/core/types.hpp>
#include <sofattn/exec/int8_dot.hpp>
#include <sofattn/exec/parallel.hpp>
#include <sofattn/exec/tile_product.hpp>

#include <benchmark/benchmark.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>

namespace sofattn::bench {

/// Multiplies and adds of bytes per second (two per product) of all threads together, on sums that
/// never leave the registers. Best of three.
[[nodiscard]] inline double peak_int8_ops(index_t threads) {
    constexpr int chains = 16;
    constexpr int steps = 400000;
    double best = 0;
    for (int repeat = 0; repeat < 3; ++repeat) {
        auto const start = std::chrono::steady_clock::now();
        exec::openmp const run(threads);
        run(threads, [](index_t, index_t) {
            alignas(64) std::array<std::uint8_t, static_cast<std::size_t>(exec::vector_bytes)>
                panel;
            panel.fill(exec::panel_byte(3));
            std::int32_t four = 0x01020304;
            benchmark::DoNotOptimize(four);
            std::array<exec::vector_int32, chains> sum;
            sum.fill(exec::vector_int32(0));
            std::uint8_t const* const codes = panel.data();
            for (int i = 0; i < steps; ++i) {
                exec::detail::unrolled<chains>([&](auto c) __attribute__((always_inline)) {
                    sum[c] = exec::dot(sum[c], codes, four);
                });
            }
            exec::vector_int32 all(0);
            exec::detail::unrolled<chains>([&](auto c) { all = all + sum[c]; });
            std::array<std::int32_t, static_cast<std::size_t>(exec::vector_width)> lanes;
            all.store_unaligned(lanes.data());
            benchmark::DoNotOptimize(lanes);
        });
        std::chrono::duration<double> const time = std::chrono::steady_clock::now() - start;
        best = std::max(best, 2.0 * chains * steps *
                                  static_cast<double>(exec::vector_bytes * threads) / time.count());
    }
    return best;
}

} // namespace sofattn::bench
