// SPDX-License-Identifier: MIT
// What the machine can do at best: the yardstick of kernels, measured in their process.
#pragma once

#include <sofattn/core/types.hpp>
#include <sofattn/exec/parallel.hpp>
#include <sofattn/exec/tile_product.hpp>
#include <sofattn/exec/xsimd_lanes.hpp>

#include <benchmark/benchmark.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>

namespace sofattn::bench {

/// float operations per second of all threads together on multiply-adds that never leave the
/// registers: 20 chains, enough for any latency. Best of three.
[[nodiscard]] inline double peak_flops(index_t threads) {
    constexpr std::size_t chains = 20;
    constexpr int steps = 400000;
    double best = 0;
    for (int repeat = 0; repeat < 3; ++repeat) {
        auto const start = std::chrono::steady_clock::now();
        exec::openmp const run(threads);
        run(threads, [](index_t, index_t) {
            std::array<exec::vector_float, chains> x;
            x.fill(exec::vector_float(1.0f));
            exec::vector_float a(0.999f);
            exec::vector_float b(0.001f);
            benchmark::DoNotOptimize(a);
            benchmark::DoNotOptimize(b);
            for (int i = 0; i < steps; ++i) {
                exec::detail::unrolled<static_cast<int>(chains)>(
                    [&](auto c) { x[c] = exec::multiply_add(x[c], a, b); });
            }
            benchmark::DoNotOptimize(x);
        });
        std::chrono::duration<double> const time = std::chrono::steady_clock::now() - start;
        double const flops = 2.0 * static_cast<double>(chains) * steps *
                             static_cast<double>(exec::vector_width * threads) / time.count();
        best = std::max(best, flops);
    }
    return best;
}

} // namespace sofattn::bench
