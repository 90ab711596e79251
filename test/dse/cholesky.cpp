// SPDX-License-Identifier: MIT
#include "support/generators.hpp"
#include <sofattn/dse/cholesky.hpp>

#include <doctest/doctest.h>

#include <cmath>
#include <cstddef>
#include <span>
#include <vector>

namespace {

using sofattn::dse::cholesky;
using matrix = std::vector<std::vector<double>>;

/// G G^T + I for a random G: positive definite.
matrix random_definite(sofattn::test::generator& random, std::size_t n) {
    matrix g(n, std::vector<double>(n));
    for (auto& row : g) {
        for (double& x : row) {
            x = random.normal();
        }
    }
    matrix a(n, std::vector<double>(n));
    for (std::size_t i = 0; i < n; ++i) {
        for (std::size_t j = 0; j < n; ++j) {
            a[i][j] = i == j ? 1.0 : 0.0;
            for (std::size_t k = 0; k < n; ++k) {
                a[i][j] += g[i][k] * g[j][k];
            }
        }
    }
    return a;
}

void append_rows(cholesky& f, matrix const& a) {
    for (std::size_t i = f.size(); i < a.size(); ++i) {
        REQUIRE(f.append(std::span(a[i]).first(i + 1)));
    }
}

} // namespace

TEST_CASE("dse.cholesky: the factor times its transpose is the matrix, solutions solve") {
    SOFATTN_GENERATOR(random);
    for (std::size_t const n : {1u, 2u, 3u, 16u, 17u, 50u}) {
        CAPTURE(n);
        matrix const a = random_definite(random, n);
        cholesky f;
        append_rows(f, a);
        REQUIRE(f.size() == n);
        double const size = static_cast<double>(n) * a[0][0];
        for (std::size_t i = 0; i < n; ++i) {
            for (std::size_t j = 0; j <= i; ++j) {
                double sum = 0.0;
                for (std::size_t k = 0; k <= j; ++k) {
                    sum += f(i, k) * f(j, k);
                }
                CHECK(std::abs(sum - a[i][j]) <= 1e-14 * size);
            }
        }
        std::vector<double> x(n);
        std::vector<double> b(n, 0.0);
        for (double& v : x) {
            v = random.normal();
        }
        for (std::size_t i = 0; i < n; ++i) {
            for (std::size_t j = 0; j < n; ++j) {
                b[i] += a[i][j] * x[j];
            }
        }
        f.solve_lower(b);
        f.solve_upper(b);
        auto const inverse = f.inverse();
        for (std::size_t i = 0; i < n; ++i) {
            CHECK(std::abs(b[i] - x[i]) <= 1e-10);
            for (std::size_t j = 0; j < n; ++j) {
                double sum = 0.0;
                for (std::size_t k = 0; k < n; ++k) {
                    sum += inverse[i * n + k] * a[k][j];
                }
                CHECK(std::abs(sum - (i == j ? 1.0 : 0.0)) <= 1e-10);
                CHECK(inverse[i * n + j] == inverse[j * n + i]);
            }
        }
    }
}

TEST_CASE("dse.cholesky: rows added later have the bits of a factor made at once") {
    SOFATTN_GENERATOR(random);
    matrix const a = random_definite(random, 40);
    cholesky at_once;
    append_rows(at_once, a);
    cholesky grown;
    append_rows(grown, matrix(a.begin(), a.begin() + 7));
    static_cast<void>(grown.inverse()); // reading changes nothing
    append_rows(grown, a);
    for (std::size_t i = 0; i < a.size(); ++i) {
        for (std::size_t j = 0; j <= i; ++j) {
            CHECK(grown(i, j) == at_once(i, j));
        }
    }
}

TEST_CASE("dse.cholesky: a row that makes the matrix indefinite is refused and leaves no trace") {
    cholesky f;
    REQUIRE(f.append(std::vector<double>{4.0}));
    CHECK_FALSE(f.append(std::vector<double>{4.0, 4.0})); // singular
    CHECK_FALSE(f.append(std::vector<double>{9.0, 4.0}));
    CHECK_FALSE(f.append(std::vector<double>{1.0, std::nan("")}));
    CHECK(f.size() == 1);
    REQUIRE(f.append(std::vector<double>{2.0, 5.0}));
    CHECK(f(1, 0) == 1.0);
    CHECK(f(1, 1) == 2.0);
}
