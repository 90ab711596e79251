// SPDX-License-Identifier: MIT
#include "support/generators.hpp"
#include <sofattn/core/error.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/sads/budget.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <string>

namespace {

using sofattn::index_t;
using sofattn::sads::budget;
using sofattn::sads::row_rule;

constexpr double infinity = std::numeric_limits<double>::infinity();

sofattn::error refusal_of(budget const& b, index_t keys) {
    try {
        b.validate(keys);
    } catch (sofattn::error const& e) {
        return e;
    }
    return {"nothing", "accepted", "refused"};
}

row_rule rule_keeping(index_t visible, index_t keep) {
    row_rule rule;
    rule.visible = visible;
    rule.keep = keep;
    return rule;
}

} // namespace

TEST_CASE("sads.budget: a ratio keeps the nearest count, halves round up") {
    CHECK(budget::of_ratio(0.25).keys_for(1024) == 256);
    CHECK(budget::of_ratio(0.1).keys_for(24) == 2);  // 2.4
    CHECK(budget::of_ratio(0.1).keys_for(26) == 3);  // 2.6
    CHECK(budget::of_ratio(0.25).keys_for(10) == 3); // 2.5
    CHECK(budget::of_ratio(0.25).keys_for(14) == 4); // 3.5
    CHECK(budget::of_ratio(1.0).keys_for(77) == 77);
}

TEST_CASE("sads.budget: every row with keys keeps at least one, and a row without keeps none") {
    CHECK(budget::of_ratio(0.001).keys_for(1) == 1);
    CHECK(budget::of_ratio(0.001).keys_for(100) == 1);
    for (budget const& b : {budget{}, budget::of_ratio(0.5), budget::of_count(4)}) {
        CHECK(b.keys_for(0) == 0);
    }
}

TEST_CASE(
    "sads.budget: the minimum count raises small ratios and short rows, up to what is visible") {
    budget b = budget::of_ratio(0.1);
    b.at_least = 8;
    CHECK(b.keys_for(40) == 8);
    CHECK(b.keys_for(5) == 5);
    CHECK(b.keys_for(200) == 20);
    b.at_least = 0;
    CHECK(b.keys_for(2) == 1);
    budget fixed = budget::of_count(3);
    fixed.at_least = 8;
    CHECK(fixed.keys_for(40) == 8);
}

TEST_CASE("sads.budget: a count replaces the ratio and never exceeds the visible keys") {
    budget b = budget::of_count(16);
    b.ratio = 0.5;
    CHECK(b.keys_for(1000) == 16);
    CHECK(b.keys_for(16) == 16);
    CHECK(b.keys_for(9) == 9);
}

TEST_CASE("sads.budget: a radius alone limits no count") {
    budget const b = budget::of_radius(5.0);
    CHECK(b.radius == 5.0);
    CHECK(b.keys_for(300) == 300);
    CHECK(budget{}.radius == infinity);
}

TEST_CASE("sads.budget: rules that rows can follow are accepted") {
    CHECK_NOTHROW(budget{}.validate(0));
    CHECK_NOTHROW(budget::of_ratio(1.0).validate(1));
    CHECK_NOTHROW(budget::of_ratio(0x1p-40).validate(1));
    CHECK_NOTHROW(budget::of_count(1).validate(1));
    CHECK_NOTHROW(budget::of_count(64).validate(64));
    CHECK_NOTHROW(budget::of_radius(0.0).validate(64));
    budget forced;
    forced.at_least = forced.sinks = forced.window = 100; // more than there is: all of them
    CHECK_NOTHROW(forced.validate(64));
    budget counted = budget::of_count(2);
    counted.ratio = 7.0; // not looked at
    CHECK_NOTHROW(counted.validate(64));
    CHECK_NOTHROW(budget::of_mass(1.0).validate(64));
    CHECK_NOTHROW(budget::of_mass(0x1p-40).validate(64));
    CHECK_NOTHROW(budget::of_output_error(1e-300).validate(64));
    CHECK_NOTHROW(budget::of_output_error(1e300).validate(64));
    budget capped = budget::of_mass(0.5);
    capped.at_least = capped.at_most.emplace(100); // more than there is
    CHECK_NOTHROW(capped.validate(64));
    capped.at_least = 0;
    capped.at_most = 1;
    CHECK_NOTHROW(capped.validate(64));
}

