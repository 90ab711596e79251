// SPDX-License-Identifier: MIT
#include "sads/oracle.hpp"
#include "support/generators.hpp"
#include "support/watched.hpp"
#include <sofattn/core/order.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/exec/executor.hpp>
#include <sofattn/sads/adaptive.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <numbers>
#include <optional>
#include <span>
#include <utility>
#include <vector>

namespace {

using namespace sofattn;
using probe::event;
using probe::stage;
using sads::adaptive;
using sads::budget;
using sads::row_rule;

using exact_rule = adaptive<>;
using running_rule = adaptive<sads::tile_by_tile>;

template <index_t Width>
using counting_lanes =
    exec::executor<exec::scalar_lanes<Width>, probe::ledger, exec::reference::real_type>;

struct later : sads::tile_by_tile {};
struct never {};
struct numbered {
    [[maybe_unused]] static constexpr int when = 1; // an enumerator, not a number, is asked for
};
static_assert(sads::adaptive_policy<sads::whole_row> && sads::adaptive_policy<sads::tile_by_tile>);
static_assert(sads::adaptive_policy<later>);
static_assert(!sads::adaptive_policy<never> && !sads::adaptive_policy<numbered>);
static_assert(!exact_rule::tile_ready && exact_rule::sorted && exact_rule::weighs);
static_assert(running_rule::tile_ready && running_rule::sorted && running_rule::weighs);

/// A row, what it may keep, and logits per unit of its scores.
template <class Score>
struct row_case {
    std::vector<Score> scores;
    budget allowed;
    double logits = 0.0;
    row_rule rule;

