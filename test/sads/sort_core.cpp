// SPDX-License-Identifier: MIT
#include "sads/oracle.hpp"
#include "support/generators.hpp"
#include "support/watched.hpp"
#include <sofattn/core/order.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/sads/sort_core.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <limits>
#include <vector>

namespace {

using namespace sofattn;
using sads::sort_core;
using sads::sort_cost;

constexpr double no_radius = std::numeric_limits<double>::infinity();
constexpr std::array<index_t, 9> output_lengths{0, 1, 3, 4, 5, 8, 13, 64, 300};

template <class Raw>
struct sorted {
    std::vector<ranked<Raw>> kept;
    std::vector<char> taken;
    sort_cost cost;
};

template <class Raw, class Score = Raw>
sorted<Raw> run_core(std::vector<ranked<Raw>> const& entries, index_t wanted, double radius) {
    sorted<Raw> result;
    result.kept.resize(static_cast<std::size_t>(wanted));
    result.taken.resize(entries.size());
    index_t const filled =
        sort_core<Raw, Score>(radius)(entries, result.taken, result.kept, result.cost);
    REQUIRE(filled <= wanted);
    result.kept.resize(static_cast<std::size_t>(filled));
    return result;
}

/// Fig. 13 told with lists instead of wires: what the events of a segment must be.
template <class Raw>
sort_cost expected_cost(std::vector<ranked<Raw>> const& entries, index_t wanted, double radius) {
    sort_cost cost;
    bool const limited = radius < no_radius;
    auto const r = limited ? static_cast<Raw>(radius) : Raw{0};
    auto const survivors = test::best_within(entries, wanted, radius);
    auto left = entries;
    wanted = std::min(wanted, std::ssize(entries));
    for (index_t filled = 0; filled < wanted;) {
        std::vector<ranked<Raw>> best;
        bool clipping = false;
        Raw threshold{};
        for (std::size_t first = 0; first < entries.size(); first += 12) {
            for (std::size_t i = first; i < std::min(first + 12, entries.size()); ++i) {
                if (std::ranges::find(left, entries[i]) == left.end()) {
                    continue; // taken by an iteration before
                }
                cost.compares += clipping ? 1 : 0;
                if (clipping && entries[i].score < threshold) {
                    ++cost.clipped;
                } else {
                    best.push_back(entries[i]);
                }
            }
            test::sort_in_total_order(best);
            best.resize(std::min<std::size_t>(best.size(), 4));
            cost.cycles += 1;
            cost.compares += 44;
            bool const full = best.size() == 4;
            auto const& max = filled > 0 ? survivors : best;
            if (limited && !max.empty()) {
                cost.adds += 1;
                cost.compares += full ? 1 : 0;
                threshold = max.front().score - r;
                threshold = full ? std::max(threshold, best.back().score) : threshold;
            } else if (full) {
                threshold = best.back().score;
            }
            clipping = full || (limited && !max.empty());
        }
        for (auto const& entry : best) {
            if (filled == wanted) {
                return cost;
            }
            cost.compares += limited ? 1 : 0;
            if (filled == std::ssize(survivors)) {
                return cost; // the first one beyond the radius ends it
            }
            ++filled;
            std::erase(left, entry);
        }
        if (best.size() < 4) {
            return cost;
        }
    }
    return cost;
}

/// Everything that must hold of one run.
template <class Raw>
void check(std::vector<ranked<Raw>> const& entries, index_t wanted, double radius) {
    CAPTURE(entries.size());
    CAPTURE(wanted);
    CAPTURE(radius);
    sorted<Raw> const got = run_core(entries, wanted, radius);
    REQUIRE(got.kept == test::best_within(entries, wanted, radius));
    for (std::size_t i = 0; i < entries.size(); ++i) {
        bool const survived = std::ranges::find(got.kept, entries[i]) != got.kept.end();
        REQUIRE((got.taken[i] != 0) == survived);
    }
    sort_cost const expected = expected_cost(entries, wanted, radius);
    REQUIRE(got.cost.cycles == expected.cycles);
    REQUIRE(got.cost.clipped == expected.clipped);
    REQUIRE(got.cost.compares == expected.compares);
    REQUIRE(got.cost.adds == expected.adds);

    using number = test::watched<Raw>;
    sorted<Raw> again;
    test::tally const seen =
        test::watch([&] { again = run_core<Raw, number>(entries, wanted, radius); });
    REQUIRE(again.kept == got.kept);
    REQUIRE(seen.compares == got.cost.compares);
    REQUIRE(seen.adds == got.cost.adds);
    REQUIRE(seen.multiplies + seen.shifts + seen.exps + seen.divides == 0);
}

/// Scores built to sit on the clipping unit's thresholds: at, just under and just over max - r and
/// the smallest of the four best so far, and now and then a new max that raises both.
template <class Raw>
std::vector<Raw> on_the_threshold(test::generator& random, index_t keys, Raw radius) {
    std::vector<Raw> scores{static_cast<Raw>(random.integer(-50, 50))};
    while (std::ssize(scores) < keys) {
        auto best = scores;
        std::ranges::sort(best, std::greater{});
        Raw const smallest = best[std::min<std::size_t>(best.size(), 4) - 1];
        Raw const near[] = {best.front() - radius, smallest, best.front()};
        auto const at = random.integer<std::size_t>(0, 2);
        auto const off =
            static_cast<Raw>(random.integer(-1, at == 2 && random.chance(0.9) ? 0 : 1));
        scores.push_back(near[at] + off);
    }
    return scores;
}

} // namespace

