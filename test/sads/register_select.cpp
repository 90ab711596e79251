// SPDX-License-Identifier: MIT
// Every selector on vector registers against its definition: the same keys in the same order.
#include "core/aborts.hpp"
#include "support/generators.hpp"
#include <sofattn/exec/executor.hpp>
#include <sofattn/sads/adaptive.hpp>
#include <sofattn/sads/row_selectors.hpp>
#include <sofattn/sads/segment_topk.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace {

using namespace sofattn;
using sads::budget;
using sads::row_rule;

/// Any budget: counts and ratios, masses and errors, radius, limits either way, forced keys.
budget some_budget(test::generator& random, index_t visible) {
    budget b;
    switch (random.integer(0, 4)) {
    case 0: b = budget::of_count(random.integer<index_t>(1, std::max<index_t>(visible, 1))); break;
    case 1: b = budget::of_ratio(random.uniform(0.01, 1.0)); break;
    case 2: b = budget::of_mass(random.chance(0.1) ? 1.0 : random.uniform(0.05, 1.0)); break;
    case 3: b = budget::of_output_error(std::exp2(random.uniform(-12.0, 1.0))); break;
    default: break;
    }
    if (random.chance(0.3)) {
        b.radius = random.chance(0.1) ? 0.0 : random.uniform(0.0, 12.0);
    }
    if (random.chance(0.5)) {
        b.at_least = random.integer<index_t>(0, visible + 3);
    }
    if (random.chance(0.3)) {
        b.at_most = std::max<index_t>(1, b.at_least) + random.integer<index_t>(0, 20);
    }
    if (random.chance(0.5)) {
        b.sinks = random.integer<index_t>(0, random.chance(0.2) ? visible + 2 : 4);
        b.window = random.integer<index_t>(0, random.chance(0.2) ? visible + 2 : 20);
    }
    return b;
}

/// From one logit in all of the row's scores to thousands of them per score.
double some_step(test::generator& random) { return std::exp2(random.uniform(-24.0, 4.0)); }

template <class Selector, class Score, class X>
std::vector<ranked<Score>> selected(std::vector<Score> const& scores, row_rule const& rule,
                                    index_t segment, index_t tile,
                                    sads::select_scratch<Score>& scratch) {
    X x;
    std::vector<ranked<Score>> all;
    sads::running_row<Score> row;
    auto const keys = std::ssize(scores);
    for (index_t first = 0; first < keys; first += tile) {
        auto const part = std::span<Score const>(scores).subspan(
            static_cast<std::size_t>(first),
            static_cast<std::size_t>(std::min(tile, keys - first)));
        std::vector<ranked<Score>> kept(part.size());
        scratch.row = &row;
        auto const count = Selector{}(x, sads::score_run<Score>{part, static_cast<key_id>(first)},
                                      rule, sads::segmentation{segment}, scratch, std::span(kept));
        all.insert(all.end(), kept.begin(), kept.begin() + count);
    }
    return all;
}

template <class Selector, class Score>
void check(test::generator& random, index_t visible, sads::select_scratch<Score>& scratch) {
    auto const shape =
        test::all_row_shapes[random.integer<std::size_t>(0, test::all_row_shapes.size() - 1)];
    auto scores = test::random_scores<Score>(random, visible, shape);
    if (sizeof(Score) == 8 && random.chance(0.5)) { // beyond 32 bits
        for (Score& s : scores) {
            s = s * Score{1 << 16} + static_cast<Score>(random.integer(0, 3));
        }
    }
    double const step = some_step(random);
    budget const b = some_budget(random, visible);
    auto const position = random.integer<index_t>(0, visible - 1);
    row_rule const rule = random.chance(0.5) ? row_rule::of(b, visible, step)
                                             : row_rule::of(b, visible, step, position);
    auto const segment = random.integer<index_t>(1, random.chance(0.5) ? 20 : 200);
    index_t const tile = Selector::tile_ready ? segment * random.integer<index_t>(1, 3) : visible;
    CAPTURE(Selector::name);
    CAPTURE(visible);
    CAPTURE(static_cast<int>(shape));
    CAPTURE(segment);
    CAPTURE(tile);
    sads::select_scratch<Score> plain(visible);
    auto const wanted =
        selected<Selector, Score, exec::reference>(scores, rule, segment, tile, plain);
    auto const found = selected<Selector, Score, exec::simd>(scores, rule, segment, tile, scratch);
    REQUIRE(found == wanted);
}

} // namespace

TEST_CASE_TEMPLATE("sads.register_select: the keys of the definition, in its order", Selector,
                   sads::segment_topk<>, sads::segment_topk<sads::strided>, sads::full_topk,
                   sads::threshold, sads::keep_all, sads::adaptive<sads::whole_row>,
                   sads::adaptive<sads::tile_by_tile>, sads::adaptive<sads::grain_by_grain>) {
    SOFATTN_GENERATOR(random);
    // Buffers hold what the row before left.
    sads::select_scratch<std::int32_t> narrow(5000);
    sads::select_scratch<std::int64_t> wide(5000);
    for (index_t visible = 1; visible <= 140; ++visible) {
        for (int round = 0; round < 6; ++round) {
            check<Selector>(random, visible, narrow);
            check<Selector>(random, visible, wide);
        }
    }
    for (int round = 0; round < 60; ++round) {
        check<Selector>(random, random.integer<index_t>(140, 5000), narrow);
        check<Selector>(random, random.integer<index_t>(140, 3000), wide);
    }
}

TEST_CASE_TEMPLATE("sads.register_select: real scores go by the definition", Selector,
                   sads::segment_topk<>, sads::full_topk, sads::threshold,
                   sads::adaptive<sads::whole_row>) {
    SOFATTN_GENERATOR(random);
    sads::select_scratch<double> scratch(200);
    for (index_t visible = 1; visible <= 200; visible += 7) {
        check<Selector>(random, visible, scratch);
    }
}

TEST_CASE("sads.register_select: an empty run keeps nothing") {
    exec::simd x;
    sads::select_scratch<std::int32_t> scratch(1);
    std::vector<ranked<std::int32_t>> kept(1);
    row_rule const rule = row_rule::of(budget::of_ratio(0.5), 0, 1.0);
    sads::score_run<std::int32_t> const none{};
    CHECK(sads::segment_topk<>{}(x, none, rule, {4}, scratch, std::span(kept)) == 0);
    CHECK(sads::full_topk{}(x, none, rule, {4}, scratch, std::span(kept)) == 0);
    CHECK(sads::threshold{}(x, none, rule, {4}, scratch, std::span(kept)) == 0);
    CHECK(sads::adaptive<>{}(x, none, rule, {4}, scratch, std::span(kept)) == 0);
}

TEST_CASE_TEMPLATE("sads.register_select: buffers for fewer keys are refused", Selector,
                   sads::threshold, sads::adaptive<sads::whole_row>,
                   sads::adaptive<sads::grain_by_grain>) {
    exec::simd x;
    std::vector<std::int32_t> const scores(200, 3);
    sads::select_scratch<std::int32_t> none;
    std::vector<ranked<std::int32_t>> kept(scores.size());
    row_rule const rule = row_rule::of(budget::of_mass(0.5), 200, 1.0);
    SOFATTN_CHECK_ABORTS("buffers.spare", Selector{}(x, sads::score_run<std::int32_t>{scores, 0},
                                                     rule, {4}, none, std::span(kept)));
}
