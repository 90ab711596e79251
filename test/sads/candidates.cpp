// SPDX-License-Identifier: MIT
#include "sads/oracle.hpp"
#include "support/generators.hpp"
#include "support/watched.hpp"
#include <sofattn/exec/executor.hpp>
#include <sofattn/sads/candidates.hpp>

#include <doctest/doctest.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace {

using namespace sofattn;

} // namespace

TEST_CASE("sads.candidates: an entry of a run knows its score and its place in the sequence") {
    std::vector<std::int32_t> const scores{7, -3, 5};
    sads::score_run<std::int32_t> const run{scores, 64};
    CHECK(run.size() == 3);
    CHECK(run.entry(0) == ranked<std::int32_t>{7, 64});
    CHECK(run.entry(2) == ranked<std::int32_t>{5, 66});
    CHECK(sads::score_run<std::int32_t>{}.size() == 0);
}

TEST_CASE("sads.candidates: a sequence has one segment at least, and a cut-short one counts") {
    CHECK(sads::segmentation{256}.count(1024) == 4);
    CHECK(sads::segmentation{256}.count(1025) == 5);
    CHECK(sads::segmentation{256}.count(10) == 1);
    CHECK(sads::segmentation{256}.count(0) == 1);
    CHECK(sads::segmentation{1}.count(5) == 5);
}

TEST_CASE("sads.candidates: scratch has a place per key") {
    sads::select_scratch<double> const scratch(9);
    CHECK(scratch.competing.size() == 9);
    CHECK(scratch.taken.size() == 9);
    CHECK(sads::select_scratch<double>{}.competing.empty());
}

TEST_CASE("sads.candidates: a forced entry finds its place, one comparison per entry it meets") {
    SOFATTN_GENERATOR(random);
    for (int round = 0; round < 500; ++round) {
        auto const entries =
            test::entries_of(test::random_scores<std::int32_t>(random, 20, test::row_shape::tied));
        std::vector<ranked<std::int32_t>> kept(20);
        sads::sort_cost cost;
        test::tally const seen = test::watch([&] {
            for (std::size_t i = 0; i < entries.size(); ++i) {
                sads::detail::insert_forced<test::watched_executor>(
                    std::span(kept), static_cast<index_t>(i), entries[i], cost);
            }
        });
        auto expected = entries;
        test::sort_in_total_order(expected);
        REQUIRE(kept == expected);
        REQUIRE(seen.compares == cost.compares);
    }
    std::vector<ranked<int>> kept{{9, 0}, {5, 1}, {1, 2}, {}};
    sads::sort_cost cost;
    sads::detail::insert_forced<exec::counting>(std::span(kept), 3, ranked<int>{5, 3}, cost);
    CHECK(kept == std::vector<ranked<int>>{{9, 0}, {5, 1}, {5, 3}, {1, 2}});
    CHECK(cost.compares == 2);
}
