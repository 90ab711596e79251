// SPDX-License-Identifier: MIT
// adaptive<grain_by_grain> against its contract, by trial.
#include "sads/oracle.hpp"
#include "support/generators.hpp"
#include <sofattn/exec/executor.hpp>
#include <sofattn/sads/adaptive.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numbers>
#include <span>
#include <vector>

namespace {

using namespace sofattn;
using sads::budget;
using sads::row_rule;
using sads::weight_scale;
using grains = sads::adaptive<sads::grain_by_grain>;

static_assert(sads::adaptive_policy<sads::grain_by_grain>);
static_assert(!grains::tile_ready && grains::sorted && grains::weighs);

std::int32_t away(row_rule const& rule, std::int32_t top, std::int32_t score) {
    weight_scale const& weights = rule.drop.weights;
    return weight_scale::position_distance(weights.position(top), weights.position(score));
}
std::int32_t grain_of(row_rule const& rule, std::int32_t top, std::int32_t score) {
    return away(rule, top, score) >> (weight_scale::step_bits - 3);
}

/// A row of one tile: every cut is tried, from the one that drops everything up.
std::vector<ranked<std::int32_t>> expected_of(std::vector<std::int32_t> const& scores,
                                              row_rule const& rule, budget const& allowed) {
    std::int32_t const top = *std::ranges::max_element(scores);
    std::vector<ranked<std::int32_t>> forced;
    std::vector<ranked<std::int32_t>> competing;
    std::uint64_t mass = 0;
    for (auto const& entry : test::entries_of(scores)) {
        (rule.is_forced(entry.key) ? forced : competing).push_back(entry);
        mass += weight_scale::weight_at(away(rule, top, entry.score));
    }
    auto const count_before = [&](std::int32_t grain) {
        return std::ranges::count_if(
            competing, [&](auto const& entry) { return grain_of(rule, top, entry.score) < grain; });
    };
    std::int32_t const beyond =
        grain_of(rule, top, std::numeric_limits<std::int32_t>::min() / 2) + 300;
    std::int32_t cut = 0;
    for (; cut < beyond; ++cut) {
        std::uint64_t cost = 0;
        for (auto const& entry : competing) {
            if (grain_of(rule, top, entry.score) >= cut) {
                cost += rule.drop.cost_at(away(rule, top, entry.score));
            }
        }
        double const reach = allowed.radius < 1e9 ? rule.radius : 1e18;
        bool const is_out =
            cut > (rule.drop.weights.distance(reach, 0.0) >> (weight_scale::step_bits - 3));
        bool const is_over = allowed.at_most && count_before(cut + 1) > *allowed.at_most;
        index_t const least = rule.at_least - std::ssize(forced);
        bool const is_allowed = (allowed.mass || allowed.output_error) &&
                                count_before(cut) >= least && cost <= rule.drop.allowance(mass);
        if (is_out || is_over || is_allowed) {
            break;
        }
    }
    std::vector<ranked<std::int32_t>> kept = forced;
    for (auto const& entry : competing) {
        if (grain_of(rule, top, entry.score) < cut) {
            kept.push_back(entry);
        }
    }
    test::sort_in_total_order(kept);
    return kept;
}

template <class X>
std::vector<ranked<std::int32_t>> select(X& x, std::vector<std::int32_t> const& scores,
                                         row_rule const& rule) {
    sads::select_scratch<std::int32_t> scratch(std::ssize(scores));
    std::vector<ranked<std::int32_t>> kept(scores.size());
    kept.resize(static_cast<std::size_t>(
        grains{}(x, sads::score_run<std::int32_t>{scores, 0}, rule, {}, scratch, std::span(kept))));
    return kept;
}

} // namespace

TEST_CASE("sads.adaptive: whole grains go as far as the budget allows, on every executor") {
    SOFATTN_GENERATOR(random);
    for (index_t const visible : {1, 2, 15, 40, 130}) {
        for (test::row_shape const shape : test::all_row_shapes) {
            for (int round = 0; round < 60; ++round) {
                budget b;
                if (round % 3 == 0) {
                    b = budget::of_mass(random.uniform(0.2, 1.0));
                } else if (round % 3 == 1) {
                    b = budget::of_output_error(std::exp2(random.uniform(-10.0, 1.0)));
                }
                b.at_least = random.integer<index_t>(0, 12);
                b.sinks = random.integer<index_t>(0, 3);
                b.window = random.integer<index_t>(0, 9);
                if (random.chance(0.3)) {
                    b.at_most = std::max<index_t>({1, b.at_least, random.integer<index_t>(1, 30)});
                }
                if (random.chance(0.3)) {
                    b.radius = random.uniform(0.0, 12.0);
                }
                double const logits = std::exp2(random.uniform(-20.0, 1.0));
                auto const scores = test::random_scores<std::int32_t>(random, visible, shape);
                auto const rule = row_rule::of(b, visible, logits);
                CAPTURE(visible);
                CAPTURE(round);
                CAPTURE(b.at_least);
                CAPTURE(b.at_most.value_or(-1));
                CAPTURE(b.radius);
                exec::reference x;
                auto const found = select(x, scores, rule);
                REQUIRE(found == expected_of(scores, rule, b));
                exec::counting counted;
                REQUIRE(select(counted, scores, rule) == found);
            }
        }
    }
}

TEST_CASE(
    "sads.adaptive: in whole grains never fewer keys than one by one, and the same best ones") {
    SOFATTN_GENERATOR(random);
    for (int round = 0; round < 300; ++round) {
        auto const shape =
            test::all_row_shapes[random.integer<std::size_t>(0, test::all_row_shapes.size() - 1)];
        // Scores that are positions already, so that both rules weigh the same numbers.
        auto scores = test::random_scores<std::int32_t>(random, 200, shape);
        double const logits = std::exp2(random.uniform(-16.0, -8.0));
        for (std::int32_t& score : scores) {
            score = weight_scale(logits).position(score);
        }
        auto const rule =
            row_rule::of(budget::of_output_error(std::exp2(random.uniform(-8.0, 0.0))), 200,
                         std::numbers::ln2 / (1 << weight_scale::position_bits));
        exec::reference x;
        sads::select_scratch<std::int32_t> scratch(200);
        std::vector<ranked<std::int32_t>> exact(scores.size());
        exact.resize(static_cast<std::size_t>(sads::adaptive<>{}(
            x, sads::score_run<std::int32_t>{scores, 0}, rule, {}, scratch, std::span(exact))));
        auto const coarse = select(x, scores, rule);
        REQUIRE(coarse.size() >= exact.size());
        REQUIRE(std::equal(exact.begin(), exact.end(), coarse.begin()));
    }
}
