// SPDX-License-Identifier: MIT
#include "sads/oracle.hpp"
#include "support/generators.hpp"
#include "support/watched.hpp"
#include <sofattn/core/order.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/exec/executor.hpp>
#include <sofattn/sads/row_selectors.hpp>
#include <sofattn/sads/segment_topk.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <limits>
#include <span>
#include <vector>

namespace {

using namespace sofattn;
using probe::event;
using probe::stage;
using sads::budget;
using sads::row_rule;
using sads::segment_topk;
using sads::segmentation;

using contiguous_topk = segment_topk<sads::contiguous>;
using strided_topk = segment_topk<sads::strided>;

template <index_t Width>
using counting_lanes =
    exec::executor<exec::scalar_lanes<Width>, probe::ledger, exec::reference::real_type>;

struct wider : sads::strided {};
struct silent_layout {};
struct numbered_layout {
    static constexpr int layout = 1; // an enumerator, not a number, is asked for
};
static_assert(sads::policy<sads::contiguous> && sads::policy<sads::strided>);
static_assert(sads::policy<wider>);
static_assert(!sads::policy<silent_layout> && !sads::policy<numbered_layout>);
static_assert(segment_topk<>::is_contiguous && !segment_topk<wider>::is_contiguous);
static_assert(segment_topk<>::tile_ready && !strided_topk::tile_ready);

struct row_case {
    index_t keys;    ///< in the sequence
    index_t visible; ///< to the row
    index_t length;  ///< of a segment
    budget rule;
};

budget forced(budget b, index_t sinks, index_t window) {
    b.sinks = sinks;
    b.window = window;
    return b;
}
budget within(budget b, double radius) {
    b.radius = radius;
    return b;
}

/// Lengths around the network's 12 and 4, short causal rows, and every kind of budget.
std::vector<row_case> row_cases() {
    std::vector<budget> const budgets{
        budget{},
        budget::of_ratio(0.25),
        budget::of_ratio(0.1),
        budget::of_count(7),
        budget::of_radius(2000.0),
        budget::of_radius(0.0),
        within(budget::of_ratio(0.5), 30000.0),
        forced(budget::of_ratio(0.25), 4, 8),
        forced(budget::of_count(3), 4, 8), // more forced than kept
        forced(budget::of_ratio(0.3), 0, 500),
        within(forced(budget::of_ratio(0.5), 2, 3), 1.0),
        forced(within(budget{}, 40000.0), 3, 0),
    };
    struct size {
        index_t keys, visible, length;
    };
    std::vector<size> const sizes{
        {0, 0, 16},   {1, 0, 16},   {1, 1, 1},     {40, 1, 16},    {40, 3, 16},    {40, 15, 16},
        {40, 16, 16}, {40, 17, 16}, {64, 64, 16},  {64, 61, 16},   {100, 100, 13}, {100, 77, 1},
        {96, 96, 96}, {96, 50, 96}, {30, 30, 200}, {256, 256, 64}, {256, 200, 64},
    };
    std::vector<row_case> cases;
    for (auto const& [keys, visible, length] : sizes) {
        for (budget const& b : budgets) {
            cases.push_back({keys, visible, length, b});
        }
    }
    return cases;
}

/// Calls check(scores, rule, cut) for all of them and rows of all shapes.
template <class Score, class Check>
void for_rows(Check check) {
    SOFATTN_GENERATOR(random);
    for (row_case const& c : row_cases()) {
        for (test::row_shape shape : test::all_row_shapes) {
            CAPTURE(c.keys);
            CAPTURE(c.visible);
            CAPTURE(c.length);
            CAPTURE(c.rule.ratio);
            CAPTURE(c.rule.radius);
            CAPTURE(c.rule.sinks);
            CAPTURE(c.rule.window);
            CAPTURE(static_cast<int>(shape));
            auto const scores = test::random_scores<Score>(random, c.visible, shape);
            auto rule = row_rule::of(c.rule, c.visible, 1.0);
            if (c.visible == c.keys &&
                c.visible > 0) { // no causal mask: the window may be anywhere
                rule =
                    row_rule::of(c.rule, c.visible, 1.0, random.integer<index_t>(0, c.visible - 1));
            }
            check(scores, rule, segmentation{c.length});
        }
    }
}

template <class Selector, class X, class Score>
void check_contract(std::vector<Score> const& scores, row_rule const& rule, segmentation cut) {
    X x;
    auto const kept = test::select(x, Selector{}, scores, rule, cut);
    REQUIRE(kept == test::expected_of_row(scores, rule, cut, !Selector::is_contiguous));
}

/// Share of the true top-k, in the same number, that a selector did not choose.
template <class Selector>
double index_error(std::vector<std::int32_t> const& scores, row_rule const& rule,
                   segmentation cut) {
    exec::reference x;
    auto const chosen = test::keys_of(test::select(x, Selector{}, scores, rule, cut));
    auto const best = test::keys_of(test::select(x, sads::full_topk{}, scores, rule, cut));
    REQUIRE(chosen.size() == best.size());
    std::vector<key_id> missed;
    std::ranges::set_difference(best, chosen, std::back_inserter(missed));
    return static_cast<double>(missed.size()) / static_cast<double>(best.size());
}

/// The paper's setting (section III-B): S = 1024, n = 4, the top 25 %.
constexpr segmentation paper_cut{256};
row_rule paper_rule() { return row_rule::of(budget::of_ratio(0.25), 1024, 1.0); }

template <class Selector, class MakeRow>
double mean_index_error(MakeRow make_row) {
    double sum = 0.0;
    int const rows = 400;
    for (int row = 0; row < rows; ++row) {
        sum += index_error<Selector>(make_row(), paper_rule(), paper_cut);
    }
    return sum / rows;
}

/// A row of kind III (section III-B): noise, and a hill around one place where all big scores lie.
std::vector<std::int32_t> hill(test::generator& random) {
    std::vector<std::int32_t> row(1024);
    double const centre = random.uniform(0.0, 1024.0);
    for (std::size_t k = 0; k < row.size(); ++k) {
        double const away = (static_cast<double>(k) - centre) / 128.0;
        row[k] = static_cast<std::int32_t>(
            std::lround(20000.0 * (random.normal() + 4.0 * std::exp(-0.5 * away * away))));
    }
    return row;
}

} // namespace