// 24 entries: 12, 11, ... 1, then twelve fives.
TEST_CASE("sads.sort_core: a segment worked by hand takes these cycles, compares and clips") {
    std::vector<ranked<int>> entries;
    for (int i = 0; i < 24; ++i) {
        entries.push_back({i < 12 ? 12 - i : 5, i});
    }
    SUBCASE("without a radius") {
        sorted<int> const got = run_core(entries, 4, no_radius);
        CHECK(got.kept == std::vector<ranked<int>>{{12, 0}, {11, 1}, {10, 2}, {9, 3}});
        CHECK(got.cost.cycles == 2);   // ceil(24 / 12)
        CHECK(got.cost.clipped == 12); // 5 < 9, the smallest kept
        CHECK(got.cost.compares == 2 * 44 + 12);
        CHECK(got.cost.adds == 0);
    }
    SUBCASE("with a radius of 2") {
        sorted<int> const got = run_core(entries, 4, 2.0);
        CHECK(got.kept == std::vector<ranked<int>>{{12, 0}, {11, 1}, {10, 2}});
        CHECK(got.cost.cycles == 2);
        CHECK(got.cost.clipped == 12);
        // The larger of two thresholds after each cycle; four entries drained, 9 < 10 is dropped.
        CHECK(got.cost.compares == 2 * 44 + 12 + 2 + 4);
        CHECK(got.cost.adds == 2);
    }
    SUBCASE("six of them, in two iterations") {
        sorted<int> const got = run_core(entries, 6, no_radius);
        CHECK(got.kept ==
              std::vector<ranked<int>>{{12, 0}, {11, 1}, {10, 2}, {9, 3}, {8, 4}, {7, 5}});
        CHECK(got.cost.cycles == 4);
        // In the second, the best four left are 8 7 6 5: a tie with 5 is for the network to decide.
        CHECK(got.cost.clipped == 12);
        CHECK(got.cost.compares == 4 * 44 + 12 + 12);
    }
}

TEST_CASE("sads.sort_core: the first threshold clips nothing, however low the scores") {
    std::vector<ranked<int>> entries;
    for (int i = 0; i < 12; ++i) {
        entries.push_back({-1000 - i, i});
    }
    sorted<int> const got = run_core(entries, 4, no_radius);
    CHECK(got.kept.front() == ranked<int>{-1000, 0});
    CHECK(got.cost.clipped == 0);
    CHECK(got.cost.cycles == 1);
}

TEST_CASE("sads.sort_core: no entries or no places take no cycle") {
    CHECK(run_core<int>({}, 4, 1.0).cost.compares == 0);
    CHECK(run_core<int>({}, 4, 1.0).kept.empty());
    CHECK(run_core<int>({{7, 0}}, 0, no_radius).cost.cycles == 0);
}

