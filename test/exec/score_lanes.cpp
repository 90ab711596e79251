// SPDX-License-Identifier: MIT
#include "support/generators.hpp"
#include <sofattn/exec/score_lanes.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>
#include <vector>

using namespace sofattn;

namespace {

template <class Score>
std::vector<Score> some_scores(test::generator& random, index_t count) {
    auto scores = test::random_scores<Score>(
        random, count,
        test::all_row_shapes[random.integer<std::size_t>(0, test::all_row_shapes.size() - 1)]);
    if (sizeof(Score) == 8 && random.chance(0.5)) {
        for (Score& s : scores) {
            s = s * (Score{1} << 18);
        }
    }
    return scores;
}

} // namespace

TEST_CASE_TEMPLATE("exec.score_lanes: extremes, counts, costs and collected keys, for every length",
                   Score, std::int32_t, std::int64_t) {
    SOFATTN_GENERATOR(random);
    for (index_t count = 1; count <= 200; ++count) {
        auto const scores = some_scores<Score>(random, count);
        auto const all = std::span<Score const>(scores);
        auto const [least, most] = std::ranges::minmax(scores);
        auto const found = exec::extremes(all);
        CHECK(found.least == least);
        CHECK(found.most == most);

        std::vector<std::int32_t> costs;
        for (index_t i = 0; i < count; ++i) {
            costs.push_back(random.integer(0, 1 << 30));
        }
        for (Score const limit :
             {least, most, static_cast<Score>(most + 1), static_cast<Score>((least + most) / 2),
              scores[random.integer<std::size_t>(0, scores.size() - 1)]}) {
            index_t wanted = 0;
            std::uint64_t cost = 0;
            std::vector<key_id> keys;
            for (std::size_t i = 0; i < scores.size(); ++i) {
                bool const reaches = scores[i] >= limit;
                wanted += reaches ? 1 : 0;
                cost += reaches ? 0u : static_cast<std::uint64_t>(costs[i]);
                if (reaches) {
                    keys.push_back(static_cast<key_id>(1000 + i));
                }
            }
            CHECK(exec::count_at_least(all, limit) == wanted);
            CHECK(exec::cost_below(all, costs.data(), limit) == cost);
            std::vector<key_id> collected(static_cast<std::size_t>(count + exec::vector_width));
            collected.resize(static_cast<std::size_t>(exec::collect_at_least(
                scores.data(), count, limit, key_id{1000}, collected.data())));
            CHECK(collected == keys);
        }
    }
}

TEST_CASE_TEMPLATE("exec.score_lanes: scores and their distances as floats, rounded once", Score,
                   std::int32_t, std::int64_t) {
    SOFATTN_GENERATOR(random);
    for (int round = 0; round < 100; ++round) {
        auto const scores = some_scores<Score>(random, exec::vector_width);
        Score const top = std::ranges::max(scores);
        std::vector<float> below(scores.size());
        std::vector<float> plain(scores.size());
        exec::store(below.data(), exec::below_top(top, scores.data()));
        exec::store(plain.data(), exec::as_float(scores.data()));
        bool same = true;
        for (std::size_t i = 0; i < scores.size(); ++i) {
            same = same && below[i] == static_cast<float>(top - scores[i]) &&
                   plain[i] == static_cast<float>(scores[i]);
        }
        CHECK(same);
    }
}
