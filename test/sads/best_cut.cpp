// SPDX-License-Identifier: MIT
#include "sads/oracle.hpp"
#include "support/generators.hpp"
#include <sofattn/sads/best_cut.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

using namespace sofattn;

namespace {

template <class Score>
std::vector<Score> some_scores(test::generator& random, index_t count) {
    auto scores = test::random_scores<Score>(
        random, count,
        test::all_row_shapes[random.integer<std::size_t>(0, test::all_row_shapes.size() - 1)]);
    if (sizeof(Score) == 8 && random.chance(0.3)) {
        for (Score& s : scores) {
            s = s * (Score{1} << 30); // places do not fit below such scores
        }
    }
    return scores;
}

} // namespace

TEST_CASE_TEMPLATE("sads.best_cut: the best of a full sort, and in its order", Score, std::int32_t,
                   std::int64_t) {
    SOFATTN_GENERATOR(random);
    for (int round = 0; round < 1500; ++round) {
        index_t const count =
            random.chance(0.8) ? random.integer<index_t>(1, 90) : random.integer<index_t>(90, 1500);
        auto const scores = some_scores<Score>(random, count);
        auto const wanted = random.integer<index_t>(1, count);
        CAPTURE(count);
        CAPTURE(wanted);
        auto const all = std::span<Score const>(scores);
        auto cut = sads::cut_of_best(all, wanted, exec::extremes(all));
        std::vector<key_id> keys(static_cast<std::size_t>(count + exec::vector_width));
        std::vector<ranked<Score>> kept(static_cast<std::size_t>(count));
        index_t const found = sads::collect(all, key_id{7}, cut, keys.data(), kept.data());
        REQUIRE(found == wanted);
        CHECK(cut.ties == 0);
        kept.resize(static_cast<std::size_t>(found));
        std::vector<ranked<Score>> spare(kept.size());
        sads::put_best_first(std::span(kept), std::span(spare));

        std::vector<ranked<Score>> sorted;
        for (std::size_t i = 0; i < scores.size(); ++i) {
            sorted.push_back({scores[i], static_cast<key_id>(i + 7)});
        }
        test::sort_in_total_order(sorted);
        sorted.resize(static_cast<std::size_t>(wanted));
        CHECK(kept == sorted);
    }
}

TEST_CASE("sads.best_cut: a limit above the cut leaves nobody tied") {
    sads::best_cut<std::int32_t> const cut{5, 2};
    CHECK(cut.and_at_least(5).ties == 2);
    CHECK(cut.and_at_least(6).above == 5);
    CHECK(cut.and_at_least(6).ties == 0);
    CHECK(cut.and_at_least(std::numeric_limits<std::int32_t>::lowest()).above == 5);
}
