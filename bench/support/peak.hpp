// SPDX-License-Identifier: MIT
// What the machine can do at best: the yardstick of kernels, measured in their process.
#pragma once

#include <sofattn/core/bfloat16.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/exec/bf16_dot.hpp>
#include <sofattn/exec/parallel.hpp>
#include <sofattn/exec/tile_product.hpp>
#include <sofattn/exec/xsimd_lanes.hpp>

#include <benchmark/benchmark.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <vector>

namespace sofattn::bench {

namespace detail {

/// Operations per second of all threads together on chains x = step(x) that never leave the
/// registers: 20 of them, enough for any latency. Best of three.
template <class Step>
double peak(index_t threads, double operations, Step step) {
    constexpr std::size_t chains = 20;
    constexpr int steps = 400000;
    double best = 0;
    for (int repeat = 0; repeat < 3; ++repeat) {
        auto const start = std::chrono::steady_clock::now();
        exec::openmp const run(threads);
        run(threads, [step](index_t, index_t) {
            auto const next = step; // on this thread's stack, so in registers
            std::array<exec::vector_float, chains> x;
            x.fill(exec::vector_float(1.0f));
            for (int i = 0; i < steps; ++i) {
                exec::detail::unrolled<static_cast<int>(chains)>([&](
                    auto c) __attribute__((always_inline)) { x[c] = next(x[c]); });
            }
            benchmark::DoNotOptimize(x);
        });
        std::chrono::duration<double> const time = std::chrono::steady_clock::now() - start;
        best = std::max(best, operations * static_cast<double>(chains) * steps *
                                  static_cast<double>(exec::vector_width * threads) / time.count());
    }
    return best;
}

} // namespace detail

/// float operations per second on multiply-adds.
[[nodiscard]] inline double peak_flops(index_t threads) {
    exec::vector_float a(0.999f);
    exec::vector_float b(0.001f);
    benchmark::DoNotOptimize(a);
    benchmark::DoNotOptimize(b);
    return detail::peak(threads, 2.0,
                        [a, b](exec::vector_float x) { return exec::multiply_add(x, a, b); });
}

/// The same on dot products of bf16 pairs; of floats where the target has none.
[[nodiscard]] inline double peak_bf16_flops(index_t threads) {
#ifdef __AVX512BF16__
    exec::bf16_pair a{bfloat16(0.5f), bfloat16(0.25f)};
    exec::bf16_pair b{bfloat16(0.125f), bfloat16(1.0f)};
    benchmark::DoNotOptimize(a);
    benchmark::DoNotOptimize(b);
    return detail::peak(threads, 4.0,
                        [a = exec::repeated(a), b = exec::repeated(b)](exec::vector_float x) {
                            return exec::multiply_add(a, b, x);
                        });
#else
    return peak_flops(threads);
#endif
}

/// Bytes per second that all threads together read from memory, each its pieces in order: eight
/// streams of registers within a piece cost nothing. 512 MiB, far more than any last cache.
/// Best of three.
[[nodiscard]] inline double read_bandwidth(index_t threads) {
    constexpr index_t floats = index_t{1} << 27;
    constexpr index_t pieces = 256;
    constexpr index_t registers = 8;
    static std::vector<float> const memory(static_cast<std::size_t>(floats), 1.0f);
    double best = 0;
    for (int repeat = 0; repeat < 3; ++repeat) {
        auto const start = std::chrono::steady_clock::now();
        exec::openmp const run(threads);
        run(pieces, [](index_t piece, index_t) {
            std::array<exec::vector_float, registers> sum;
            sum.fill(exec::vector_float(0.0f));
            float const* const from = memory.data() + piece * (floats / pieces);
            for (index_t at = 0; at < floats / pieces; at += registers * exec::vector_width) {
                exec::detail::unrolled<static_cast<int>(registers)>([&](auto i) {
                    sum[i] = sum[i] + exec::load(from + at + i * exec::vector_width);
                });
            }
            benchmark::DoNotOptimize(sum);
        });
        std::chrono::duration<double> const time = std::chrono::steady_clock::now() - start;
        best = std::max(best, sizeof(float) * static_cast<double>(floats) / time.count());
    }
    return best;
}

} // namespace sofattn::bench
