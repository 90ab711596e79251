// SPDX-License-Identifier: MIT
#include "support/generators.hpp"
#include <sofattn/dse/search.hpp>
#include <sofattn/dse/synthetic.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

namespace {

using namespace sofattn;
using namespace sofattn::dse;

/// Mean over seeds of the best value so far less the least of all, after so many evaluations.
struct gaps {
    double half = 0.0;
    double end = 0.0;
};
gaps gaps_of(method by, int seeds, int half, int end) {
    gaps mean;
    for (int s = 0; s < seeds; ++s) {
        auto const seed = static_cast<std::uint64_t>(s) + 1;
        sofa_like const objective(seed % 3);
        double const least = objective(objective.best());
        search_options options;
        options.by = by;
        options.seed = seed;
        search run(sofa_like::space(), options);
        double best = std::numeric_limits<double>::infinity();
        for (int n = 1; n <= end; ++n) {
            trial const asked = run.ask().front();
            double const value = objective(asked.at);
            best = std::min(best, value);
            run.tell(asked.id, {trial_status::done, {value}, {}, {}});
            mean.half += n == half ? (best - least) / seeds : 0.0;
        }
        mean.end += (best - least) / seeds;
    }
    return mean;
}

} // namespace

TEST_CASE("dse.synthetic: no point is below the one that dynamic programming finds") {
    SOFATTN_GENERATOR(random);
    auto const space = sofa_like::space();
    CHECK(space.most_points() > 1e15);
    for (std::uint64_t instance = 0; instance < 5; ++instance) {
        sofa_like const objective(instance);
        point const best = objective.best();
        REQUIRE(space.contains(best));
        double const least = objective(best);
        // Every change of two dimensions at once.
        for (std::size_t a = 0; a < best.size(); ++a) {
            for (std::size_t b = 0; b < a; ++b) {
                point p = best;
                for (p[a] = 0; p[a] < space[a].levels(); ++p[a]) {
                    for (p[b] = 0; p[b] < space[b].levels(); ++p[b]) {
                        REQUIRE(objective(p) >= least - 1e-12);
                    }
                }
            }
        }
        random_stream stream(random.next(), 0);
        for (int n = 0; n < 5000; ++n) {
            REQUIRE(objective(space.random_point(stream)) >= least);
        }
    }
}

// The whole comparison, 20 seeds and 200 evaluations, is `sofattn-dse synthetic`; this is as much of
// it as unoptimised builds can bear.
TEST_CASE("dse.search: the Bayesian search is ahead of the simple ones") {
    gaps const bayesian = gaps_of(method::bayesian, 3, 60, 110);
    gaps const walk = gaps_of(method::one_plus_one, 3, 60, 110);
    gaps const chance = gaps_of(method::random, 3, 60, 110);
    CHECK(bayesian.half < walk.half);
    CHECK(bayesian.half < chance.half);
    CHECK(bayesian.end <= 0.05);
    CHECK(walk.end > 2.0 * bayesian.end + 0.05);
    CHECK(chance.end > walk.end);
    CHECK(chance.end > 0.5); // which says how large a gap of 0.05 is
}
