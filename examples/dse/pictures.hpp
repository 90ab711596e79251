// SPDX-License-Identifier: MIT
// How searches converge, as figures.
#pragma once

#include "dse/arguments.hpp"
#include <sofattn/io/figure.hpp>

#include <functional>
#include <string>
#include <utility>
#include <vector>

namespace sofattn::dse {

/// The best value after 1, 2, ... evaluations; infinity before there is one.
struct named_curve {
    std::string name;
    std::vector<double> best;
};

/// Lines through the improvements. `shown` turns an objective into what the axis is of: positive.
[[nodiscard]] io::figure draw_convergence(std::string const& title, std::string const& y_name,
                                          std::vector<named_curve> const& curves,
                                          std::function<double(double)> const& shown);
[[nodiscard]] std::vector<named_curve> curves_of(std::vector<method_run> const& runs);

/// Pareto fronts over two objectives; values that `shown` gives.
[[nodiscard]] io::figure
draw_fronts(std::string const& title, std::pair<std::string, std::string> const& names,
            std::vector<method_run> const& runs,
            std::function<double(std::size_t objective, double)> const& shown);

} // namespace sofattn::dse
