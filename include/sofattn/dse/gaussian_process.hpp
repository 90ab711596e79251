// SPDX-License-Identifier: MIT
// Gaussian process: what is believed of a function at any point after some were observed.
#pragma once

#include <sofattn/core/assert.hpp>
#include <sofattn/dse/axis_rows.hpp>
#include <sofattn/dse/cholesky.hpp>
#include <sofattn/dse/elementary.hpp>
#include <sofattn/dse/kernel.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <span>
#include <utility>
#include <vector>

namespace sofattn::dse {

/// Belief at a point.
struct prediction {
    double mean = 0.0;
    double deviation = 0.0; ///< of the function, without noise
};

/// Observations of a function on the unit cube whose mean is 0 beforehand (Rasmussen and Williams
/// 2006, Algorithm 2.1). An observation more costs O(n^2), as does a prediction.
class gaussian_process {
public:
    explicit gaussian_process(kernel_parameters parameters)
        : kernel_(std::move(parameters)), rows_(kernel_.dimensions()) {}

    [[nodiscard]] kernel const& covariance() const noexcept { return kernel_; }
    [[nodiscard]] std::size_t size() const noexcept { return values_.size(); }
    [[nodiscard]] std::size_t dimensions() const noexcept { return kernel_.dimensions(); }

    /// Adds an observation at `place`. Where the factor would lose definiteness (points very close
    /// to each other, hardly any noise), this observation is taken for a noisier one.
    /// pre: place.size() == dimensions(), value is finite
    void add(std::span<double const> place, double value) {
        std::size_t const n = size();
        row_.resize(n + 1);
        covariances(place, std::span(row_).first(n));
        double extra = 0.0;
        row_[n] = kernel_.variance() + kernel_.noise();
        while (!factor_.append(row_)) {
            extra = extra == 0.0 ? 1e-10 * kernel_.variance() : 10.0 * extra;
            row_[n] = kernel_.variance() + kernel_.noise() + extra;
        }
        rows_.add(place);
        values_.push_back(value);
        is_solved_ = false;
    }

    /// pre: place.size() == dimensions()
    [[nodiscard]] double mean(std::span<double const> place) {
        solve();
        row_.resize(size());
        covariances(place, row_);
        return sum_of_products(row_, solution_);
    }
    /// pre: place.size() == dimensions()
    [[nodiscard]] prediction predict(std::span<double const> place) {
        double const believed = mean(place);
        return {believed, deviation_of_last()};
    }
    /// The deviation at the place of the last `mean`, for those who want the mean first; once.
    [[nodiscard]] double deviation_of_last() {
        factor_.solve_lower(row_);
        double const left = kernel_.variance() - sum_of_products(row_, row_);
        return std::sqrt(std::max(left, 1e-12 * kernel_.variance()));
    }

    /// log p(values | places, parameters).
    [[nodiscard]] double log_likelihood() {
        solve();
        double determinant = 0.0;
        for (std::size_t i = 0; i < size(); ++i) {
            determinant += logarithm(factor_(i, i));
        }
        return -0.5 * sum_of_products(values_, solution_) - determinant -
               static_cast<double>(size()) * detail::log_root_two_pi;
    }

