// SPDX-License-Identifier: MIT
// Times of work that alternates with other work in one loop of a benchmark.
#pragma once

#include <algorithm>
#include <chrono>
#include <iterator>
#include <vector>

namespace sofattn::bench {

template <class Work>
[[nodiscard]] double seconds_of(Work&& work) {
    auto const start = std::chrono::steady_clock::now();
    work();
    std::chrono::duration<double> const time = std::chrono::steady_clock::now() - start;
    return time.count();
}

/// The upper one of an even number of values, which are at least one.
[[nodiscard]] inline double median(std::vector<double> values) {
    auto const middle = values.begin() + std::ssize(values) / 2;
    std::nth_element(values.begin(), middle, values.end());
    return *middle;
}

} // namespace sofattn::bench