TEST_CASE("sads.budget: a refusal names what, value and limit") {
    SUBCASE("ratio") {
        for (double ratio : {0.0, -0.5, 1.5, infinity, std::numeric_limits<double>::quiet_NaN()}) {
            CAPTURE(ratio);
            sofattn::error const e = refusal_of(budget::of_ratio(ratio), 64);
            CHECK(e.subject() == "budget: ratio of keys kept");
            CHECK(e.value() == std::to_string(ratio));
            CHECK(e.limit() == "in (0, 1]");
        }
        CHECK(std::string(refusal_of(budget::of_ratio(1.5), 64).what()) ==
              "budget: ratio of keys kept is 1.500000, must be in (0, 1]");
    }
    SUBCASE("count") {
        for (index_t count : {index_t{-1}, index_t{0}, index_t{65}}) {
            CAPTURE(count);
            sofattn::error const e = refusal_of(budget::of_count(count), 64);
            CHECK(e.subject() == "budget: count of keys kept");
            CHECK(e.value() == std::to_string(count));
            CHECK(e.limit() == "from 1 to the number of keys, 64");
        }
    }
    SUBCASE("radius") {
        for (double radius : {-1.0, -infinity, std::numeric_limits<double>::quiet_NaN()}) {
            CAPTURE(radius);
            sofattn::error const e = refusal_of(budget::of_radius(radius), 64);
            CHECK(e.subject() == "budget: radius in logits");
            CHECK(e.value() == std::to_string(radius));
            CHECK(e.limit() == "at least 0");
        }
    }
    SUBCASE("mass") {
        for (double mass : {0.0, -0.1, 1.5, infinity, std::numeric_limits<double>::quiet_NaN()}) {
            CAPTURE(mass);
            sofattn::error const e = refusal_of(budget::of_mass(mass), 64);
            CHECK(e.subject() == "budget: softmax mass kept");
            CHECK(e.value() == std::to_string(mass));
            CHECK(e.limit() == "in (0, 1]");
        }
    }
    SUBCASE("output error") {
        for (double spreads : {0.0, -1.0, infinity, std::numeric_limits<double>::quiet_NaN()}) {
            CAPTURE(spreads);
            sofattn::error const e = refusal_of(budget::of_output_error(spreads), 64);
            CHECK(e.subject() == "budget: output error in spreads");
            CHECK(e.value() == std::to_string(spreads));
            CHECK(e.limit() == "positive and finite");
        }
        budget both = budget::of_output_error(0.25);
        both.mass = 0.9;
        sofattn::error const e = refusal_of(both, 64);
        CHECK(e.subject() == "budget: output error in spreads");
        CHECK(e.value() == "0.250000");
        CHECK(e.limit() == "left out where a softmax mass is given");
    }
    SUBCASE("maximum count") {
        budget b;
        b.at_least = 5;
        b.at_most = 4;
        CHECK(refusal_of(b, 64).subject() == "budget: maximum count");
        CHECK(refusal_of(b, 64).value() == "4");
        CHECK(refusal_of(b, 64).limit() == "at least the minimum count, 5");
        b.at_least = 0; // a row keeps one key all the same
        b.at_most = 0;
        CHECK(refusal_of(b, 64).value() == "0");
        CHECK(refusal_of(b, 64).limit() == "at least the minimum count, 1");
    }
    SUBCASE("minimum count, sinks, window") {
        budget b;
        b.at_least = -1;
        CHECK(refusal_of(b, 64).subject() == "budget: minimum count");
        b = {};
        b.sinks = -2;
        CHECK(refusal_of(b, 64).subject() == "budget: sinks");
        CHECK(refusal_of(b, 64).value() == "-2");
        b = {};
        b.window = -3;
        CHECK(refusal_of(b, 64).subject() == "budget: window");
        CHECK(refusal_of(b, 64).limit() == "at least 0");
    }
}

