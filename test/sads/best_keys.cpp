// SPDX-License-Identifier: MIT
#include "support/generators.hpp"
#include <sofattn/core/order.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/sads/best_keys.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

using namespace sofattn;
using namespace sofattn::test;

namespace {

std::vector<key_id> by_sorting(std::vector<std::int32_t> const& scores, index_t wanted,
                               key_id first) {
    std::vector<ranked<std::int32_t>> all;
    for (std::size_t i = 0; i < scores.size(); ++i) {
        all.push_back({scores[i], static_cast<key_id>(first + static_cast<key_id>(i))});
    }
    std::ranges::sort(all, [](auto const& a, auto const& b) { return comes_before(a, b); });
    all.resize(static_cast<std::size_t>(std::clamp<index_t>(wanted, 0, std::ssize(scores))));
    std::vector<key_id> keys;
    for (auto const& entry : all) {
        keys.push_back(entry.key);
    }
    std::ranges::sort(keys);
    return keys;
}

std::vector<key_id> by_threshold(std::vector<std::int32_t> const& scores, index_t wanted,
                                 key_id first) {
    std::vector<key_id> keys(scores.size() + sads::best_keys::slack);
    index_t const kept =
        sads::best_keys{}(scores.data(), std::ssize(scores), wanted, first, keys.data());
    keys.resize(static_cast<std::size_t>(kept));
    return keys;
}

} // namespace

TEST_CASE("sads.best_keys: the set of a full sort, whatever the scores") {
    SOFATTN_GENERATOR(random);
    for (row_shape const shape : all_row_shapes) {
        for (index_t const count : {0, 1, 2, 15, 16, 17, 100, 1000, 5000, 40000}) {
            auto const scores = random_scores(random, count, shape);
            for (index_t const wanted :
                 {index_t{0}, index_t{1}, count / 64, count / 16, count / 2, count - 1, count,
                  count + 1, random.integer<index_t>(0, count)}) {
                CAPTURE(static_cast<int>(shape));
                CAPTURE(count);
                CAPTURE(wanted);
                auto const first = static_cast<key_id>(random.integer(0, 100));
                CHECK(by_threshold(scores, wanted, first) == by_sorting(scores, wanted, first));
            }
        }
    }
}

TEST_CASE("sads.best_keys: all the range of a score") {
    SOFATTN_GENERATOR(random);
    constexpr auto low = std::numeric_limits<std::int32_t>::lowest();
    constexpr auto high = std::numeric_limits<std::int32_t>::max();
    std::vector<std::int32_t> scores;
    for (int i = 0; i < 3000; ++i) {
        scores.push_back(random.chance(0.1)   ? low
                         : random.chance(0.1) ? high
                                              : random.integer(low, high));
    }
    for (index_t const wanted : {1, 100, 300, 2000, 2900}) {
        CHECK(by_threshold(scores, wanted, 0) == by_sorting(scores, wanted, 0));
    }
}

TEST_CASE("sads.best_keys: computed by hand") {
    std::vector<std::int32_t> const scores{5, 7, 5, -1, 7, 5};
    CHECK(by_threshold(scores, 4, 10) == std::vector<key_id>{10, 11, 12, 14}); // ties: lower keys
}