    [[nodiscard]] index_t visible() const { return std::ssize(scores); }
    [[nodiscard]] bool is_forced(key_id key) const {
        index_t const to_window_end = visible() - rule.after_window - key;
        return key < allowed.sinks || (to_window_end > 0 && to_window_end <= allowed.window);
    }
    [[nodiscard]] index_t forced() const {
        index_t count = 0;
        for (index_t key = 0; key < visible(); ++key) {
            count += is_forced(static_cast<key_id>(key)) ? 1 : 0;
        }
        return count;
    }
    [[nodiscard]] Score top() const { return *std::ranges::max_element(scores); }
    /// In double, from the definition.
    [[nodiscard]] double true_weight(Score score) const {
        return std::exp(-logits * static_cast<double>(top() - score));
    }
    [[nodiscard]] double true_mass() const {
        double sum = 0.0;
        for (Score score : scores) {
            sum += true_weight(score);
        }
        return sum;
    }
    /// The sum of weights (or, for an error, squares) of the keys that were not kept.
    [[nodiscard]] double true_cost_without(std::vector<ranked<Score>> const& kept) const {
        std::vector<key_id> const keys = test::keys_of(kept);
        double sum = 0.0;
        for (auto const& entry : test::entries_of(scores)) {
            double const weight = true_weight(entry.score);
            if (!std::ranges::binary_search(keys, entry.key)) {
                sum += allowed.output_error ? weight * weight : weight;
            }
        }
        return sum;
    }
    [[nodiscard]] double true_allowance() const {
        double const mass = true_mass();
        return allowed.output_error ? *allowed.output_error * mass * *allowed.output_error * mass
                                    : (1.0 - *allowed.mass) * mass;
    }
    /// Nothing but the allowance decides.
    [[nodiscard]] bool is_free() const {
        return std::isinf(allowed.radius) && !allowed.at_most &&
               (allowed.mass || allowed.output_error);
    }
};

template <class Score>
row_case<Score> make_row(std::vector<Score> scores, budget const& allowed, double logits,
                         std::optional<index_t> position = {}) {
    row_case<Score> row{std::move(scores), allowed, logits, {}};
    row.rule = position ? row_rule::of(allowed, row.visible(), logits, *position)
                        : row_rule::of(allowed, row.visible(), logits);
    return row;
}

/// One octave per score, so that weights are powers of two.
template <class Score>
row_case<Score> row_in_octaves(std::vector<Score> scores, budget const& allowed) {
    return make_row(std::move(scores), allowed, std::numbers::ln2);
}

std::vector<budget> adaptive_budgets() {
    std::vector<budget> limits{budget{}};
    for (double mass : {0.5, 0.8, 0.95, 1.0}) {
        limits.push_back(budget::of_mass(mass));
    }
    for (double error : {1e-3, 0.02, 0.2, 3.0}) {
        limits.push_back(budget::of_output_error(error));
    }
    return limits;
}

struct frame {
    index_t at_least;
    std::optional<index_t> at_most;
    double radius; // logits
    index_t sinks;
    index_t window;
};

std::vector<frame> frames() {
    double const anything = budget{}.radius;
    return {
        {1, {}, anything, 0, 0}, {0, {}, anything, 2, 3},  {8, {}, anything, 0, 0},
        {8, 8, anything, 1, 4},  {1, 5, anything, 0, 0},   {1, 1, anything, 3, 20},
        {1, {}, 2.0, 0, 0},      {12, 14, 1.5, 1, 2},      {500, {}, anything, 1, 1},
        {1, {}, 0.0, 0, 2},      {1, 3, anything, 0, 200}, {6, {}, 6.0, 2, 0},
    };
}

/// Calls check(row) for rows of all shapes and lengths, causal or not, and all kinds of budget.
template <class Score, class Check>
void for_rows(Check check) {
    SOFATTN_GENERATOR(random);
    for (index_t visible : {0, 1, 2, 15, 16, 17, 100}) {
        for (test::row_shape shape : test::all_row_shapes) {
            for (budget b : adaptive_budgets()) {
                for (frame const& f : frames()) {
                    b.at_least = f.at_least;
                    b.at_most = f.at_most;
                    b.radius = f.radius;
                    b.sinks = f.sinks;
                    b.window = f.window;
                    CAPTURE(visible);
                    CAPTURE(static_cast<int>(shape));
                    CAPTURE(b.mass.value_or(-1.0));
                    CAPTURE(b.output_error.value_or(-1.0));
                    CAPTURE(f.at_least);
                    CAPTURE(f.at_most.value_or(-1));
                    CAPTURE(f.radius);
                    CAPTURE(f.sinks);
                    CAPTURE(f.window);
                    // Rows whose good keys are few, some, or nearly all.
                    bool const is_flat = shape == test::row_shape::tied ||
                                         shape == test::row_shape::ascending ||
                                         shape == test::row_shape::descending;
                    double const logits =
                        std::exp2(random.uniform(-3.0, 3.0)) * (is_flat ? 0.3 : 1.0 / 8192.0);
                    std::optional<index_t> position;
                    if (visible > 0 && random.chance(0.3)) {
                        position = random.integer<index_t>(0, visible - 1);
                    }
                    check(make_row(test::random_scores<Score>(random, visible, shape), b, logits,
                                   position));
                }
            }
        }
    }
}

/// The contract of the whole row, by trial: how many competing keys stay at the least?
template <class Score>
std::vector<ranked<Score>> expected_of(row_case<Score> const& row) {
    std::vector<ranked<Score>> forced;
    std::vector<ranked<Score>> competing;
    for (auto const& entry : test::entries_of(row.scores)) {
        (row.is_forced(entry.key) ? forced : competing).push_back(entry);
    }
    if (competing.empty()) {
        test::sort_in_total_order(forced);
        return forced;
    }
    test::sort_in_total_order(competing);
    sads::weight_scale const scale(row.logits);
    Score const top = row.top();
    auto const weight = [&](Score score) -> std::uint64_t { return scale.weight(top, score); };
    auto const cost = [&](Score score) -> std::uint64_t {
        return row.allowed.output_error ? scale.squared(top, score) : scale.weight(top, score);
    };

    std::uint64_t mass = 0;
    for (Score score : row.scores) {
        mass += weight(score);
    }
    auto const total = static_cast<long double>(mass); // 64 bits: exact
    long double allowance = -1.0L;
    if (row.allowed.mass) {
        allowance = std::floor(
            total * std::floor((1.0L - static_cast<long double>(*row.allowed.mass)) * 0x1p32L) *
            0x1p-32L);
    }
    if (row.allowed.output_error) {
        double const most = *row.allowed.output_error * static_cast<double>(mass);
        allowance = std::floor(static_cast<long double>(most * most * 0x1p-30));
    }

    std::size_t stay = 0;
    for (; stay < competing.size(); ++stay) {
        long double dropped = 0.0L;
        for (std::size_t i = stay; i < competing.size(); ++i) {
            dropped += static_cast<long double>(cost(competing[i].score));
        }
        bool const are_enough = static_cast<index_t>(stay + forced.size()) >= row.allowed.at_least;
        bool const are_any = stay + forced.size() > 0;
        if (dropped <= allowance && are_enough && are_any) {
            break;
        }
    }
    if (row.allowed.at_most) {
        stay = std::min(stay, static_cast<std::size_t>(*row.allowed.at_most));
    }
    std::vector<ranked<Score>> kept = forced;
    for (std::size_t i = 0; i < stay; ++i) {
        if (test::within(top, competing[i].score, row.rule.radius)) {
            kept.push_back(competing[i]);
        }
    }
    test::sort_in_total_order(kept);
    return kept;
}

template <class X, class Score>
std::vector<ranked<Score>> select_row(X& x, row_case<Score> const& row) {
    return test::select(x, exact_rule{}, row.scores, row.rule, {});
}

/// What the running rule keeps of every tile, one after the other.
template <class X, class Score>
std::vector<std::vector<ranked<Score>>> select_tiles(X& x, row_case<Score> const& row,
                                                     index_t tile) {
    sads::running_row<Score> before;
    sads::select_scratch<Score> scratch(tile);
    scratch.row = &before;
    std::vector<std::vector<ranked<Score>>> parts;
    for (index_t first = 0; first < row.visible(); first += tile) {
        auto const scores =
            std::span(row.scores)
                .subspan(static_cast<std::size_t>(first),
                         static_cast<std::size_t>(std::min(tile, row.visible() - first)));
        std::vector<ranked<Score>> kept(scores.size());
        index_t const count =
            running_rule{}(x, sads::score_run<Score>{scores, static_cast<key_id>(first)}, row.rule,
                           {}, scratch, std::span(kept));
        kept.resize(static_cast<std::size_t>(count));
        parts.push_back(std::move(kept));
    }
    return parts;
}

template <class Score>
std::vector<ranked<Score>> joined(std::vector<std::vector<ranked<Score>>> const& parts) {
    std::vector<ranked<Score>> all;
    for (auto const& part : parts) {
        all.insert(all.end(), part.begin(), part.end());
    }
    return all;
}

std::vector<index_t> tiles_of(index_t visible) {
    std::vector<index_t> tiles{1, 3, 16, 64};
    if (visible > 0) {
        tiles.push_back(visible);
    }
    return tiles;
}

template <class Score>
bool is_in_total_order(std::vector<ranked<Score>> const& entries) {
    return std::ranges::adjacent_find(entries, [](auto const& a, auto const& b) {
               return a.score < b.score || (a.score == b.score && a.key >= b.key);
           }) == entries.end();
}

constexpr double weight_error = 1.8e-4;  // of weight_scale
constexpr double squared_error = 4.5e-4; // the same

/// What estimated costs may hide. One relative error in each weight of a sum, and a unit per key.
/// The running rule turns the old sums to a new best score, `turns` times; each multiplies the
/// weights of the earlier tiles, in the mass and in the cost alike, by an estimated factor and adds
/// a unit at most, which both measures take on the safe side. So whatever two tiles are compared,
/// their weights, and their squares, are right but for turns + 1 estimates.
template <class Score>
double most_dropped(row_case<Score> const& row, index_t turns) {
    double const estimates = static_cast<double>(turns + 1);
    double const wrong =
        row.allowed.output_error
            ? std::pow((1.0 + squared_error) / std::pow(1.0 - weight_error, 2), estimates)
            : std::pow((1.0 + weight_error) / (1.0 - weight_error), estimates);
    double const units = static_cast<double>(row.visible()) * 0x1p-30;
    return row.true_allowance() * wrong + units * 2.0;
}

/// How many tiles after the first raise the best score.
template <class Score>
index_t turns_of(row_case<Score> const& row, index_t tile) {
    index_t turns = 0;
    Score best{};
    for (index_t first = 0; first < row.visible(); first += tile) {
        for (index_t key = first; key < std::min(first + tile, row.visible()); ++key) {
            Score const score = row.scores[static_cast<std::size_t>(key)];
            if (key == 0 || best < score) {
                turns += key >= tile ? 1 : 0; // counts keys, no fewer than tiles
                best = score;
            }
        }
    }
    return turns;
}

} // namespace

