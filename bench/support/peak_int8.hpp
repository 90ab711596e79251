// SPDX-License-Identifier: MIT
// What byte dot products can do at best, measured in the process of those who ask.
#pragma once

#include "support/peak.hpp"
#include <sofattn/core/types.hpp>
#include <sofattn/exec/int8_dot.hpp>
#include <sofattn/exec/tile_product.hpp>
#include <sofattn/exec/xsimd_lanes.hpp>

#include <benchmark/benchmark.h>

#include <array>
#include <cstddef>
#include <cstdint>

namespace sofattn::bench {

/// Multiplies and adds of bytes per second, two per product, on sums that never leave the registers;
/// the panel comes from the first cache, as in every kernel.
[[nodiscard]] inline double peak_int8_ops(index_t threads) {
    alignas(64) std::array<std::uint8_t, static_cast<std::size_t>(exec::vector_bytes)> panel;
    panel.fill(exec::panel_byte(3));
    std::int32_t four = 0x01020304;
    benchmark::DoNotOptimize(four);
    constexpr int rounds = 8; // GCC 12 copies all sums once per step
    return detail::peak(threads, 2.0 * exec::dot_depth * rounds,
                        [codes = panel.data(), four](exec::vector_float x) {
                            // The bits are the sums'; nothing reads them as floats.
                            auto sum = xsimd::bitwise_cast<exec::vector_int32>(x);
                            exec::detail::unrolled<rounds>([&](auto) __attribute__((
                                always_inline)) { sum = exec::dot(sum, codes, four); });
                            return xsimd::bitwise_cast<exec::vector_float>(sum);
                        });
}

} // namespace sofattn::bench