TEST_CASE("sads.segment_topk: two segments of eight, worked by hand") {
    std::vector<int> const scores{3, 9, 9, 1, 5, 0, 7, 9, /**/ 2, 2, 8, 4, 4, 6, 2, 1};
    exec::reference x;
    SUBCASE("half the keys, four of each segment, ties by key") {
        auto const rule = row_rule::of(budget::of_ratio(0.5), 16, 1.0);
        auto const kept = test::select(x, contiguous_topk{}, scores, rule, {8});
        CHECK(kept == std::vector<ranked<int>>{
                          {9, 1}, {9, 2}, {9, 7}, {7, 6}, {8, 10}, {6, 13}, {4, 11}, {4, 12}});
    }
    SUBCASE("a radius of 2 drops 4 and 4 under the 8") {
        auto const rule = row_rule::of(within(budget::of_ratio(0.5), 2.0), 16, 1.0);
        auto const kept = test::select(x, contiguous_topk{}, scores, rule, {8});
        CHECK(kept == std::vector<ranked<int>>{{9, 1}, {9, 2}, {9, 7}, {7, 6}, {8, 10}, {6, 13}});
    }
    SUBCASE("strided, even keys then odd ones") {
        auto const rule = row_rule::of(budget::of_count(5), 16, 1.0);
        auto const kept = test::select(x, strided_topk{}, scores, rule, {8});
        CHECK(kept == std::vector<ranked<int>>{{9, 2}, {8, 10}, {7, 6}, {9, 1}, {9, 7}});
    }
    SUBCASE("sinks and window stay, count, and stand in order") {
        auto const rule = row_rule::of(forced(budget::of_ratio(0.25), 1, 2), 16, 1.0);
        auto const kept = test::select(x, contiguous_topk{}, scores, rule, {8});
        CHECK(kept == std::vector<ranked<int>>{{9, 1}, {3, 0}, {2, 14}, {1, 15}});
    }
}

TEST_CASE_TEMPLATE("sads.segment_topk: contiguous segments keep what the contract says", X,
                   exec::reference, exec::counting, exec::hardware) {
    for_rows<std::int32_t>([](auto const&... row) { check_contract<contiguous_topk, X>(row...); });
}

TEST_CASE_TEMPLATE("sads.segment_topk: strided segments keep what the contract says", X,
                   exec::reference, exec::counting, exec::hardware) {
    for_rows<std::int32_t>([](auto const&... row) { check_contract<strided_topk, X>(row...); });
}

TEST_CASE_TEMPLATE("sads.segment_topk: circuit and definition agree for every type of score", Score,
                   std::int32_t, std::int64_t, float, double) {
    for_rows<Score>([](auto const& scores, row_rule const& rule, segmentation cut) {
        auto const check = [&](auto selector) {
            exec::reference defined;
            exec::counting circuit;
            auto const expected = test::select(defined, selector, scores, rule, cut);
            REQUIRE(test::select(circuit, selector, scores, rule, cut) == expected);
        };
        check(contiguous_topk{});
        check(strided_topk{});
    });
}