TEST_CASE_TEMPLATE("sads.sort_core: rows of every shape and length agree with the oracle", Raw,
                   std::int32_t, std::int64_t, double) {
    SOFATTN_GENERATOR(random);
    for (test::row_shape shape : test::all_row_shapes) {
        for (index_t keys : {0, 1, 3, 4, 5, 11, 12, 13, 24, 25, 64, 100, 256}) {
            auto const entries = test::entries_of(test::random_scores<Raw>(random, keys, shape));
            for (index_t wanted : output_lengths) {
                if (wanted > 64 && keys > 100) {
                    continue; // slow, and nothing new
                }
                for (double radius : {no_radius, 0.0, 1.0, 1500.75, 40000.0, 1e7}) {
                    check(entries, wanted, radius);
                }
            }
        }
    }
}

TEST_CASE("sads.sort_core: all scores negative are sorted like any others") {
    SOFATTN_GENERATOR(random);
    for (int round = 0; round < 50; ++round) {
        auto scores = test::random_scores<std::int32_t>(random, 70, test::row_shape::spread);
        for (auto& score : scores) {
            score = -std::abs(score) - 1;
        }
        check(test::entries_of(scores), 16, round % 2 == 0 ? no_radius : 9000.0);
    }
}

TEST_CASE("sads.sort_core: entries may come with any keys in any order, ties go to the lower key") {
    SOFATTN_GENERATOR(random);
    for (int round = 0; round < 100; ++round) {
        auto entries =
            test::entries_of(test::random_scores<std::int32_t>(random, 60, test::row_shape::tied));
        for (auto& entry : entries) {
            entry.key = 100 + 7 * entry.key;
        }
        random.shuffle(entries);
        check(entries, 13, no_radius);
        check(entries, 13, 1.0);
    }
}

// The running clip may only remove what cannot survive; the oracle is the sorter without it.
TEST_CASE_TEMPLATE("sads.sort_core: the running clip never removes a survivor", Raw, std::int32_t,
                   std::int64_t, double) {
    SOFATTN_GENERATOR(random);
    std::uint64_t clipped = 0;
    for (int round = 0; round < 2000; ++round) {
        auto const radius = static_cast<Raw>(random.integer(0, 6));
        auto scores = on_the_threshold<Raw>(random, random.integer<index_t>(1, 60), radius);
        if (round % 4 == 3) { // thresholds rise as late as possible
            std::ranges::sort(scores);
        }
        auto const entries = test::entries_of(scores);
        for (index_t wanted : {1, 3, 4, 5, 13, 64}) {
            check(entries, wanted, static_cast<double>(radius));
            check(entries, wanted, no_radius);
            clipped += run_core(entries, wanted, static_cast<double>(radius)).cost.clipped;
        }
    }
    CHECK(clipped > 10000); // or the rows would prove little
}

TEST_CASE("sads.sort_core: a sequence of n takes ceil(n / 12) cycles for every four it yields") {
    SOFATTN_GENERATOR(random);
    for (index_t keys : {1, 12, 13, 24, 25, 100}) {
        auto const entries = test::entries_of(
            test::random_scores<std::int32_t>(random, keys, test::row_shape::spread));
        for (index_t wanted : {1, 4, 5, 8, 9, 64}) {
            auto const iterations = (std::min(wanted, keys) + 3) / 4;
            CHECK(run_core(entries, wanted, no_radius).cost.cycles ==
                  static_cast<std::uint64_t>((keys + 11) / 12 * iterations));
        }
    }
}

TEST_CASE("sads.sort_core: a radius that could leave the score type restricts nothing") {
    std::int32_t const far = std::int32_t{1} << 29;
    std::vector<ranked<std::int32_t>> const entries{{far, 0}, {-far, 1}, {0, 2}};
    CHECK(run_core(entries, 3, 0x1p30).kept.size() == 3);
    CHECK(run_core(entries, 3, 1e300).kept.size() == 3);
    CHECK(run_core(entries, 3, 0x1p30 - 1.0).kept.size() == 2);
    CHECK(run_core(entries, 3, 0x1p29).kept.size() == 2);
    CHECK(run_core(entries, 3, 0x1p29 - 1.0).kept.size() == 1);
}