// --- the whole row -------------------------------------------------------------------------------

TEST_CASE("sads.adaptive: weights of 1, 1/2, 1/4, ... are dropped as worked by hand") {
    // Octaves below the best:      2  0  1  5  3  1: in 32nds 8 + 32 + 16 + 1 + 4 + 16 = 77.
    std::vector<int> const scores{-2, 0, -1, -5, -3, -1};
    exec::reference x;
    auto const kept_of = [&](budget const& b) {
        return test::keys_of(select_row(x, row_in_octaves(scores, b)));
    };
    using keys = std::vector<key_id>;
    // 1 of 77 (1.30 %), then 5 (6.49 %), 13 (16.9 %), 29 (37.7 %), 45 (58.4 %).
    CHECK(kept_of(budget::of_mass(0.99)) == keys{0, 1, 2, 3, 4, 5});
    CHECK(kept_of(budget::of_mass(0.98)) == keys{0, 1, 2, 4, 5});
    CHECK(kept_of(budget::of_mass(0.93)) == keys{0, 1, 2, 5});
    CHECK(kept_of(budget::of_mass(0.83)) == keys{1, 2, 5});
    CHECK(kept_of(budget::of_mass(0.62)) == keys{1, 2}); // of equals, the lower index
    CHECK(kept_of(budget::of_mass(0.41)) == keys{1});
    CHECK(kept_of(budget::of_mass(0.01)) == keys{1});
    // Root of the squares over 77: 1, sqrt(17) = 4.1, sqrt(81) = 9, sqrt(337) = 18.4.
    CHECK(kept_of(budget::of_output_error(0.0129)) == keys{0, 1, 2, 3, 4, 5});
    CHECK(kept_of(budget::of_output_error(0.0131)) == keys{0, 1, 2, 4, 5});
    CHECK(kept_of(budget::of_output_error(0.0536)) == keys{0, 1, 2, 5});
    CHECK(kept_of(budget::of_output_error(0.116)) == keys{0, 1, 2, 5});
    CHECK(kept_of(budget::of_output_error(0.117)) == keys{1, 2, 5});
    CHECK(kept_of(budget::of_output_error(0.240)) == keys{1, 2});
    // A forced key is kept beside, its 1 counts as mass and is not dropped: 4, then 12 (15.6 %).
    budget b = budget::of_mass(0.84);
    b.window = 3; // keys 3, 4, 5: drops 8 (10.4 %), then 24 (31.2 %)
    CHECK(kept_of(b) == keys{1, 2, 3, 4, 5});
    b.mass = 0.68;
    CHECK(kept_of(b) == keys{1, 3, 4, 5});
    b.at_least = 5;
    CHECK(kept_of(b) == keys{1, 2, 3, 4, 5});
    // No allowance, but not more than two beside the forced, nor two octaves away.
    b = {};
    b.window = 1;
    b.at_most = 2;
    CHECK(kept_of(b) == keys{1, 2, 5});
    b.at_most = 4;
    b.radius = 2.001 * std::numbers::ln2;
    CHECK(kept_of(b) == keys{0, 1, 2, 5});
    b.radius = 1.5 * std::numbers::ln2;
    CHECK(kept_of(b) == keys{1, 2, 5});
}

