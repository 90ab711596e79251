// SPDX-License-Identifier: MIT
// What all benchmarks share: seeded data, and registration under names that are known at run time.
#pragma once

#include <sofattn/core/tensor.hpp>
#include <sofattn/core/types.hpp>

#include <benchmark/benchmark.h>

#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numbers>
#include <string>
#include <tuple>

namespace sofattn::bench {

/// splitmix64 from a fixed state: the same data in every run and with every standard library.
class generator {
public:
    /// In [0, 1).
    [[nodiscard]] double uniform() noexcept {
        std::uint64_t z = (state_ += 0x9e3779b97f4a7c15u);
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
        return static_cast<double>((z ^ (z >> 31)) >> 11) * 0x1p-53;
    }
    [[nodiscard]] double normal() noexcept { // Box-Muller
        double const radius = std::sqrt(-2.0 * std::log(1.0 - uniform()));
        return radius * std::cos(2.0 * std::numbers::pi * uniform());
    }

private:
    std::uint64_t state_ = 20240817;
};

/// Standard normal; the rows of the last axis follow each other.
template <class... Axes>
[[nodiscard]] tensor<float, Axes...> normal_tensor(generator& random,
                                                   std::array<index_t, sizeof...(Axes)> extents) {
    tensor<float, Axes...> result(extents);
    auto const rows = result.view();
    std::array<index_t, sizeof...(Axes)> at{};
    for (index_t n = 0; n < rows.size(); ++n) {
        std::apply(rows, at) = static_cast<float>(random.normal());
        for (std::size_t a = sizeof...(Axes); a-- > 0 && ++at[a] == extents[a];) {
            at[a] = 0;
        }
    }
    return result;
}

/// Registers `run` as folder/stage/executor/param:value.
template <class Run>
benchmark::internal::Benchmark* add(std::string const& name, Run run) {
    return benchmark::RegisterBenchmark(name.c_str(), run);
}

} // namespace sofattn::bench
