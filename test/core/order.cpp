// SPDX-License-Identifier: MIT
#include "support/generators.hpp"
#include <sofattn/core/order.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <type_traits>
#include <vector>

using namespace sofattn;

namespace {

/// Every combination of telling scores and keys.
template <class Score>
std::vector<ranked<Score>> telling_entries() {
    using limits = std::numeric_limits<Score>;
    std::vector<Score> scores{limits::lowest(), Score(-1), Score(0), Score(1), limits::max()};
    if constexpr (std::is_floating_point_v<Score>) {
        scores.insert(scores.end(), {-limits::infinity(), -limits::denorm_min(), Score(-0.0),
                                     limits::denorm_min(), limits::infinity()});
    }
    std::vector<ranked<Score>> entries;
    for (Score const score : scores) {
        for (key_id const key : {0, 1, std::numeric_limits<key_id>::max()}) {
            entries.push_back({score, key});
        }
    }
    return entries;
}

} // namespace

TEST_CASE_TEMPLATE("core.order: comes_before is a strict total order", Score, std::int32_t,
                   std::int64_t, float, double) {
    auto const entries = telling_entries<Score>();
    for (auto const& a : entries) {
        CHECK_FALSE(comes_before(a, a));
        for (auto const& b : entries) {
            bool const same = a.score == b.score && a.key == b.key; // -0 and 0 are one score
            CHECK(comes_before(a, b) + comes_before(b, a) + same == 1);
            for (auto const& c : entries) {
                if (comes_before(a, b) && comes_before(b, c) && !comes_before(a, c)) {
                    FAIL_CHECK("not transitive");
                }
            }
        }
    }
}

TEST_CASE("core.order: the higher score first, of equal scores the lower key") {
    static_assert(comes_before(ranked<int>{2, 9}, ranked<int>{1, 0}));
    static_assert(!comes_before(ranked<int>{1, 0}, ranked<int>{2, 9}));
    static_assert(comes_before(ranked<int>{1, 3}, ranked<int>{1, 4}));
    static_assert(ranked<int>{1, 3} == ranked<int>{1, 3});
    static_assert(ranked<int>{1, 3} != ranked<int>{1, 4});
    CHECK_FALSE(comes_before(ranked<double>{0.0, 4}, ranked<double>{-0.0, 3}));
}

TEST_CASE("core.order: a sorted row does not depend on the order it came in") {
    SOFATTN_GENERATOR(random);
    for (auto const shape : test::all_row_shapes) {
        auto const scores = test::random_scores(random, 200, shape);
        std::vector<ranked<std::int32_t>> row;
        for (std::size_t k = 0; k < scores.size(); ++k) {
            row.push_back({scores[k], static_cast<key_id>(k)});
        }
        auto shuffled = row;
        random.shuffle(shuffled);
        auto const before = [](auto const& a, auto const& b) { return comes_before(a, b); };
        std::ranges::sort(shuffled, before);
        // By the definition, without comes_before: stable by score, from key order.
        std::ranges::stable_sort(row,
                                 [](auto const& a, auto const& b) { return a.score > b.score; });
        CHECK(shuffled == row);
    }
}