TEST_CASE(
    "sads.row_rule: a budget applied to a row counts keys and measures the radius in scores") {
    budget b = budget::of_ratio(0.25);
    b.radius = 6.0;
    b.sinks = 2;
    b.window = 3;
    row_rule const rule = row_rule::of(b, 40, 0.5);
    CHECK(rule.visible == 40);
    CHECK(rule.keep == 10);
    CHECK(rule.radius == 12.0);
    CHECK(rule.sinks == 2);
    CHECK(rule.window == 3);
    CHECK(row_rule::of(budget{}, 40, 0.01).radius == infinity);
    CHECK(row_rule::of(b, 0, 1.0).keep == 0);
}

TEST_CASE("sads.row_rule: an adaptive budget gives a rule for dropping, any other gives none") {
    using sofattn::sads::drop_measure;
    using sofattn::sads::weight_scale;
    budget b = budget::of_mass(0.75);
    row_rule rule = row_rule::of(b, 40, 0.5);
    CHECK(rule.drop.measure == drop_measure::mass);
    CHECK(rule.drop.mass_share == std::uint64_t{1} << 30);
    CHECK(rule.drop.weights.weight(8, 2) == weight_scale(0.5).weight(8, 2));
    b = budget::of_output_error(0.125);
    rule = row_rule::of(b, 40, 0.25, 10);
    CHECK(rule.drop.measure == drop_measure::error);
    CHECK(rule.drop.error == 0.125);
    CHECK(rule.drop.weights.weight(8, 2) == weight_scale(0.25).weight(8, 2));
    CHECK(row_rule::of(budget::of_ratio(0.5), 40, 0.5).drop.measure == drop_measure::nothing);
    CHECK(row_rule::of(budget::of_radius(3.0), 40, 0.5).drop.measure == drop_measure::nothing);
}

TEST_CASE("sads.row_rule: the least count fits the row and is 1 at least, the most is as given") {
    budget b = budget::of_mass(0.5);
    CHECK(row_rule::of(b, 40, 1.0).at_least == 1);
    CHECK(row_rule::of(b, 40, 1.0).at_most == std::numeric_limits<index_t>::max());
    b.at_least = 7;
    b.at_most = 9;
    CHECK(row_rule::of(b, 40, 1.0).at_least == 7);
    CHECK(row_rule::of(b, 40, 1.0).at_most == 9);
    CHECK(row_rule::of(b, 3, 1.0).at_least == 3);
    CHECK(row_rule::of(b, 3, 1.0, 1).at_most == 9);
    CHECK(row_rule::of(b, 0, 1.0).at_least == 0);
    b.at_least = 0;
    CHECK(row_rule::of(b, 40, 1.0).at_least == 1);
}

TEST_CASE("sads.row_rule: tiles share the least count as segments share the budget") {
    budget b = budget::of_count(96);
    b.at_least = 10;
    row_rule const rule = row_rule::of(b, 96, 1.0);
    CHECK(rule.least_share(0) == 0);
    CHECK(rule.least_share(1) == 1); // rounded up: the first tile has its key
    CHECK(rule.least_share(48) == 5);
    CHECK(rule.least_share(96) == 10);
    CHECK(rule.share(48) == 48);
    CHECK(row_rule::of(b, 0, 1.0).least_share(0) == 0);
}

TEST_CASE("sads.row_rule: the first sinks and the last window of the visible keys are forced") {
    row_rule rule = rule_keeping(10, 5);
    rule.sinks = 2;
    rule.window = 3;
    std::string forced;
    for (index_t key = 0; key < 10; ++key) {
        forced += rule.is_forced(key) ? 'x' : '.';
    }
    CHECK(forced == "xx.....xxx");
    rule.window = 30;
    CHECK(rule.is_forced(5));
    rule = rule_keeping(10, 5);
    CHECK_FALSE(rule.is_forced(0));
    CHECK_FALSE(rule.is_forced(9));
}

