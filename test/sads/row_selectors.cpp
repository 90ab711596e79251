// SPDX-License-Identifier: MIT
#include "sads/oracle.hpp"
#include "support/generators.hpp"
#include "support/watched.hpp"
#include <sofattn/core/order.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/exec/executor.hpp>
#include <sofattn/sads/row_selectors.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

namespace {

using namespace sofattn;
using probe::event;
using probe::stage;
using sads::budget;
using sads::row_rule;

constexpr double no_radius = std::numeric_limits<double>::infinity();

static_assert(!sads::full_topk::tile_ready && !sads::threshold::tile_ready);
static_assert(sads::keep_all::tile_ready);
static_assert(sads::full_topk::sorted && !sads::threshold::sorted && !sads::keep_all::sorted);

/// Calls check(scores, rule) for short and long rows of every shape and all kinds of budget.
template <class Score, class Check>
void for_rows(Check check) {
    SOFATTN_GENERATOR(random);
    for (index_t visible : {0, 1, 2, 12, 13, 64, 150}) {
        for (test::row_shape shape : test::all_row_shapes) {
            for (double ratio : {0.1, 0.5, 1.0}) {
                for (double radius : {no_radius, 0.0, 1500.25, 40000.0}) {
                    for (index_t sinks : {0, 3}) {
                        for (index_t window : {0, 4, 200}) {
                            CAPTURE(visible);
                            CAPTURE(static_cast<int>(shape));
                            CAPTURE(ratio);
                            CAPTURE(radius);
                            CAPTURE(sinks);
                            CAPTURE(window);
                            budget b = budget::of_ratio(ratio);
                            b.radius = radius;
                            b.sinks = sinks;
                            b.window = window;
                            check(test::random_scores<Score>(random, visible, shape),
                                  row_rule::of(b, visible, 1.0));
                        }
                    }
                }
            }
        }
    }
}

template <class Selector, class Score>
void check_watched(Selector selector, std::vector<Score> const& scores, row_rule const& rule) {
    exec::counting plain;
    test::watched_executor x;
    auto const expected = test::select(plain, selector, scores, rule, {});
    test::tally const seen =
        test::watch([&] { REQUIRE(test::select(x, selector, scores, rule, {}) == expected); });
    REQUIRE(x.probe == plain.probe);
    REQUIRE(seen.compares == x.probe.count(stage::selection, event::compare));
    REQUIRE(seen.adds == x.probe.count(stage::selection, event::add));
    REQUIRE(seen.multiplies + seen.shifts + seen.exps + seen.divides == 0);
}

} // namespace

TEST_CASE_TEMPLATE("sads.full_topk: the whole row is one segment, circuit and definition agree",
                   Score, std::int32_t, std::int64_t, double) {
    for_rows<Score>([](std::vector<Score> const& scores, row_rule const& rule) {
        auto const expected = test::expected_of_segment(test::entries_of(scores), rule, rule.keep);
        exec::reference defined;
        exec::counting circuit;
        REQUIRE(test::select(defined, sads::full_topk{}, scores, rule, {}) == expected);
        REQUIRE(test::select(circuit, sads::full_topk{}, scores, rule, {}) == expected);
    });
}

TEST_CASE("sads.full_topk: the radius is exact for scores that a double cannot hold") {
    std::int64_t const big = std::int64_t{1} << 60;
    std::vector<std::int64_t> const scores{big - 1, big, big - 2, -big};
    row_rule const rule = row_rule::of(budget::of_radius(1.0), 4, 1.0);
    exec::reference defined;
    exec::counting circuit;
    CHECK(test::select(defined, sads::full_topk{}, scores, rule, {}).size() == 2);
    CHECK(test::select(circuit, sads::full_topk{}, scores, rule, {}).size() == 2);
    CHECK(test::select(defined, sads::threshold{}, scores, rule, {}).size() == 2);
}

TEST_CASE("sads.full_topk: a row of 16 takes Batcher's 63 comparators") {
    SOFATTN_GENERATOR(random);
    auto const scores = test::random_scores<std::int32_t>(random, 16, test::row_shape::spread);
    exec::counting x;
    test::select(x, sads::full_topk{}, scores, row_rule::of(budget::of_count(4), 16, 1.0), {});
    CHECK(x.probe.count(stage::selection, event::compare) == 63);
    CHECK(x.probe.count(stage::selection, event::clipped) == 0);
    CHECK(x.probe.count(stage::selection, event::add) == 0);
}

TEST_CASE("sads.full_topk: a watched number confirms the declared counts") {
    for_rows<std::int32_t>([](std::vector<std::int32_t> const& scores, row_rule const& rule) {
        check_watched(sads::full_topk{}, scores, rule);
    });
}

TEST_CASE_TEMPLATE(
    "sads.threshold: every key within the radius of the row's best stays, in key order", Score,
    std::int32_t, std::int64_t, double) {
    for_rows<Score>([](std::vector<Score> const& scores, row_rule const& rule) {
        std::vector<ranked<Score>> expected;
        for (auto const& entry : test::entries_of(scores)) {
            bool const forced = entry.key < rule.sinks || entry.key >= rule.visible - rule.window;
            Score const best = *std::ranges::max_element(scores);
            if (forced || test::within(best, entry.score, rule.radius)) {
                expected.push_back(entry);
            }
        }
        exec::reference defined;
        exec::counting circuit;
        REQUIRE(test::select(defined, sads::threshold{}, scores, rule, {}) == expected);
        REQUIRE(test::select(circuit, sads::threshold{}, scores, rule, {}) == expected);
    });
}

TEST_CASE("sads.threshold: two comparisons per key but one, and one subtraction") {
    std::vector<int> const scores{5, 1, 4, 9, 7};
    exec::counting x;
    auto const kept = test::select(x, sads::threshold{}, scores,
                                   row_rule::of(budget::of_radius(4.0), 5, 1.0), {});
    CHECK(kept == std::vector<ranked<int>>{{5, 0}, {9, 3}, {7, 4}});
    CHECK(x.probe.count(stage::selection, event::compare) == 9);
    CHECK(x.probe.count(stage::selection, event::add) == 1);
}

TEST_CASE("sads.threshold: a watched number confirms the declared counts") {
    for_rows<std::int32_t>([](std::vector<std::int32_t> const& scores, row_rule const& rule) {
        check_watched(sads::threshold{}, scores, rule);
    });
}

TEST_CASE("sads.keep_all: every visible key stays, in key order, for nothing") {
    for_rows<std::int32_t>([](std::vector<std::int32_t> const& scores, row_rule const& rule) {
        exec::counting x;
        REQUIRE(test::select(x, sads::keep_all{}, scores, rule, {}) == test::entries_of(scores));
        REQUIRE(x.probe == probe::ledger{});
    });
}

TEST_CASE("sads.keep_all: a tile keeps the keys it has") {
    std::vector<int> const scores{4, 8, 6};
    exec::reference x;
    auto const kept = test::select(x, sads::keep_all{}, std::span<int const>(scores),
                                   row_rule::of(budget{}, 50, 1.0), {}, 20);
    CHECK(kept == std::vector<ranked<int>>{{4, 20}, {8, 21}, {6, 22}});
}
