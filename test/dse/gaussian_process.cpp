// SPDX-License-Identifier: MIT
#include "support/generators.hpp"
#include <sofattn/dse/fit.hpp>
#include <sofattn/dse/gaussian_process.hpp>

#include <doctest/doctest.h>

#include <cmath>
#include <cstddef>
#include <numbers>
#include <span>
#include <vector>

namespace {

using namespace sofattn;
using namespace sofattn::dse;

struct data {
    std::vector<std::vector<double>> places;
    std::vector<double> values;
};

/// Places on a grid of `levels`, so that levels repeat, or anywhere for 0.
data some_data(test::generator& random, std::size_t dims, std::size_t count, int levels) {
    data all;
    for (std::size_t i = 0; i < count; ++i) {
        std::vector<double> place(dims);
        for (double& x : place) {
            x = levels == 0 ? random.uniform(0.0, 1.0)
                            : static_cast<double>(random.integer(0, levels - 1)) / (levels - 1);
        }
        all.places.push_back(place);
        all.values.push_back(random.normal());
    }
    return all;
}

kernel_parameters random_parameters(test::generator& random, std::size_t dims) {
    kernel_parameters p;
    for (std::size_t d = 0; d < dims; ++d) {
        p.log_scales.push_back(random.uniform(-1.0, 1.5));
    }
    p.log_joint = random.uniform(-1.0, 1.0);
    p.log_additive = random.uniform(-1.0, 1.0);
    p.log_ratio = random.uniform(-1.0, 0.5);
    p.log_noise = random.uniform(-5.0, -1.0);
    return p;
}

gaussian_process process_of(data const& all, kernel_parameters const& p) {
    gaussian_process process(p);
    for (std::size_t i = 0; i < all.values.size(); ++i) {
        process.add(all.places[i], all.values[i]);
    }
    return process;
}

/// The textbook: the kernel in long double with the C library's functions, Gaussian elimination.
struct oracle {
    kernel_parameters p;
    data of;
    std::vector<std::vector<long double>> inverse;
    long double log_determinant = 0.0L;

    long double covariance(std::vector<double> const& a, std::vector<double> const& b) const {
        auto const matern = [](long double s2) {
            long double const s = std::sqrt(s2);
            return (1.0L + s + s2 / 3.0L) * std::exp(-s);
        };
        long double joint = 0.0L;
        long double own = 0.0L;
        for (std::size_t d = 0; d < a.size(); ++d) {
            long double const scale = std::exp(static_cast<long double>(p.log_scales[d]));
            long double const away = (static_cast<long double>(a[d]) - b[d]) / scale;
            long double const ratio = std::exp(static_cast<long double>(p.log_ratio));
            joint += 5.0L * away * away;
            own += matern(5.0L * away * away / (ratio * ratio));
        }
        return std::exp(static_cast<long double>(p.log_joint)) * matern(joint) +
               std::exp(static_cast<long double>(p.log_additive)) * own /
                   static_cast<long double>(a.size());
    }
    oracle(data all, kernel_parameters parameters) : p(std::move(parameters)), of(std::move(all)) {
        std::size_t const n = of.values.size();
        std::vector<std::vector<long double>> k(n, std::vector<long double>(2 * n, 0.0L));
        for (std::size_t i = 0; i < n; ++i) {
            for (std::size_t j = 0; j < n; ++j) {
                k[i][j] = covariance(of.places[i], of.places[j]);
            }
            k[i][i] += std::exp(static_cast<long double>(p.log_noise));
            k[i][n + i] = 1.0L;
        }
        for (std::size_t c = 0; c < n; ++c) {
            log_determinant += std::log(k[c][c]);
            long double const pivot = k[c][c];
            for (auto& x : k[c]) {
                x /= pivot;
            }
            for (std::size_t r = 0; r < n; ++r) {
                long double const factor = r == c ? 0.0L : k[r][c];
                for (std::size_t x = 0; x < 2 * n; ++x) {
                    k[r][x] -= factor * k[c][x];
                }
            }
        }
        for (auto const& row : k) {
            inverse.emplace_back(row.begin() + static_cast<index_t>(n), row.end());
        }
    }
    /// a^T K^-1 b.
    long double product(std::vector<long double> const& a,
                        std::vector<long double> const& b) const {
        long double sum = 0.0L;
        for (std::size_t i = 0; i < a.size(); ++i) {
            for (std::size_t j = 0; j < b.size(); ++j) {
                sum += a[i] * inverse[i][j] * b[j];
            }
        }
        return sum;
    }
    std::vector<long double> values() const { return {of.values.begin(), of.values.end()}; }
    long double log_likelihood() const {
        auto const n = static_cast<long double>(of.values.size());
        return -0.5L * product(values(), values()) - 0.5L * log_determinant -
               0.5L * n * std::log(2.0L * std::numbers::pi_v<long double>);
    }
    prediction predict(std::vector<double> const& place) const {
        std::vector<long double> k;
        for (auto const& other : of.places) {
            k.push_back(covariance(place, other));
        }
        return {static_cast<double>(product(k, values())),
                static_cast<double>(std::sqrt(covariance(place, place) - product(k, k)))};
    }
};

} // namespace