// The line of the radius is drawn by one rounded subtraction, max - r, in the scores' own type.
TEST_CASE_TEMPLATE("sads.segment_topk: circuit and definition draw the radius at the same bit",
                   Score, float, double) {
    SOFATTN_GENERATOR(random);
    for (int round = 0; round < 3000; ++round) {
        double const radius = random.uniform(0.0, 1.0);
        std::vector<Score> scores{static_cast<Score>(random.uniform(1.0, 4.0))};
        auto const line = static_cast<Score>(scores[0] - static_cast<Score>(radius));
        for (int i = 0; i < 5; ++i) {
            scores.push_back(line);
            scores.push_back(std::nextafter(line, Score{-10}));
            scores.push_back(std::nextafter(line, Score{10}));
        }
        row_rule const rule = row_rule::of(budget::of_radius(radius), std::ssize(scores), 1.0);
        check_contract<contiguous_topk, exec::reference>(scores, rule, {16});
        check_contract<contiguous_topk, exec::counting>(scores, rule, {16});
    }
}

TEST_CASE("sads.segment_topk: a radius is exact for scores that a double cannot hold") {
    std::int64_t const big = std::int64_t{1} << 61;
    std::vector<std::int64_t> const scores{big, big - 1, big - 2, big - 3, -big, -big + 1};
    for (double radius : {0.0, 0.5, 1.0, 2.0, 2.9, 3.0, 0x1p61, 0x1p62, 1e300}) {
        CAPTURE(radius);
        row_rule const rule = row_rule::of(budget::of_radius(radius), std::ssize(scores), 1.0);
        check_contract<contiguous_topk, exec::reference>(scores, rule, {6});
        check_contract<contiguous_topk, exec::counting>(scores, rule, {6});
    }
}

TEST_CASE("sads.segment_topk: ties keep the lower index") {
    std::vector<int> const scores(48, -5);
    for (index_t keep : {1, 4, 5, 12}) {
        auto const rule = row_rule::of(budget::of_count(4 * keep), 48, 1.0);
        exec::reference x;
        std::vector<key_id> first; // the first `keep` of each segment
        std::vector<key_id> spaced;
        for (index_t s = 0; s < 4; ++s) {
            for (index_t i = 0; i < keep; ++i) {
                first.push_back(static_cast<key_id>(12 * s + i));
                spaced.push_back(static_cast<key_id>(4 * i + s));
            }
        }
        std::ranges::sort(spaced);
        CHECK(test::keys_of(test::select(x, contiguous_topk{}, scores, rule, {12})) == first);
        CHECK(test::keys_of(test::select(x, strided_topk{}, scores, rule, {12})) == spaced);
    }
}

TEST_CASE(
    "sads.segment_topk: a ratio or count budget without radius and forced keys is met exactly") {
    for_rows<std::int32_t>([](auto const& scores, row_rule rule, segmentation cut) {
        rule.radius = std::numeric_limits<double>::infinity();
        rule.sinks = rule.window = 0;
        exec::counting x;
        REQUIRE(std::ssize(test::select(x, contiguous_topk{}, scores, rule, cut)) == rule.keep);
        REQUIRE(std::ssize(test::select(x, strided_topk{}, scores, rule, cut)) == rule.keep);
    });
}

TEST_CASE("sads.segment_topk: keeping everything is keep_all, as a set") {
    for_rows<std::int32_t>([](auto const& scores, row_rule const& given, segmentation cut) {
        budget all;
        all.sinks = given.sinks;
        all.window = given.window;
        row_rule const rule = row_rule::of(all, given.visible, 1.0);
        exec::counting x;
        auto const expected = test::keys_of(test::select(x, sads::keep_all{}, scores, rule, cut));
        REQUIRE(test::keys_of(test::select(x, contiguous_topk{}, scores, rule, cut)) == expected);
        REQUIRE(test::keys_of(test::select(x, strided_topk{}, scores, rule, cut)) == expected);
    });
}

TEST_CASE("sads.segment_topk: tile by tile selects and counts what the whole row does") {
    for_rows<std::int32_t>([](auto const& scores, row_rule const& rule, segmentation cut) {
        exec::counting at_once;
        auto const expected = test::select(at_once, contiguous_topk{}, scores, rule, cut);
        for (index_t segments_per_tile : {1, 2, 3}) {
            exec::counting by_tile;
            std::vector<ranked<std::int32_t>> kept;
            index_t const tile = segments_per_tile * cut.length;
            for (index_t first = 0; first < rule.visible; first += tile) {
                auto const part = std::span(scores).subspan(
                    static_cast<std::size_t>(first),
                    static_cast<std::size_t>(std::min(tile, rule.visible - first)));
                auto const chosen =
                    test::select(by_tile, contiguous_topk{}, std::span<std::int32_t const>(part),
                                 rule, cut, first);
                kept.insert(kept.end(), chosen.begin(), chosen.end());
            }
            REQUIRE(kept == expected);
            REQUIRE(by_tile.probe == at_once.probe);
        }
    });
}

