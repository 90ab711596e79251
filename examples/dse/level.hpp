// SPDX-License-Identifier: MIT
// Where a growing quantity that takes seconds to measure reaches a level.
#pragma once

#include <algorithm>
#include <cmath>
#include <concepts>
#include <optional>

namespace sofattn::dse {

/// What is looked for, and where.
struct level {
    double most = 1;         ///< the quantity may be as large as this
    double tolerance = 0.01; ///< and should be larger than most * (1 - tolerance)
    double first = 0;        ///< where to begin
    double least_at = -1e9;  ///< ends of the range
    double most_at = 1e9;
    double slope = 1; ///< of the quantity's logarithm, as a first guess; positive
};

/// A place whose quantity is at most `most`: close below it, or else the best of 20 that were tried.
/// Nothing where even `least_at` has more. `quantity` is not negative and grows (or nearly so) as a
/// power of what `x` is the logarithm of, which is why secants are drawn through logarithms. Few
/// evaluations, and the same ones each time.
template <std::invocable<double> F>
[[nodiscard]] std::optional<double> find_level(F const& quantity, level const& wanted) {
    struct place {
        double x;
        double log_value;
    };
    double const aim = std::log(wanted.most * (1 - wanted.tolerance / 2));
    std::optional<place> below;
    std::optional<place> above;
    std::optional<place> last;
    double slope = wanted.slope;
    double x = std::clamp(wanted.first, wanted.least_at, wanted.most_at);
    for (int tries = 0; tries < 20; ++tries) {
        double const value = quantity(x);
        place const here{x, std::log(std::max(value, 1e-300))};
        if (value <= wanted.most) {
            if (!below || x > below->x) {
                below = here;
            }
            if (value > wanted.most * (1 - wanted.tolerance) || x >= wanted.most_at) {
                return x;
            }
        } else {
            if (!above || x < above->x) {
                above = here;
            }
            if (x <= wanted.least_at) {
                return std::nullopt;
            }
        }
        if (below && above) {
            double const width = above->x - below->x;
            if (width < 1e-6) { // a step of the quantity lies between
                break;
            }
            double const share =
                (aim - below->log_value) / std::max(above->log_value - below->log_value, 1e-12);
            // A quantity that is no power: never the same end again and again.
            x = below->x + width * std::clamp(share, 0.05, 0.95);
        } else {
            if (last && std::abs(x - last->x) > 1e-9) { // what the curve does here
                slope = std::clamp((here.log_value - last->log_value) / (x - last->x),
                                   wanted.slope / 8, wanted.slope * 8);
            }
            // A bit beyond, so that the next one lies on the other side; a factor of 7 at most.
            double const step = std::clamp(1.1 * (aim - here.log_value) / slope, -2.0, 2.0);
            x = std::clamp(x + step, wanted.least_at, wanted.most_at);
        }
        last = here;
    }
    return below ? std::optional(below->x) : std::nullopt;
}

} // namespace sofattn::dse
