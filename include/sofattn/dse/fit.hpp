// SPDX-License-Identifier: MIT
// Kernel parameters from observations: log marginal likelihood with priors, climbed by Rprop.
#pragma once

#include <sofattn/dse/elementary.hpp>
#include <sofattn/dse/gaussian_process.hpp>
#include <sofattn/dse/kernel.hpp>

#include <algorithm>
#include <cstddef>
#include <limits>
#include <numbers>
#include <span>
#include <vector>

namespace sofattn::dse {

/// A value observed at a place of the unit cube.
struct observation {
    std::vector<double> place{};
    double value = 0.0;
};

/// Normal distribution of the logarithm of a parameter.
struct log_prior {
    double mean = 0.0;
    double deviation = 1.0;
};

/// Priors of a kernel's parameters, for values of variance 1. The scales' grows with the root of the
/// number of dimensions, since distances do (Hvarfner, Hellsten, Nardi 2024, "Vanilla Bayesian
/// optimization performs great in high dimensions"; their deviation of sqrt(3) lets some scales of
/// 13 grow without cause while there are 20 observations).
struct kernel_prior {
    log_prior scale{std::numbers::sqrt2, 1.0}; ///< for one dimension
    log_prior joint{-1.0, 1.0};
    log_prior additive{0.0, 1.0};
    log_prior ratio{-1.0, 1.0};
    log_prior noise{-9.0, 2.0}; ///< objectives are deterministic; what no kernel explains is noise

    /// Of all parameters in the order of `packed`.
    [[nodiscard]] std::vector<log_prior> packed(std::size_t dimensions) const {
        log_prior const own{scale.mean + 0.5 * logarithm(static_cast<double>(dimensions)),
                            scale.deviation};
        std::vector<log_prior> all(dimensions, own);
        all.insert(all.end(), {joint, additive, ratio, noise});
        return all;
    }
};

struct fit_options {
    kernel_prior prior{};
    int steps = 25; ///< gradients taken, each O(n^3); 80 change the likelihood by less than 1
};

/// Parameters near the largest posterior density, from the priors' means: they depend on the
/// observations (and their order) only, so that a resumed search finds the same ones. Rprop
/// (Riedmiller 1994) steps by the signs of the gradient, which no scale of a likelihood can spoil.
/// pre: all places have the same number of dimensions, at least one observation
[[nodiscard]] inline kernel_parameters fit_kernel(std::span<observation const> of,
                                                  fit_options const& options = {}) {
    constexpr double farthest = 16.0; // e^16 is flat, e^-16 below the rounding of a factor
    std::vector<log_prior> const priors = options.prior.packed(of.front().place.size());
    std::vector<double> logs(priors.size());
    std::transform(priors.begin(), priors.end(), logs.begin(),
                   [](log_prior const& p) { return p.mean; });
    std::vector<double> best = logs;
    double best_value = -std::numeric_limits<double>::infinity();
    std::vector<double> steps(logs.size(), 0.4);
    std::vector<double> before(logs.size(), 0.0);
    for (int step = 0; step < options.steps; ++step) {
        gaussian_process process(kernel_parameters::unpacked(logs));
        for (observation const& one : of) {
            process.add(one.place, one.value);
        }
        double value = process.log_likelihood();
        std::vector<double> gradient = process.log_likelihood_gradient();
        for (std::size_t p = 0; p < logs.size(); ++p) {
            double const away = (logs[p] - priors[p].mean) / priors[p].deviation;
            value -= 0.5 * away * away;
            gradient[p] -= away / priors[p].deviation;
        }
        if (value > best_value) {
            best_value = value;
            best = logs;
        }
        for (std::size_t p = 0; p < logs.size(); ++p) {
            double const turn = gradient[p] * before[p];
            if (turn < 0.0) { // over the top: half the step, and wait
                steps[p] *= 0.5;
                before[p] = 0.0;
                continue;
            }
            if (turn > 0.0) {
                steps[p] = std::min(1.2 * steps[p], 1.5);
            }
            before[p] = gradient[p];
            double const move = gradient[p] > 0.0 ? steps[p] : gradient[p] < 0.0 ? -steps[p] : 0.0;
            logs[p] = std::clamp(logs[p] + move, -farthest, farthest);
        }
    }
    return kernel_parameters::unpacked(best);
}

} // namespace sofattn::dse