TEST_CASE("sads.segment_topk: scratch may be longer than the run and hold anything") {
    SOFATTN_GENERATOR(random);
    sads::select_scratch<std::int32_t> scratch(300);
    std::ranges::fill(scratch.taken, char{1});
    std::ranges::fill(scratch.competing, ranked<std::int32_t>{1 << 29, 7});
    for (index_t visible : {0, 5, 64, 200}) {
        auto const scores =
            test::random_scores<std::int32_t>(random, visible, test::row_shape::spread);
        auto const rule = row_rule::of(forced(budget::of_ratio(0.4), 2, 2), visible, 1.0);
        exec::counting x;
        std::vector<ranked<std::int32_t>> kept(300);
        index_t const count = contiguous_topk{}(x, sads::score_run<std::int32_t>{scores, 0}, rule,
                                                {50}, scratch, std::span(kept));
        kept.resize(static_cast<std::size_t>(count));
        CHECK(kept == test::expected_of_row(scores, rule, {50}, false));
    }
}

TEST_CASE_TEMPLATE("sads.segment_topk: counts ignore lane width", X, counting_lanes<4>,
                   counting_lanes<8>, counting_lanes<16>) {
    for_rows<std::int32_t>([](auto const& scores, row_rule const& rule, segmentation cut) {
        exec::counting narrow;
        X wide;
        REQUIRE(test::select(wide, contiguous_topk{}, scores, rule, cut) ==
                test::select(narrow, contiguous_topk{}, scores, rule, cut));
        REQUIRE(wide.probe == narrow.probe);
    });
}

TEST_CASE_TEMPLATE("sads.segment_topk: a watched number confirms the declared counts", Selector,
                   contiguous_topk, strided_topk) {
    for_rows<std::int32_t>([](auto const& scores, row_rule const& rule, segmentation cut) {
        test::watched_executor x;
        exec::counting plain;
        auto const expected = test::select(plain, Selector{}, scores, rule, cut);
        test::tally const seen = test::watch(
            [&] { REQUIRE(test::select(x, Selector{}, scores, rule, cut) == expected); });
        REQUIRE(x.probe == plain.probe);
        REQUIRE(seen.compares == x.probe.count(stage::selection, event::compare));
        REQUIRE(seen.adds == x.probe.count(stage::selection, event::add));
        REQUIRE(seen.multiplies + seen.shifts + seen.exps + seen.divides == 0);
    });
}

TEST_CASE(
    "sads.segment_topk: at S = 1024, n = 4, 25 % about 3 % of a spread row's indices differ") {
    SOFATTN_GENERATOR(random);
    auto const row = [&] {
        return test::random_scores<std::int32_t>(random, 1024, test::row_shape::spread);
    };
    double const contiguous = mean_index_error<contiguous_topk>(row);
    double const strided = mean_index_error<strided_topk>(row);
    MESSAGE("index error, spread rows: contiguous ", contiguous, ", strided ", strided);
    CHECK(contiguous > 0.02);
    CHECK(contiguous < 0.05);
    CHECK(strided > 0.02);
    CHECK(strided < 0.05);
}

TEST_CASE("sads.segment_topk: on clustered rows contiguous segments fail and strided ones do not") {
    SOFATTN_GENERATOR(random);
    SUBCASE("all big scores on one hill") {
        auto const row = [&] { return hill(random); };
        double const contiguous = mean_index_error<contiguous_topk>(row);
        double const strided = mean_index_error<strided_topk>(row);
        MESSAGE("index error, one hill: contiguous ", contiguous, ", strided ", strided);
        CHECK(contiguous > 0.10);
        CHECK(strided < 0.05);
    }
    SUBCASE("two neighbourhoods of 64 keys far above the rest") {
        auto const row = [&] {
            return test::random_scores<std::int32_t>(random, 1024, test::row_shape::clustered);
        };
        double const contiguous = mean_index_error<contiguous_topk>(row);
        double const strided = mean_index_error<strided_topk>(row);
        MESSAGE("index error, two neighbourhoods: contiguous ", contiguous, ", strided ", strided);
        CHECK(contiguous > 0.10);
        CHECK(strided < 0.05);
    }
}
