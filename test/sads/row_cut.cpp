// SPDX-License-Identifier: MIT
// The cut and the kept keys on vector registers against adaptive<grain_by_grain>.
#include "sads/oracle.hpp"
#include "support/generators.hpp"
#include <sofattn/exec/executor.hpp>
#include <sofattn/sads/adaptive.hpp>
#include <sofattn/sads/kept_tile.hpp>
#include <sofattn/sads/row_cut.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace {

using namespace sofattn;
using sads::budget;
using sads::kept_tile;
using sads::row_rule;

struct row_case {
    std::vector<std::int32_t> scores;
    row_rule rule;
};

std::vector<key_id> reference_keys(row_case const& row) {
    exec::reference x;
    sads::select_scratch<std::int32_t> scratch(std::ssize(row.scores));
    std::vector<ranked<std::int32_t>> kept(row.scores.size());
    kept.resize(static_cast<std::size_t>(sads::adaptive<sads::grain_by_grain>{}(
        x, sads::score_run<std::int32_t>{row.scores, 0}, row.rule, {}, scratch, std::span(kept))));
    std::vector<key_id> keys;
    for (auto const& entry : kept) {
        keys.push_back(entry.key);
    }
    std::ranges::sort(keys);
    return keys;
}

sads::looked_pages first_pages(index_t count) {
    return sads::looked_pages(static_cast<std::uint32_t>((std::uint64_t{1} << count) - 1));
}

