// SPDX-License-Identifier: MIT
// Several objectives as one: the augmented Chebyshev norm with random weights.
#pragma once

#include <sofattn/dse/random.hpp>
#include <sofattn/dse/trial.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

namespace sofattn::dse {

/// Weights drawn anew for every point, so that points spread over the Pareto front, its concave parts
/// included (ParEGO: Knowles 2006). One objective stays what it is. Not in the paper, which weighs
/// its three terms by hand.
class scalarisation {
public:
    /// Share of the plain weighted sum: makes weakly dominated points lose.
    static constexpr double augmentation = 0.05;

    /// Ranges of the objectives over `trials` that are done; weights of stream `draw`, uniform over
    /// the simplex.
    scalarisation(std::span<trial const> trials, std::size_t objectives, std::uint64_t seed,
                  std::uint64_t draw)
        : ranges_(objectives, {0.0, 1.0}), weights_(objectives, 1.0) {
        if (objectives == 1) {
            return;
        }
        for (std::size_t j = 0; j < objectives; ++j) {
            bool first = true;
            for (trial const& t : trials) {
                if (t.is_done()) {
                    double const f = t.result.objectives[j];
                    ranges_[j] = first ? std::pair(f, f)
                                       : std::pair(std::min(ranges_[j].first, f),
                                                   std::max(ranges_[j].second, f));
                    first = false;
                }
            }
        }
        random_stream random(seed, draw);
        double sum = 0.0;
        for (double& w : weights_) {
            w = random.exponential();
            sum += w;
        }
        for (double& w : weights_) {
            w /= sum;
        }
    }

    [[nodiscard]] double operator()(std::span<double const> objectives) const noexcept {
        if (weights_.size() == 1) {
            return objectives[0];
        }
        double most = 0.0;
        double sum = 0.0;
        for (std::size_t j = 0; j < weights_.size(); ++j) {
            auto const [low, high] = ranges_[j];
            double const share = high > low ? (objectives[j] - low) / (high - low) : 0.0;
            most = std::max(most, weights_[j] * share);
            sum += weights_[j] * share;
        }
        return most + augmentation * sum;
    }

    [[nodiscard]] std::vector<double> const& weights() const noexcept { return weights_; }

private:
    std::vector<std::pair<double, double>> ranges_; ///< [objective], least and most seen
    std::vector<double> weights_;
};

} // namespace sofattn::dse
