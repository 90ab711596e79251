// SPDX-License-Identifier: MIT
// Time as an objective: that of one thing as a share of another's, measured in turns.
#pragma once

#include <sofattn/core/error.hpp>
#include <sofattn/core/types.hpp>

#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <limits>
#include <string>
#include <vector>

namespace sofattn::dse {

/// How much longer a candidate takes than its baseline: below 1 where it is faster.
struct time_ratio {
    double median = 1; ///< of candidate / baseline, over pairs of runs
    /// The true median lies between with the confidence asked for, whatever the distribution of noise;
    /// 0 and infinity where the pairs are too few to say.
    double lowest = 0;
    double highest = std::numeric_limits<double>::infinity();
    index_t pairs = 0;

    [[nodiscard]] bool is_surely_less() const noexcept { return highest < 1.0; }
};

/// Of ratios in any order: the median, and the order statistics around it that hold the true one with at
/// least this confidence (the sign test's interval: David and Nagaraja, Order Statistics, 7.1).
/// pre: not empty, 0 < confidence < 1
[[nodiscard]] inline time_ratio median_ratio(std::vector<double> ratios, double confidence) {
    std::sort(ratios.begin(), ratios.end());
    std::size_t const n = ratios.size();
    time_ratio result;
    result.pairs = static_cast<index_t>(n);
    result.median = n % 2 != 0 ? ratios[n / 2] : (ratios[n / 2 - 1] + ratios[n / 2]) / 2;
    // How many of n fair coins fall heads: fewer than k with probability `tail`.
    double term = std::pow(0.5, static_cast<double>(n));
    double tail = 0;
    std::size_t k = 0;
    for (; 2 * k < n && 2 * (tail + term) <= 1 - confidence; ++k) {
        tail += term;
        term *= static_cast<double>(n - k) / static_cast<double>(k + 1);
    }
    if (k > 0) {
        result.lowest = ratios[k - 1];
        result.highest = ratios[n - k];
    }
    return result;
}

struct interleaving {
    index_t least_pairs = 6; ///< as many give an interval of 95 %
    index_t most_pairs = 6;  ///< more where the interval still holds 1
    double confidence = 0.95;
};

/// Runs baseline and candidate in turns, each first in every other pair: what slows the machine down for
/// a while slows both, and what wears off between the two of a pair cancels. One pair is run before, for
/// caches and clocks.
///
/// in     candidate, baseline  the work; called with nothing
///        seconds              a clock, best one of this thread's processor time
/// error  a baseline that takes no time by that clock (what, value, limit)
/// paper  not in the paper, whose objective counts operations
template <std::invocable Candidate, std::invocable Baseline, std::invocable Clock>
[[nodiscard]] time_ratio interleaved_ratio(Candidate const& candidate, Baseline const& baseline,
                                           Clock const& seconds, interleaving const& how = {}) {
    auto const time_of = [&](auto const& work) {
        double const start = seconds();
        work();
        return seconds() - start;
    };
    static_cast<void>(time_of(baseline));
    static_cast<void>(time_of(candidate));
    std::vector<double> ratios;
    time_ratio result;
    do {
        bool const baseline_first = ratios.size() % 2 == 0;
        double const before = baseline_first ? time_of(baseline) : time_of(candidate);
        double const after = baseline_first ? time_of(candidate) : time_of(baseline);
        double const base = baseline_first ? before : after;
        if (!(base > 0)) {
            throw error("interleaved_ratio: seconds of the baseline", std::to_string(base),
                        "above 0: more work, or a finer clock");
        }
        ratios.push_back((baseline_first ? after : before) / base);
        result = median_ratio(ratios, how.confidence);
    } while (result.pairs < how.least_pairs ||
             (result.pairs < how.most_pairs && result.lowest <= 1.0 && result.highest >= 1.0));
    return result;
}

} // namespace sofattn::dse