void check_row(row_case const& row, sads::find_cut& find, kept_tile& tile) {
    auto const visible = std::ssize(row.scores);
    auto const wanted = reference_keys(row);
    // Whatever lies behind the row must not matter.
    std::vector<std::int16_t> positions(
        static_cast<std::size_t>(ceil_div<index_t>(visible, kept_tile::segment) *
                                 kept_tile::segment),
        std::int16_t{30000});
    auto const& weights = row.rule.drop.weights;
    for (std::size_t k = 0; k < row.scores.size(); ++k) {
        positions[k] = static_cast<std::int16_t>(weights.position(row.scores[k]));
    }
    auto const as_given = positions;
    sads::row_cut const cut = find(positions, row.rule);
    REQUIRE(cut.top == *std::max_element(as_given.begin(), as_given.begin() + visible));

    std::vector<key_id> found;
    for (index_t first = 0; first < visible; first += kept_tile::most) {
        index_t const count = std::min(kept_tile::most, std::ssize(positions) - first);
        tile.choose<true>(std::span(positions).subspan(static_cast<std::size_t>(first),
                                                       static_cast<std::size_t>(count)),
                          first_pages(count / kept_tile::page), cut);
        for (index_t i = 0; i < tile.count(); ++i) {
            std::int16_t const key = tile.keys()[static_cast<std::size_t>(i)];
            REQUIRE(tile.positions()[i] == as_given[static_cast<std::size_t>(first + key)]);
        }
        index_t const end = std::min(first + kept_tile::most, visible);
        for (auto const& run : sads::forced_keys(row.rule, first, end)) {
            for (index_t key = run.from; key < run.to; ++key) {
                REQUIRE(row.rule.is_forced(key));
                tile.add(static_cast<std::int16_t>(key - first), cut.top);
            }
        }
        for (index_t i = 0; i < exec::short_width; ++i) {
            REQUIRE(tile.positions()[tile.count() + i] == sads::no_key);
        }
        for (std::int16_t const key : tile.keys()) {
            found.push_back(static_cast<key_id>(first + key));
        }
        for (index_t s = 0; s * kept_tile::segment < count; ++s) {
            index_t const from = first + s * kept_tile::segment;
            double weight = 0;
            index_t dropped = 0;
            for (index_t k = from; k < std::min(from + kept_tile::segment, visible); ++k) {
                if (!std::ranges::binary_search(wanted, static_cast<key_id>(k))) {
                    ++dropped;
                    weight += std::exp2(
                        static_cast<double>(as_given[static_cast<std::size_t>(k)] - cut.top) /
                        256.0);
                }
            }
            REQUIRE(tile.is_looked_at(s));
            double const best_dropped = std::exp2((cut.dropped_top - cut.top) / 256.0);
            double const off = std::abs(static_cast<double>(tile.dropped_weight(s)) - weight);
            REQUIRE(off <=
                    3e-4 * weight + 0x1p-16 * best_dropped * static_cast<double>(dropped) + 1e-37);
        }
    }
    std::ranges::sort(found);
    REQUIRE(found == wanted);
    std::int32_t best_dropped = sads::weight_scale::lowest_position - 1;
    for (std::size_t k = 0; k < row.scores.size(); ++k) {
        if (!std::ranges::binary_search(wanted, static_cast<key_id>(k))) {
            best_dropped = std::max<std::int32_t>(best_dropped, as_given[k]);
        }
    }
    REQUIRE(cut.dropped_top == best_dropped);
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

TEST_CASE("sads.row_cut: keeps the keys of adaptive<grain_by_grain>, for all shapes") {
    SOFATTN_GENERATOR(random);
    sads::find_cut find;
    kept_tile tile;
    for (index_t const visible : {1, 2, 15, 16, 17, 31, 64, 65, 256, 257, 512, 700, 1300}) {
        for (test::row_shape const shape : test::all_row_shapes) {
            for (budget b : budgets()) {
                b.at_least = pick(random, {0, 1, 1, 8, 40, 1000});
                b.sinks = pick(random, {0, 0, 1, 4, 70});
                b.window = pick(random, {0, 0, 1, 16, 100, 600});
                if (random.chance(0.3)) {
                    b.radius = random.uniform(0.0, 12.0);
                }
                CAPTURE(visible);
                CAPTURE(static_cast<int>(shape));
                CAPTURE(b.mass.value_or(-1.0));
                CAPTURE(b.output_error.value_or(-1.0));
                CAPTURE(b.at_least);
                CAPTURE(b.radius);
                CAPTURE(b.sinks);
                CAPTURE(b.window);
                // Logits from all the same to far apart, out of the positions' range too.
                double const logits = std::exp2(random.uniform(-24.0, 3.0));
                row_case row;
                row.scores = test::random_scores<std::int32_t>(random, visible, shape);
                row.rule =
                    random.chance(0.3)
                        ? row_rule::of(b, visible, logits, random.integer<index_t>(0, visible - 1))
                        : row_rule::of(b, visible, logits);
                check_row(row, find, tile);
            }
        }
    }
}

TEST_CASE("sads.row_cut: long rows, whose near keys fit a list and do not") {
    SOFATTN_GENERATOR(random);
    sads::find_cut find;
    kept_tile tile;
    for (budget b : budgets()) {
        for (double const spread : {0.0, 0.3, 1.0, 3.0, 9.0}) { // logits
            CAPTURE(b.mass.value_or(-1.0));
            CAPTURE(b.output_error.value_or(-1.0));
            CAPTURE(spread);
            b.at_least = pick(random, {1, 300});
            row_case row;
            index_t const keys = random.integer<index_t>(6000, 9000);
            for (index_t k = 0; k < keys; ++k) {
                // A drift, so that no sample tells all.
                double const logit =
                    spread * (random.uniform(-2.0, 2.0) + random.uniform(-2.0, 2.0) +
                              2.0 * static_cast<double>(k) / static_cast<double>(keys));
                row.scores.push_back(static_cast<std::int32_t>(1e4 * logit));
            }
            if (random.chance(0.5)) { // one that outweighs all
                row.scores[random.integer<std::size_t>(0, row.scores.size() - 1)] = 150000;
            }
            row.rule = row_rule::of(b, keys, 1e-4);
            check_row(row, find, tile);
        }
    }
}

TEST_CASE("sads.kept_tile: pages that are not looked at have no place, and count for nothing") {
    SOFATTN_GENERATOR(random);
    kept_tile tile;
    for (int round = 0; round < 300; ++round) {
        std::uint32_t looked = 0;
        for (int p = 0; p < 32; ++p) {
            looked |= random.chance(random.chance(0.3) ? 0.9 : 0.2) ? 1u << p : 0u;
        }
        sads::looked_pages const pages(looked);
        REQUIRE(pages.count() == std::popcount(looked));
        // Behind the places lies another tile's best key.
        std::vector<std::int16_t> positions(
            static_cast<std::size_t>(pages.count() * kept_tile::page) + 64, std::int16_t{9000});
        sads::row_cut cut;
        cut.top = 8000;
        cut.limit = static_cast<std::int16_t>(random.integer(4000, 7990));
        cut.dropped_top = cut.limit;
        std::array<double, 8> weights{};
        std::array<bool, 8> has_page{};
        std::vector<std::int16_t> wanted;
        std::size_t place = 0;
        for (int key = 0; key < 512; ++key) {
            if ((looked >> (key / 16) & 1u) == 0) {
                continue;
            }
            std::int16_t const at = random.chance(0.1)
                                        ? sads::no_key
                                        : static_cast<std::int16_t>(random.integer(1000, 8000));
            positions[place++] = at;
            auto const s = static_cast<std::size_t>(key / 64);
            has_page[s] = true;
            if (at > cut.limit) {
                wanted.push_back(static_cast<std::int16_t>(key));
            } else {
                weights[s] += std::exp2((at - cut.top) / 256.0);
            }
        }
        tile.choose<true>(std::span<std::int16_t const>(positions).first(place), pages, cut);
        REQUIRE(std::ranges::equal(tile.keys(), wanted));
        REQUIRE(tile.positions()[tile.count()] == sads::no_key);
        for (index_t s = 0; s < kept_tile::segments; ++s) {
            auto const at = static_cast<std::size_t>(s);
            REQUIRE(tile.is_looked_at(s) == has_page[at]);
            double const unit = std::exp2((cut.dropped_top - cut.top) / 256.0);
            REQUIRE(std::abs(static_cast<double>(tile.dropped_weight(s)) - weights[at]) <=
                    3e-4 * weights[at] + 64 * 0x1p-16 * unit);
        }
        // The same without the last, cut page.
        if (pages.count() > 0) {
            auto const fewer = place - static_cast<std::size_t>(kept_tile::page);
            tile.choose<true>(std::span<std::int16_t const>(positions).first(fewer), pages, cut);
            REQUIRE(tile.count() <= std::ssize(wanted));
            REQUIRE(std::ranges::equal(
                tile.keys(), std::span(wanted).first(static_cast<std::size_t>(tile.count()))));
        }
    }
}