TEST_CASE("dse.gaussian_process: predictions and likelihood are the textbook's") {
    SOFATTN_GENERATOR(random);
    for (int round = 0; round < 12; ++round) {
        auto const dims = random.integer<std::size_t>(1, 6);
        auto const count = random.integer<std::size_t>(1, 40);
        CAPTURE(dims);
        CAPTURE(count);
        data const all = some_data(random, dims, count, round % 3 == 0 ? 0 : 5);
        auto const parameters = random_parameters(random, dims);
        oracle const truth(all, parameters);
        gaussian_process process = process_of(all, parameters);
        CHECK(process.log_likelihood() ==
              doctest::Approx(static_cast<double>(truth.log_likelihood())).epsilon(1e-9));
        for (auto const& place : some_data(random, dims, 20, round % 2 == 0 ? 0 : 5).places) {
            prediction const mine = process.predict(place);
            prediction const right = truth.predict(place);
            CHECK(mine.mean == doctest::Approx(right.mean).epsilon(1e-9));
            CHECK(mine.deviation == doctest::Approx(right.deviation).epsilon(1e-7));
            CHECK(process.covariance()(place, all.places[0]) ==
                  doctest::Approx(static_cast<double>(truth.covariance(place, all.places[0]))));
        }
    }
}

TEST_CASE("dse.gaussian_process: the gradient of the likelihood is that of differences") {
    SOFATTN_GENERATOR(random);
    for (int round = 0; round < 8; ++round) {
        auto const dims = random.integer<std::size_t>(1, 5);
        data const all = some_data(random, dims, random.integer<std::size_t>(2, 30), round % 2 * 4);
        std::vector<double> const at = random_parameters(random, dims).packed();
        auto const value = [&](std::vector<double> const& logs) {
            gaussian_process process = process_of(all, kernel_parameters::unpacked(logs));
            return process.log_likelihood();
        };
        gaussian_process process = process_of(all, kernel_parameters::unpacked(at));
        auto const gradient = process.log_likelihood_gradient();
        REQUIRE(gradient.size() == at.size());
        for (std::size_t p = 0; p < at.size(); ++p) {
            CAPTURE(p);
            constexpr double step = 1e-5;
            auto above = at;
            auto below = at;
            above[p] += step;
            below[p] -= step;
            double const slope = (value(above) - value(below)) / (2.0 * step);
            CHECK(std::abs(gradient[p] - slope) <= 1e-5 * (1.0 + std::abs(slope)));
        }
    }
}

TEST_CASE("dse.gaussian_process: more levels than rows are kept change no bit") {
    SOFATTN_GENERATOR(random);
    data const all = some_data(random, 2, 30, 0);
    auto const parameters = random_parameters(random, 2);
    gaussian_process used = process_of(all, parameters);
    gaussian_process fresh = process_of(all, parameters);
    for (int n = 0; n < 500; ++n) { // pushes every row out, several times
        static_cast<void>(used.predict(some_data(random, 2, 1, 0).places[0]));
    }
    for (auto const& place : all.places) {
        prediction const a = used.predict(place);
        prediction const b = fresh.predict(place);
        CHECK(a.mean == b.mean);
        CHECK(a.deviation == b.deviation);
    }
}

TEST_CASE("dse.gaussian_process: the same point many times does not break it") {
    gaussian_process process({{0.0}, 0.0, 0.0, 0.0, -40.0});
    std::vector<double> const place{0.3};
    for (int n = 0; n < 20; ++n) {
        process.add(place, 1.5);
    }
    prediction const p = process.predict(place);
    CHECK(p.mean == doctest::Approx(1.5).epsilon(1e-4));
    CHECK(std::isfinite(p.deviation));
    CHECK(p.deviation >= 0.0);
}

TEST_CASE("dse.fit: fitted parameters are likelier than the prior's, and find what matters") {
    SOFATTN_GENERATOR(random);
    std::vector<observation> seen;
    data all = some_data(random, 4, 60, 0);
    for (std::size_t i = 0; i < all.values.size(); ++i) {
        auto const& x = all.places[i];
        all.values[i] = std::sin(6.0 * x[1]) + 2.0 * x[2] * x[2] - 0.7;
        seen.push_back({x, all.values[i]});
    }
    auto const fitted = fit_kernel(seen);
    kernel_parameters before;
    before.log_scales.assign(4, kernel_prior{}.packed(4)[0].mean);
    CHECK(process_of(all, fitted).log_likelihood() >
          process_of(all, before).log_likelihood() + 20.0);
    // Dimensions 0 and 3 do nothing.
    for (std::size_t const idle : {0u, 3u}) {
        CHECK(fitted.log_scales[idle] > fitted.log_scales[1] + 1.0);
    }
    CHECK(fit_kernel(seen) == fitted);
    gaussian_process process = process_of(all, fitted);
    for (auto const& place : some_data(random, 4, 50, 0).places) {
        double const truth = std::sin(6.0 * place[1]) + 2.0 * place[2] * place[2] - 0.7;
        prediction const p = process.predict(place);
        CHECK(std::abs(p.mean - truth) <= 0.05 + 6.0 * p.deviation);
    }
}