TEST_CASE_TEMPLATE("sads.adaptive: the whole row keeps the smallest set that is allowed", Score,
                   std::int32_t, std::int64_t, float, double) {
    for_rows<Score>([](row_case<Score> const& row) {
        exec::reference x;
        REQUIRE(select_row(x, row) == expected_of(row));
    });
}

TEST_CASE_TEMPLATE("sads.adaptive: silent, counted and traced rows keep the same", X,
                   exec::counting, exec::hardware, counting_lanes<8>, test::watched_executor) {
    for_rows<std::int32_t>([](row_case<std::int32_t> const& row) {
        X x;
        exec::reference silent;
        REQUIRE(select_row(x, row) == select_row(silent, row));
        REQUIRE(select_tiles(x, row, 16) == select_tiles(silent, row, 16));
    });
}

TEST_CASE("sads.adaptive: kept keys hold the mass in exact arithmetic, too") {
    for_rows<std::int32_t>([](row_case<std::int32_t> const& row) {
        if (!row.is_free() || row.visible() == 0) {
            return;
        }
        exec::reference x;
        auto const kept = select_row(x, row);
        REQUIRE(row.true_cost_without(kept) <= most_dropped(row, 0));
        if (row.allowed.mass) {
            double const mass = row.true_mass();
            REQUIRE(mass - row.true_cost_without(kept) >= (*row.allowed.mass - 2e-4) * mass);
        }
    });
}

TEST_CASE("sads.adaptive: without the worst key that is kept too much would be missing") {
    for_rows<std::int32_t>([](row_case<std::int32_t> const& row) {
        exec::reference x;
        auto kept = select_row(x, row);
        auto const competes = [&](auto const& entry) { return !row.is_forced(entry.key); };
        auto const worst = std::find_if(kept.rbegin(), kept.rend(), competes);
        if (!row.is_free() || worst == kept.rend() ||
            std::ssize(kept) <= std::max<index_t>(1, row.allowed.at_least)) {
            return;
        }
        kept.erase(std::next(worst).base());
        double const dropped = row.true_cost_without(kept);
        double const allowed = row.true_allowance();
        double const units = static_cast<double>(row.visible()) * 0x1p-30;
        // Squares that round down to nothing cost nothing.
        REQUIRE(dropped * (1.0 + 4 * weight_error) + 2.0 * units >=
                allowed * (1 - 4 * weight_error));
    });
}

TEST_CASE("sads.adaptive: kept keys are in the total order, and of equals the lower index stays") {
    for_rows<std::int32_t>([](row_case<std::int32_t> const& row) {
        exec::reference x;
        auto const kept = select_row(x, row);
        REQUIRE(is_in_total_order(kept));
        for (auto const& part : select_tiles(x, row, 16)) {
            REQUIRE(is_in_total_order(part));
        }
        auto const keys = test::keys_of(kept);
        for (auto const& entry : kept) { // an equal one before it is kept
            for (key_id key = 0; !row.is_forced(entry.key) && key < entry.key; ++key) {
                bool const is_equal = row.scores[static_cast<std::size_t>(key)] == entry.score;
                REQUIRE((!is_equal || std::ranges::binary_search(keys, key)));
            }
        }
    });
    std::vector<int> const scores(40, 17);
    exec::reference x;
    auto const kept = select_row(x, row_in_octaves(scores, budget::of_mass(0.25)));
    REQUIRE(kept.size() == 10);
    CHECK(kept.back() == ranked<int>{17, 9});
}

