// SPDX-License-Identifier: MIT
// What a sum of softmax weights can be where their logits are known up to an error.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

namespace sofattn::detail {

/// Softmax weights of some keys whose logits are known up to x, relative to a common reference.
struct uncertain_weights {
    double count = 0;
    double weight = 0;   ///< sum of w = exp(predicted logit - reference)
    double squares = 0;  ///< sum of w^2
    double heaviest = 0; ///< largest w
    double most = 0;     ///< sum of w exp(bound of x)
    double least = 0;    ///< sum of w exp(-bound of x)
    double widest = 0;   ///< largest bound of x

    /// `below`: predicted logit less the reference.
    void add(double below, double bound) noexcept {
        double const w = std::exp(below);
        count += 1;
        weight += w;
        squares += w * w;
        heaviest = std::max(heaviest, w);
        most += std::exp(below + bound);
        least += std::exp(below - bound);
        widest = std::max(widest, bound);
    }
    void rescale(double factor) noexcept {
        weight *= factor;
        squares *= factor * factor;
        heaviest *= factor;
        most *= factor;
        least *= factor;
    }

    /// Bounds of the sum of w exp(x), where the root of the sum of x^2 is at most `root_sum`: by
    /// 1 + x <= exp(x) <= 1 + x + g x^2 up to the widest x, and Cauchy-Schwarz over the keys; or
    /// key by key, where that is closer.
    [[nodiscard]] double upper(double root_sum) const noexcept {
        // A weight below the least double, or its square, may have counted for nothing.
        double const g = widest < 1e-3 ? 0.5005 : (std::expm1(widest) - widest) / (widest * widest);
        double const lost = count * std::numeric_limits<double>::min() * std::exp(widest);
        double const by_moments =
            weight + norm() * root_sum + g * heaviest * root_sum * root_sum + lost;
        double const sum = (by_moments < most ? by_moments : most + lost) * safe;
        return sum >= 0 ? sum : std::numeric_limits<double>::infinity(); // no number: no bound
    }
    [[nodiscard]] double lower(double root_sum) const noexcept {
        double const by_moments = weight - norm() * root_sum;
        double const sum = by_moments > least ? by_moments : least;
        return sum > 0 ? sum / safe : 0.0;
    }

    static constexpr double safe = 1.0 + 1e-9; ///< for the rounding of these sums

private:
    /// At least the root of the sum of squares.
    [[nodiscard]] double norm() const noexcept {
        return std::sqrt(squares + count * std::numeric_limits<double>::min());
    }
};

} // namespace sofattn::detail
