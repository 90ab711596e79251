// SPDX-License-Identifier: MIT
// How much a row may drop: a share of its softmax mass, or so much that the output errs by epsilon.
#pragma once

#include <sofattn/sads/softmax_weight.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace sofattn::sads {

/// What an adaptive budget limits.
enum class drop_measure {
    nothing, ///< no adaptive budget: nothing is dropped for its weight
    mass,    ///< sum of the dropped weights
    error    ///< root of the sum of their squares
};

/// Drops the worst keys while their cost stays within an allowance that grows with the row's mass.
///
/// mass:  cost w, allowance (1 - p) L: the kept keys hold at least p of the estimated mass L.
/// error: cost w^2, allowance (e L)^2. Where a compensation (sufa::tail) gives the dropped mass to
///        the mean of the dropped values, the output errs by the sum of w (v - mean) / L. Taking
///        the deviations of values as independent of the weights, its root mean square is
///        sqrt(sum w^2) / L spreads, where a spread is the rms distance of values from their mean.
///        So e is the error in spreads. A diffuse row has many weights but a small sum of squares,
///        and may drop far more than its mass says.
struct drop_rule {
    drop_measure measure = drop_measure::nothing;
    weight_scale weights{};
    std::uint64_t mass_share = 0; ///< droppable, 2^-32
    double error = 0;             ///< in spreads of the values

    /// p in (0, 1].
    [[nodiscard]] static drop_rule of_mass(double kept, weight_scale weights) noexcept {
        drop_rule rule;
        rule.measure = drop_measure::mass;
        rule.weights = weights;
        rule.mass_share = static_cast<std::uint64_t>(std::floor((1.0 - kept) * 0x1p32));
        return rule;
    }
    [[nodiscard]] static drop_rule of_error(double spreads, weight_scale weights) noexcept {
        drop_rule rule;
        rule.measure = drop_measure::error;
        rule.weights = weights;
        rule.error = spreads;
        return rule;
    }

    /// Cost of dropping, in units of 2^-30 of the best key's.
    template <class Score>
    [[nodiscard]] constexpr std::uint64_t cost(Score top, Score score) const noexcept {
        return cost_at(weights.distance(top, score));
    }
    /// The same of a key so many steps from the top.
    [[nodiscard]] constexpr std::uint64_t cost_at(std::int32_t away) const noexcept {
        return measure == drop_measure::error ? weight_scale::squared_at(away)
                                              : weight_scale::weight_at(away);
    }
    /// What may be dropped in all of a row whose weights sum to `mass`.
    [[nodiscard]] std::uint64_t allowance(std::uint64_t mass) const noexcept {
        switch (measure) {
        case drop_measure::mass: return scaled_down<32>(mass, mass_share);
        case drop_measure::error: {
            double const most = error * static_cast<double>(mass);
            return static_cast<std::uint64_t>(
                std::min(most * most / static_cast<double>(weight_scale::unit), 0x1p62));
        }
        case drop_measure::nothing: break;
        }
        return 0;
    }
};

} // namespace sofattn::sads