TEST_CASE("sads.adaptive: sinks and window stay, at_least and at_most hold, whatever the scores") {
    for_rows<std::int32_t>([](row_case<std::int32_t> const& row) {
        exec::reference x;
        for (auto const& kept : {select_row(x, row), joined(select_tiles(x, row, 16))}) {
            index_t forced = 0;
            for (auto const& entry : kept) {
                forced += row.is_forced(entry.key) ? 1 : 0;
            }
            REQUIRE(forced == row.forced());
            index_t const competing = std::ssize(kept) - forced;
            REQUIRE(competing <= row.allowed.at_most.value_or(row.visible()));
            if (std::isinf(row.allowed.radius) && !row.allowed.at_most) {
                REQUIRE(std::ssize(kept) >= std::min(row.allowed.at_least, row.visible()));
                REQUIRE(std::ssize(kept) >= std::min<index_t>(1, row.visible()));
            }
        }
    });
}

TEST_CASE("sads.adaptive: a greater mass or a smaller error keeps a superset") {
    SOFATTN_GENERATOR(random);
    for (test::row_shape shape : test::all_row_shapes) {
        auto const scores = test::random_scores<std::int32_t>(random, 120, shape);
        exec::reference x;
        std::vector<ranked<std::int32_t>> less;
        for (double mass : {0.01, 0.3, 0.5, 0.9, 0.99, 0.999999, 1.0}) {
            auto const more = select_row(x, make_row(scores, budget::of_mass(mass), 1e-4));
            REQUIRE(more.size() >= less.size());
            REQUIRE(std::equal(less.begin(), less.end(), more.begin())); // both in order
            less = more;
        }
        less.clear();
        for (double error : {10.0, 1.0, 0.3, 0.1, 0.01, 1e-5}) {
            auto const more = select_row(x, make_row(scores, budget::of_output_error(error), 1e-4));
            REQUIRE(more.size() >= less.size());
            REQUIRE(std::equal(less.begin(), less.end(), more.begin()));
            less = more;
        }
    }
}

TEST_CASE("sads.adaptive: a mass of 1 drops only what weighs less than 2^-30 of the best") {
    std::vector<int> const scores{0, -29, -30, -31, -32, -40};
    exec::reference x;
    auto const kept = select_row(x, row_in_octaves(scores, budget::of_mass(1.0)));
    CHECK(test::keys_of(kept) == std::vector<key_id>{0, 1, 2});
    CHECK(select_row(x, row_in_octaves(scores, budget{})).size() == 6);
}

// --- tile by tile --------------------------------------------------------------------------------