TEST_CASE("sads.row_rule: without a causal mask the window lies around the query's position") {
    budget b = budget::of_ratio(0.5);
    b.window = 4;
    auto const window_at = [&](index_t position) {
        row_rule const rule = row_rule::of(b, 10, 1.0, position);
        std::string forced;
        for (index_t key = 0; key < 10; ++key) {
            forced += rule.is_forced(key) ? 'x' : '.';
        }
        return forced;
    };
    CHECK(window_at(0) == "xxxx......"); // moved inside
    CHECK(window_at(1) == "xxxx......");
    CHECK(window_at(2) == ".xxxx.....");
    CHECK(window_at(5) == "....xxxx..");
    CHECK(window_at(7) == "......xxxx");
    CHECK(window_at(8) == "......xxxx"); // moved inside
    CHECK(window_at(9) == "......xxxx");
    b.window = 3;
    CHECK(window_at(5) == "....xxx...");
    b.window = 1;
    CHECK(window_at(5) == ".....x....");
    b.window = 0;
    CHECK(window_at(5) == "..........");
    b.window = 12;
    CHECK(window_at(5) == "xxxxxxxxxx");
    b.window = 2;
    b.sinks = 3;
    CHECK(window_at(5) == "xxx..xx...");
}

TEST_CASE("sads.row_rule: a window forces as many keys as it is wide, the query's own among them") {
    for (index_t visible = 1; visible <= 20; ++visible) {
        for (index_t window = 0; window <= 25; ++window) {
            budget b;
            b.window = window;
            for (index_t position = 0; position < visible; ++position) {
                row_rule const rule = row_rule::of(b, visible, 1.0, position);
                index_t forced = 0;
                for (index_t key = 0; key < visible; ++key) {
                    forced += rule.is_forced(key) ? 1 : 0;
                }
                REQUIRE(forced == std::min(window, visible));
                REQUIRE(rule.is_forced(position) == (window > 0));
            }
        }
    }
}

TEST_CASE("sads.row_rule: a causal row's window is the same with and without its position") {
    budget b = budget::of_ratio(0.3);
    b.window = 5;
    for (index_t visible = 1; visible <= 12; ++visible) {
        row_rule const last = row_rule::of(b, visible, 1.0, visible - 1);
        row_rule const plain = row_rule::of(b, visible, 1.0);
        CHECK(last.after_window == plain.after_window);
        CHECK(last.keep == plain.keep);
        CHECK(last.window == plain.window);
    }
}

TEST_CASE("sads.row_rule: shares of 4 segments of 256 are a quarter of the budget each") {
    row_rule const rule = rule_keeping(1024, 256);
    for (index_t s = 0; s < 4; ++s) {
        CHECK(rule.share((s + 1) * 256) - rule.share(s * 256) == 64);
    }
    CHECK(rule_keeping(0, 0).share(0) == 0);
}

TEST_CASE("sads.row_rule: shares sum to keep and never exceed a segment, however a row is cut") {
    SOFATTN_GENERATOR(random);
    auto const up_to = [&](index_t most) { return random.integer<index_t>(0, most); };
    for (int round = 0; round < 20000; ++round) {
        index_t const visible = 1 + up_to(round % 4 == 0 ? 1'000'000 : 300);
        row_rule const rule = rule_keeping(visible, up_to(visible));
        index_t seen = 0;
        index_t kept = 0;
        bool each_fits = true;
        while (seen < visible) {
            index_t const length = 1 + up_to(visible - seen - 1) / (round % 3 + 1);
            index_t const share = rule.share(seen + length) - rule.share(seen);
            each_fits = each_fits && share >= 0 && share <= length;
            kept += share;
            seen += length;
        }
        CAPTURE(visible);
        CAPTURE(rule.keep);
        REQUIRE(each_fits);
        REQUIRE(kept == rule.keep);
    }
}

TEST_CASE("sads.row_rule: segments of equal length get shares that differ by one at most") {
    for (index_t keep = 1; keep <= 96; ++keep) {
        row_rule const rule = rule_keeping(96, keep);
        for (index_t s = 0; s < 8; ++s) {
            index_t const share = rule.share((s + 1) * 12) - rule.share(s * 12);
            REQUIRE((share == keep / 8 || share == keep / 8 + 1));
        }
    }
}
