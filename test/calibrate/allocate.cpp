// SPDX-License-Identifier: MIT
#include "calibrate/allocate.hpp"

#include "support/generators.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

using namespace sofattn::calibrate;
using sofattn::test::generator;

namespace {

using curves = std::vector<std::vector<measured>>;

/// Heads whose error falls as more keys are kept, each at its own pace.
curves random_curves(generator& random, std::size_t heads, std::size_t settings) {
    curves all;
    for (std::size_t h = 0; h < heads; ++h) {
        double kept = random.uniform(0.01, 0.05);
        double error = random.uniform(0.1, 1.0);
        all.emplace_back();
        for (std::size_t s = 0; s < settings; ++s) {
            all.back().push_back({static_cast<double>(s), kept, error});
            kept += random.uniform(0.0, 0.1);
            error *= random.uniform(0.3, 0.99);
        }
    }
    return all;
}

struct means {
    double kept = 0;
    double error = 0;
};
means of(curves const& heads, std::vector<std::size_t> const& choice) {
    means m;
    for (std::size_t h = 0; h < heads.size(); ++h) {
        m.kept += heads[h][choice[h]].kept_share / static_cast<double>(heads.size());
        m.error += heads[h][choice[h]].error / static_cast<double>(heads.size());
    }
    return m;
}

/// Least error within the kept share, of all choices there are.
double best_of_all(curves const& heads, double kept) {
    std::vector<std::size_t> choice(heads.size());
    double best = 1e9;
    for (bool more = true; more;) {
        means const m = of(heads, choice);
        best = m.kept <= kept ? std::min(best, m.error) : best;
        more = false;
        for (std::size_t h = 0; h < heads.size() && !more; ++h) {
            more = ++choice[h] < heads[h].size();
            choice[h] = more ? choice[h] : 0;
        }
    }
    return best;
}

} // namespace

TEST_CASE("calibrate.allocate: keeps to the target and tells what it chose") {
    SOFATTN_GENERATOR(random);
    for (int round = 0; round < 50; ++round) {
        curves const heads = random_curves(random, 12, 8);
        for (double const target : {0.1, 0.2, 0.5}) {
            auto const by_kept = allocate(heads, {target, {}});
            REQUIRE(by_kept);
            means const m = of(heads, by_kept->choice);
            CHECK(m.kept <= target + 1e-12);
            CHECK(by_kept->kept_share == doctest::Approx(m.kept));
            CHECK(by_kept->error == doctest::Approx(m.error));
            auto const by_error = allocate(heads, {{}, m.error});
            REQUIRE(by_error);
            CHECK(of(heads, by_error->choice).error <= m.error + 1e-12);
        }
    }
}

TEST_CASE("calibrate.allocate: comes within a few percent of the best choice of all") {
    SOFATTN_GENERATOR(random);
    double sum = 0;
    constexpr int rounds = 40;
    for (int round = 0; round < rounds; ++round) {
        curves const heads = random_curves(random, 5, 6);
        auto const found = allocate(heads, {0.15, {}});
        REQUIRE(found);
        double const best = best_of_all(heads, 0.15);
        CHECK(found->error <= best * 1.25 + 1e-12);
        sum += found->error / best;
    }
    CHECK(sum / rounds < 1.03);
}

TEST_CASE("calibrate.allocate: gives keys to the head that gains by them") {
    curves const heads{{{0, 0.02, 0.5}, {1, 0.2, 0.49}}, {{0, 0.02, 0.5}, {1, 0.2, 0.1}}};
    auto const found = allocate(heads, {0.11, {}});
    REQUIRE(found);
    CHECK(found->choice == std::vector<std::size_t>{0, 1});
}

TEST_CASE("calibrate.allocate: nothing where no choice reaches the target") {
    curves const heads{{{0, 0.2, 0.5}, {1, 0.4, 0.1}}};
    CHECK_FALSE(allocate(heads, {0.1, {}}));
    CHECK_FALSE(allocate(heads, {{}, 0.05}));
    CHECK(allocate(heads, {0.2, {}})->choice == std::vector<std::size_t>{0});
    CHECK(allocate(heads, {{}, 0.1})->choice == std::vector<std::size_t>{1});
}