TEST_CASE("sads.adaptive: two tiles of the running rule, worked by hand") {
    // Octaves below the best yet: 0 1 2 3, in 8ths 8 + 4 + 2 + 1 = 15; then 2 octaves better.
    std::vector<int> const scores{-2, -3, -4, -5, /**/ -1, 0, -3, -2};
    exec::reference x;
    SUBCASE("a fifth of 15/8 is 3/8: 1/8 and 2/8 may go") {
        auto const row = row_in_octaves(scores, budget::of_mass(0.79));
        auto const parts = select_tiles(x, row, 4);
        CHECK(test::keys_of(parts.at(0)) == std::vector<key_id>{0, 1});
        // The mass is now (15 / 4 + 4 + 8 + 1 + 2) / 8 = 18.75 / 8, of which 3.94 / 8 may go: 0.75
        // have gone, 1 and 2 may, 3.75 in all.
        CHECK(test::keys_of(parts.at(1)) == std::vector<key_id>{4, 5});
    }
    SUBCASE("the first tile keeps what the second would let go") {
        // 15 % of 15 / 8 are 2.25 / 8: 1 goes, and 1 / 4 of it counts later. 15 % of 18.75 / 8 are
        // 2.81 / 8: 0.25 have gone, 1 may go, 2 may not. The whole row drops 0.25, 0.5, 1, 1.
        auto const row = row_in_octaves(scores, budget::of_mass(0.85));
        auto const parts = select_tiles(x, row, 4);
        CHECK(test::keys_of(parts.at(0)) == std::vector<key_id>{0, 1, 2});
        CHECK(test::keys_of(parts.at(1)) == std::vector<key_id>{4, 5, 7});
        CHECK(test::keys_of(select_row(x, row)) == std::vector<key_id>{0, 4, 5, 7});
    }
    SUBCASE("an error of 0.2: (0.2 15 / 8)^2 = 9 / 64, 1 and 4 go") {
        auto const row = row_in_octaves(scores, budget::of_output_error(0.2));
        auto const parts = select_tiles(x, row, 4);
        CHECK(test::keys_of(parts.at(0)) == std::vector<key_id>{0, 1});
        // (0.2 18.75 / 8)^2 = 14.06 / 64; 5 / 16 of 1 / 64 have gone, 1 and 4 may, 16 may not.
        CHECK(test::keys_of(parts.at(1)) == std::vector<key_id>{4, 5});
    }
    SUBCASE("an error of 0.1211: (0.1211 15 / 8)^2 = 3.3 / 64, 1 goes, 4 does not") {
        auto const row = row_in_octaves(scores, budget::of_output_error(0.1211));
        auto const parts = select_tiles(x, row, 4);
        CHECK(test::keys_of(parts.at(0)) == std::vector<key_id>{0, 1, 2});
        // (0.1211 18.75 / 8)^2 = 5.16 / 64; 1 / 16 has gone: squares turn by the square. 1 and 4 may.
        CHECK(test::keys_of(parts.at(1)) == std::vector<key_id>{4, 5});
    }
    SUBCASE("a radius is from the best yet") {
        budget b;
        b.radius = 1.5 * std::numbers::ln2;
        auto const parts = select_tiles(x, row_in_octaves(scores, b), 4);
        CHECK(test::keys_of(parts.at(0)) == std::vector<key_id>{0, 1});
        CHECK(test::keys_of(parts.at(1)) == std::vector<key_id>{4, 5});
    }
    SUBCASE("the maximum count goes to who comes first, beside forced keys") {
        budget b;
        b.at_most = 3;
        b.sinks = 1;
        b.window = 1;
        auto const parts = select_tiles(x, row_in_octaves(scores, b), 2);
        CHECK(test::keys_of(joined(parts)) == std::vector<key_id>{0, 1, 2, 3, 7});
        CHECK(parts.at(2).empty());
    }
    SUBCASE("every tile keeps its share of the minimum count") {
        budget b = budget::of_mass(0.01);
        b.at_least = 3; // after 2, 4, 6, 8 keys: 1, 2, 3, 3
        auto const parts = select_tiles(x, row_in_octaves(scores, b), 2);
        CHECK(test::keys_of(joined(parts)) == std::vector<key_id>{0, 2, 5});
    }
}

TEST_CASE_TEMPLATE("sads.adaptive: one tile is the whole row", Score, std::int32_t, std::int64_t,
                   float, double) {
    for_rows<Score>([](row_case<Score> const& row) {
        exec::counting whole;
        exec::counting running;
        index_t const tile = std::max<index_t>(1, row.visible());
        REQUIRE(joined(select_tiles(running, row, tile)) == select_row(whole, row));
        REQUIRE(running.probe == whole.probe);
    });
}

TEST_CASE("sads.adaptive: tile by tile, what is dropped stays within the row's allowance") {
    for_rows<std::int32_t>([](row_case<std::int32_t> const& row) {
        if (!row.is_free() || row.visible() == 0) {
            return;
        }
        exec::reference x;
        for (index_t tile : tiles_of(row.visible())) {
            CAPTURE(tile);
            auto const kept = joined(select_tiles(x, row, tile));
            REQUIRE(row.true_cost_without(kept) <= most_dropped(row, turns_of(row, tile)));
        }
    });
}