    /// Of the log likelihood, by every parameter in the order of `packed`: 1/2 tr((a a^T - K^-1) dK)
    /// with a = K^-1 values (Eq. 5.9 there). O(n^3).
    [[nodiscard]] std::vector<double> log_likelihood_gradient() {
        solve();
        std::size_t const n = size();
        std::size_t const dims = dimensions();
        std::vector<double> gradient(dims + kernel_parameters::others, 0.0);
        double& by_joint = gradient[dims];
        double& by_additive = gradient[dims + 1];
        double& by_ratio = gradient[dims + 2];
        double& by_noise = gradient[dims + 3];

        // Pairs j < i count once, so twice their half. Row i of `sensitivity` holds (a a^T - K^-1),
        // of `joint` that times what turns a d log scale into a dk of the joint part.
        std::vector<double> sensitivity = factor_.inverse();
        std::vector<double> joint(n * n, 0.0);
        for (std::size_t i = 0; i < n; ++i) {
            double* const mine = &sensitivity[i * n];
            for (std::size_t j = 0; j <= i; ++j) {
                mine[j] = solution_[i] * solution_[j] - mine[j];
            }
            row_.assign(i, 0.0);
            for (std::size_t d = 0; d < dims; ++d) {
                auto const& r = rows_(kernel_, d, rows_.places(d)[i]);
                for (std::size_t j = 0; j < i; ++j) {
                    row_[j] += r.squared[j];
                }
            }
            for (std::size_t j = 0; j < i; ++j) {
                by_joint += mine[j] * kernel_.joint() * kernel::matern(row_[j]);
                joint[i * n + j] = mine[j] * kernel_.joint() * kernel::matern_slope(row_[j]);
            }
            double const own = 0.5 * mine[i];
            by_joint += own * kernel_.joint();
            by_additive += own * kernel_.additive();
            by_noise += own * kernel_.noise();
        }

        std::vector<double> joint_sum(n);
        std::vector<double> own_sum(n);
        std::vector<double> levels;
        for (std::size_t d = 0; d < dims; ++d) {
            auto const& places = rows_.places(d);
            levels = places;
            std::sort(levels.begin(), levels.end());
            levels.erase(std::unique(levels.begin(), levels.end()), levels.end());
            for (double const at : levels) {
                // Observations at one level have the same distances: their rows are added first.
                std::fill(joint_sum.begin(), joint_sum.end(), 0.0);
                std::fill(own_sum.begin(), own_sum.end(), 0.0);
                for (std::size_t i = 0; i < n; ++i) {
                    if (places[i] != at) {
                        continue;
                    }
                    for (std::size_t j = 0; j < i; ++j) {
                        joint_sum[j] += joint[i * n + j];
                        own_sum[j] += sensitivity[i * n + j];
                    }
                }
                auto const& r = rows_(kernel_, d, at);
                double const share = kernel_.additive() / static_cast<double>(dims);
                for (std::size_t j = 0; j < n; ++j) {
                    double const own_s2 = kernel_.own_squared_distance(d, places[j] - at);
                    double const slope = own_sum[j] * share * own_s2 * kernel::matern_slope(own_s2);
                    gradient[d] += joint_sum[j] * r.squared[j] + slope;
                    by_additive += own_sum[j] * r.own[j];
                    by_ratio += slope;
                }
            }
        }
        return gradient;
    }

private:
    /// With the observations so far. pre: out.size() == size()
    void covariances(std::span<double const> place, std::span<double> out) {
        SOFATTN_DASSERT(place.size() == dimensions());
        std::fill(out.begin(), out.end(), 0.0);
        own_parts_.assign(out.size(), 0.0);
        for (std::size_t d = 0; d < dimensions(); ++d) {
            auto const& r = rows_(kernel_, d, place[d]);
            for (std::size_t j = 0; j < out.size(); ++j) {
                out[j] += r.squared[j];
                own_parts_[j] += r.own[j];
            }
        }
        for (std::size_t j = 0; j < out.size(); ++j) {
            out[j] = kernel_.joint() * kernel::matern(out[j]) + own_parts_[j];
        }
    }
    /// Four partial sums: one would wait for every addition.
    [[nodiscard]] static double sum_of_products(std::span<double const> a,
                                                std::span<double const> b) noexcept {
        double sums[4] = {0.0, 0.0, 0.0, 0.0};
        std::size_t const whole = a.size() / 4 * 4;
        for (std::size_t i = 0; i < whole; i += 4) {
            for (std::size_t s = 0; s < 4; ++s) {
                sums[s] += a[i + s] * b[i + s];
            }
        }
        for (std::size_t i = whole; i < a.size(); ++i) {
            sums[0] += a[i] * b[i];
        }
        return (sums[0] + sums[1]) + (sums[2] + sums[3]);
    }
    void solve() {
        if (!is_solved_) {
            solution_ = values_;
            factor_.solve_lower(solution_);
            factor_.solve_upper(solution_);
            is_solved_ = true;
        }
    }

    kernel kernel_;
    axis_rows rows_;
    std::vector<double> values_;
    std::vector<double> solution_; ///< K^-1 values
    bool is_solved_ = false;
    cholesky factor_;
    std::vector<double> row_;
    std::vector<double> own_parts_;
};

} // namespace sofattn::dse
