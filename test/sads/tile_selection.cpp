// SPDX-License-Identifier: MIT
#include "sads/oracle.hpp"
#include "support/generators.hpp"
#include <sofattn/exec/executor.hpp>
#include <sofattn/sads/adaptive.hpp>
#include <sofattn/sads/tile_selection.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace {

using namespace sofattn;
using sads::budget;
using sads::row_rule;
using sads::tile_selection;

struct row_case {
    std::vector<std::int32_t> scores;
    row_rule rule;
};

/// The rule on every executor, and the same on registers, tile by tile over one row.
void check_row(row_case const& row, index_t tile) {
    auto const visible = std::ssize(row.scores);
    // Whatever lies behind the row must not matter.
    auto padded = row.scores;
    padded.resize(row.scores.size() + static_cast<std::size_t>(exec::vector_width), 1 << 28);
    exec::reference x;
    sads::running_row<std::int32_t> wanted_row;
    sads::select_scratch<std::int32_t> scratch(tile);
    scratch.row = &wanted_row;
    sads::grain_row found_row;
    tile_selection select;
    for (index_t first = 0; first < visible; first += tile) {
        index_t const count = std::min(tile, visible - first);
        CAPTURE(first);
        auto const scores =
            std::span(row.scores)
                .subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(count));
        std::vector<ranked<std::int32_t>> kept(scores.size());
        kept.resize(static_cast<std::size_t>(sads::adaptive<sads::grain_by_grain>{}(
            x, sads::score_run<std::int32_t>{scores, static_cast<key_id>(first)}, row.rule, {},
            scratch, std::span(kept))));
        std::vector<std::int32_t> wanted;
        for (auto const& entry : kept) {
            wanted.push_back(static_cast<std::int32_t>(entry.key - first));
        }
        std::ranges::sort(wanted);

        index_t const n = select(padded.data() + first, first, count, row.rule, found_row);
        std::vector<std::int32_t> found(select.kept().begin(), select.kept().end());
        REQUIRE(n == std::ssize(found));
        std::ranges::sort(found);
        REQUIRE(found == wanted);
        REQUIRE(found_row.top == wanted_row.top);
        REQUIRE(found_row.mass == wanted_row.mass);
        REQUIRE(found_row.dropped == wanted_row.dropped);
        REQUIRE(found_row.kept == wanted_row.kept);

        // What is dropped, key by key.
        for (index_t s = 0; s * tile_selection::segment < count; ++s) {
            tile_selection::dropped_keys dropped;
            for (index_t k = s * tile_selection::segment;
                 k < std::min(count, (s + 1) * tile_selection::segment); ++k) {
                if (!std::ranges::binary_search(wanted, static_cast<std::int32_t>(k))) {
                    dropped.weight += row.rule.drop.weights.weight(
                        found_row.top, scores[static_cast<std::size_t>(k)]);
                    ++dropped.count;
                }
            }
            REQUIRE(select.dropped(s).weight == dropped.weight);
            REQUIRE(select.dropped(s).count == dropped.count);
        }
    }
}

index_t pick(test::generator& random, std::vector<index_t> const& from) {
    return from[random.integer<std::size_t>(0, from.size() - 1)];
}

std::vector<budget> budgets() {
    std::vector<budget> all{budget{}};
    for (double const mass : {0.3, 0.9, 0.99, 1.0}) {
        all.push_back(budget::of_mass(mass));
    }
    for (double const error : {1e-3, 0.02, 0.2, 3.0}) {
        all.push_back(budget::of_output_error(error));
    }
    return all;
}

} // namespace

TEST_CASE("sads.tile_selection: keeps the keys of adaptive<grain_by_grain>, for all shapes") {
    SOFATTN_GENERATOR(random);
    for (index_t const visible : {1, 2, 15, 16, 17, 31, 64, 65, 256, 257, 300, 700}) {
        for (test::row_shape const shape : test::all_row_shapes) {
            for (budget b : budgets()) {
                b.at_least = pick(random, {0, 1, 1, 8, 40, 1000});
                b.sinks = pick(random, {0, 0, 1, 4, 70});
                b.window = pick(random, {0, 0, 1, 16, 100});
                if (random.chance(0.3)) {
                    b.at_most = std::max<index_t>(b.at_least, random.integer<index_t>(1, 60));
                }
                if (random.chance(0.3)) {
                    b.radius = random.uniform(0.0, 12.0);
                }
                CAPTURE(visible);
                CAPTURE(static_cast<int>(shape));
                CAPTURE(b.mass.value_or(-1.0));
                CAPTURE(b.output_error.value_or(-1.0));
                CAPTURE(b.at_least);
                CAPTURE(b.at_most.value_or(-1));
                CAPTURE(b.radius);
                CAPTURE(b.sinks);
                CAPTURE(b.window);
                // Logits from all the same to far apart.
                double const logits = std::exp2(random.uniform(-24.0, 3.0));
                row_case row;
                row.scores = test::random_scores<std::int32_t>(random, visible, shape);
                row.rule =
                    random.chance(0.3)
                        ? row_rule::of(b, visible, logits, random.integer<index_t>(0, visible - 1))
                        : row_rule::of(b, visible, logits);
                check_row(row, pick(random, {1, 7, 64, 100, 256}));
                check_row(row, tile_selection::tile_keys);
            }
        }
    }
}

TEST_CASE("sads.tile_selection: rows whose best score rises from tile to tile") {
    SOFATTN_GENERATOR(random);
    for (budget const& b : budgets()) {
        row_case row;
        for (int k = 0; k < 2000; ++k) {
            row.scores.push_back(k * 20 + random.integer(-3000, 3000));
        }
        row.rule = row_rule::of(b, std::ssize(row.scores), 1e-3);
        check_row(row, tile_selection::tile_keys);
        check_row(row, 64);
    }
}