TEST_CASE("sads.adaptive: the running rule keeps what books in double, begun anew, would keep") {
    SOFATTN_GENERATOR(random);
    for (int round = 0; round < 2000; ++round) {
        auto const visible = random.integer<index_t>(1, 70);
        std::vector<std::int32_t> scores;
        int const slope = random.integer(-1, 1); // octaves per 6 keys
        for (index_t key = 0; key < visible; ++key) {
            scores.push_back(random.integer(-6, 6) + slope * static_cast<int>(key / 6));
        }
        // Drawn, so that no sum of powers of two meets the allowance but for roundings.
        bool const is_mass = random.chance(0.5);
        budget b = is_mass ? budget::of_mass(random.uniform(0.05, 1.0))
                           : budget::of_output_error(random.uniform(0.01, 0.6));
        b.at_least = random.integer<index_t>(0, 10);
        b.sinks = random.integer<index_t>(0, 2);
        b.window = random.integer<index_t>(0, 3);
        auto const row = row_in_octaves(scores, b);
        for (index_t tile : {1, 3, 16, 64}) {
            CAPTURE(tile);
            exec::reference x;
            auto const parts = select_tiles(x, row, tile);
            std::vector<std::int32_t> gone;
            std::vector<std::int32_t> met;
            for (index_t first = 0; first < visible; first += tile) {
                index_t const end = std::min(first + tile, visible);
                std::vector<ranked<std::int32_t>> expected;
                std::vector<ranked<std::int32_t>> competing;
                for (index_t key = first; key < end; ++key) {
                    ranked<std::int32_t> const entry{scores[static_cast<std::size_t>(key)],
                                                     static_cast<key_id>(key)};
                    met.push_back(entry.score);
                    (row.is_forced(entry.key) ? expected : competing).push_back(entry);
                }
                int const top = *std::ranges::max_element(met);
                double mass = 0.0;
                double dropped = 0.0;
                double const power = is_mass ? 1.0 : 2.0;
                for (int score : met) {
                    mass += std::exp2(score - top);
                }
                for (int score : gone) {
                    dropped += std::exp2(power * (score - top));
                }
                double const allowance =
                    is_mass ? (1.0 - *b.mass) * mass : std::pow(*b.output_error * mass, 2.0);
                auto const due = [&](index_t keys) { // rounded up
                    index_t const least = std::min(visible, std::max<index_t>(1, b.at_least));
                    return (least * keys + visible - 1) / visible;
                };
                test::sort_in_total_order(competing);
                while (!competing.empty() &&
                       std::ssize(expected) + std::ssize(competing) > due(end) - due(first)) {
                    dropped += std::exp2(power * (competing.back().score - top));
                    if (dropped > allowance) {
                        break;
                    }
                    gone.push_back(competing.back().score);
                    competing.pop_back();
                }
                expected.insert(expected.end(), competing.begin(), competing.end());
                test::sort_in_total_order(expected);
                REQUIRE(parts.at(static_cast<std::size_t>(first / tile)) == expected);
            }
        }
    }
}

TEST_CASE("sads.adaptive: the allowance holds wherever the best tiles lie") {
    SOFATTN_GENERATOR(random);
    enum class rise { up, down, zigzag };
    for (rise way : {rise::up, rise::down, rise::zigzag}) {
        for (double step : {0.003, 0.05, 0.7, 5.0}) { // logits from tile to tile
            for (double limit : {0.5, 0.9, 0.99}) {
                for (bool is_mass : {true, false}) {
                    index_t const tile = 16;
                    double const logits = 1.0 / 1024.0;
                    std::vector<std::int32_t> scores;
                    for (index_t t = 0; t < 40; ++t) {
                        index_t const level = way == rise::up     ? t
                                              : way == rise::down ? -t
                                                                  : 7 * t % 40;
                        for (index_t i = 0; i < tile; ++i) {
                            scores.push_back(static_cast<std::int32_t>(
                                (static_cast<double>(level) * step + random.normal(1.5)) / logits));
                        }
                    }
                    CAPTURE(static_cast<int>(way));
                    CAPTURE(step);
                    CAPTURE(limit);
                    CAPTURE(is_mass);
                    auto const row = make_row(scores,
                                              is_mass ? budget::of_mass(limit)
                                                      : budget::of_output_error(1.0 - limit),
                                              logits);
                    exec::reference x;
                    for (index_t length : {index_t{1}, index_t{3}, tile, index_t{64}}) {
                        auto const kept = joined(select_tiles(x, row, length));
                        REQUIRE(row.true_cost_without(kept) <=
                                most_dropped(row, turns_of(row, length)));
                    }
                }
            }
        }
    }
}

// With the best score in the first tile nothing is turned to a new best: the books are those of
// the whole row, exactly, and no set of dropped keys within its allowance is larger than its own.
TEST_CASE("sads.adaptive: where the first tile has the best score no key too few is kept") {
    SOFATTN_GENERATOR(random);
    for (int round = 0; round < 300; ++round) {
        for (test::row_shape shape : {test::row_shape::spread, test::row_shape::tied,
                                      test::row_shape::descending, test::row_shape::planted}) {
            auto scores = test::random_scores<std::int32_t>(random, 90, shape);
            std::swap(*std::ranges::max_element(scores), scores.front());
            double const logits = std::exp2(random.uniform(-16.0, -1.0));
            budget const b = random.chance(0.5)
                                 ? budget::of_mass(random.uniform(0.3, 1.0))
                                 : budget::of_output_error(random.uniform(0.001, 0.5));
            auto const row = make_row(scores, b, logits);
            exec::reference x;
            for (index_t tile : {1, 3, 16, 64}) {
                auto const kept = joined(select_tiles(x, row, tile));
                REQUIRE(kept.size() >= expected_of(row).size());
                std::uint64_t mass = 0;
                std::uint64_t dropped = 0;
                auto const keys = test::keys_of(kept);
                for (auto const& entry : test::entries_of(scores)) {
                    mass += row.rule.drop.weights.weight(scores.front(), entry.score);
                    if (!std::ranges::binary_search(keys, entry.key)) {
                        dropped += row.rule.drop.cost(scores.front(), entry.score);
                    }
                }
                REQUIRE(dropped <= row.rule.drop.allowance(mass));
            }
        }
    }
}

