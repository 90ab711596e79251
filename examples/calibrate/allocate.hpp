// SPDX-License-Identifier: MIT
// Which budget each head gets, when a total is given.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <vector>

namespace sofattn::calibrate {

/// One setting of one head, measured.
struct measured {
    double setting = 0;
    double kept_share = 0;
    double error = 0;
};

/// What is to be reached on average over the heads; one of the two is given.
struct target {
    std::optional<double> kept_share; ///< least error with at most this
    std::optional<double> error;      ///< fewest keys with at most this
};

struct allocation {
    std::vector<std::size_t> choice; ///< [head], index of the setting
    double kept_share = 0;           ///< mean over heads
    double error = 0;                ///< mean over heads
};

/// Every head trades error for keys at the same price, which is what a Lagrange multiplier says of
/// the best sum: each takes the setting with the least error + price * kept share, and the price is
/// searched. Nothing if no price reaches the target. heads[head][setting], at least one of each.
[[nodiscard]] std::optional<allocation> allocate(std::span<std::vector<measured> const> heads,
                                                 target const& wanted);

} // namespace sofattn::calibrate