TEST_CASE("sads.adaptive: every tile keeps its share of the minimum count") {
    for_rows<std::int32_t>([](row_case<std::int32_t> const& row) {
        if (!std::isinf(row.allowed.radius) || row.allowed.at_most || row.visible() == 0) {
            return;
        }
        exec::reference x;
        index_t const least = std::min(row.visible(), std::max<index_t>(1, row.allowed.at_least));
        for (index_t tile : tiles_of(row.visible())) {
            index_t owed = 0; // ceil(least seen / visible), dealt out one by one
            index_t seen = 0;
            for (auto const& part : select_tiles(x, row, tile)) {
                seen = std::min(seen + tile, row.visible());
                index_t due = 0;
                while (owed * row.visible() < least * seen) {
                    ++owed;
                    ++due;
                }
                REQUIRE(std::ssize(part) >= due);
            }
        }
    });
}

TEST_CASE("sads.adaptive: the rows of a running rule do not know of each other") {
    SOFATTN_GENERATOR(random);
    for (int round = 0; round < 50; ++round) {
        auto const row =
            make_row(test::random_scores<std::int32_t>(random, 60, test::row_shape::planted),
                     budget::of_mass(0.9), 1e-3);
        exec::reference x;
        auto const once = select_tiles(x, row, 16);
        exec::reference y;
        REQUIRE(select_tiles(x, row, 16) == once);
        REQUIRE(select_tiles(y, row, 16) == once);
    }
}

// --- events --------------------------------------------------------------------------------------

TEST_CASE("sads.adaptive: a row of 16 takes Batcher's 63 comparators, 15 and one per key tried") {
    SOFATTN_GENERATOR(random);
    auto const scores = test::random_scores<std::int32_t>(random, 16, test::row_shape::spread);
    exec::counting x;
    auto const kept = select_row(x, make_row(scores, budget::of_mass(0.8), 1e-4));
    std::uint64_t const considered = 16 - kept.size() + 1; // the last one stays
    REQUIRE(kept.size() < 16);
    CHECK(x.probe.count(stage::selection, event::compare) == 63 + 15 + considered);
    CHECK(x.probe.count(stage::selection, event::add) == 16 + considered);
    CHECK(x.probe.count(stage::selection, event::exp) == 16);
    CHECK(x.probe.count(stage::selection, event::clipped) == 0);
}

TEST_CASE("sads.adaptive: tiles change neither the weights per row nor the search for its best") {
    std::vector<std::int32_t> const scores{5, 1, 4, 9, 7, 2, 8, 3};
    for (index_t tile : {1, 2, 3, 8}) {
        CAPTURE(tile);
        exec::counting x;
        auto const row = make_row(scores, budget{}, 1.0); // each tile tries one key
        index_t const tiles = std::ssize(select_tiles(x, row, tile));
        index_t const comparators = tile == 1 ? 0 : tile == 2 ? 4 : tile == 3 ? 7 : 19;
        CHECK(x.probe.count(stage::selection, event::compare) ==
              static_cast<std::uint64_t>(comparators + 7 + tiles));
        CHECK(x.probe.count(stage::selection, event::add) == static_cast<std::uint64_t>(8 + tiles));
        CHECK(x.probe.count(stage::selection, event::exp) == 8);
    }
}

TEST_CASE_TEMPLATE("sads.adaptive: counts ignore lane width", X, counting_lanes<4>,
                   counting_lanes<8>, counting_lanes<16>) {
    for_rows<std::int32_t>([](row_case<std::int32_t> const& row) {
        exec::counting narrow;
        X wide;
        REQUIRE(select_row(wide, row) == select_row(narrow, row));
        REQUIRE(select_tiles(wide, row, 7) == select_tiles(narrow, row, 7));
        REQUIRE(wide.probe == narrow.probe);
    });
}

// Weights are integers made from scores, not arithmetic on them, so only comparisons are seen.
TEST_CASE("sads.adaptive: a watched number confirms the declared comparisons") {
    for_rows<std::int32_t>([](row_case<std::int32_t> const& row) {
        test::watched_executor x;
        exec::counting plain;
        auto const expected = select_row(plain, row);
        auto const expected_parts = select_tiles(plain, row, 16);
        test::tally const seen = test::watch([&] {
            REQUIRE(select_row(x, row) == expected);
            REQUIRE(select_tiles(x, row, 16) == expected_parts);
        });
        REQUIRE(x.probe == plain.probe);
        REQUIRE(seen.compares == x.probe.count(stage::selection, event::compare));
        REQUIRE(x.probe.count(stage::selection, event::exp) ==
                2 * static_cast<std::uint64_t>(row.visible()));
        REQUIRE(seen.adds + seen.multiplies + seen.shifts + seen.exps + seen.divides == 0);
    });
}
