// SPDX-License-Identifier: MIT
#include "sufa/attend_case.hpp"
#include "support/generators.hpp"
#include <sofattn/core/types.hpp>
#include <sofattn/exec/executor.hpp>
#include <sofattn/sufa/sorted_updating.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <span>
#include <vector>

namespace {

using namespace sofattn;
using probe::event;
using probe::stage;

using sufa_descending = sufa::sorted_updating<sufa::descending>;
using sufa_ascending = sufa::sorted_updating<sufa::ascending>;

struct derived : sufa::ascending {};
struct orderless {};
struct numbered {
    static constexpr int order = 1;
};
static_assert(sufa::policy<sufa::descending> && sufa::policy<sufa::ascending>);
static_assert(sufa::policy<derived>);
static_assert(!sufa::policy<orderless> && !sufa::policy<numbered>);
static_assert(sufa::sorted_updating<>::is_descending &&
              !sufa::sorted_updating<derived>::is_descending);
static_assert(sufa_descending::tile_ready && sufa_ascending::tile_ready);
static_assert(!sufa_descending::from_back && sufa_ascending::from_back);

/// Keys 0 ... n-1 with the given logits; all values are 1 in their own column.
test::attend_case<float> with_logits(std::vector<float> const& logits) {
    test::generator random;
    auto const n = std::ssize(logits);
    test::attend_case<float> c(random, n, 1, n);
    c.scale = 1.0;
    c.query(0) = 1.0f;
    for (index_t k = 0; k < n; ++k) {
        c.keys(k, 0) = logits[static_cast<std::size_t>(k)];
        for (index_t d = 0; d < n; ++d) {
            c.values(k, d) = k == d ? 1.0f : 0.0f;
        }
    }
    return c;
}

template <class Attender>
probe::ledger counts_of(test::attend_case<float> const& c, std::vector<key_id> const& order,
                        index_t tile = 0) {
    exec::counting x;
    test::attend(x, Attender{}, c, order, tile);
    return x.probe;
}

} // namespace

TEST_CASE("sufa.sorted_updating: weights ln 1, ln 2, ln 5 by hand, whatever the order") {
    auto const c = with_logits({0.0f, std::log(2.0f), std::log(5.0f)});
    exec::reference x;
    std::vector<key_id> order{0, 1, 2};
    do {
        auto const down = test::attend(x, sufa_descending{}, c, order);
        auto const up = test::attend(x, sufa_ascending{}, c, order);
        for (auto const& row : {down, up}) {
            CHECK(row[0] == doctest::Approx(1.0 / 8.0));
            CHECK(row[1] == doctest::Approx(2.0 / 8.0));
            CHECK(row[2] == doctest::Approx(5.0 / 8.0));
        }
    } while (std::next_permutation(order.begin(), order.end()));
}

TEST_CASE(
    "sufa.sorted_updating: a right order rescales nothing, and one key per wrong maximum does") {
    auto const c = with_logits({4.0f, 3.0f, 2.0f, 1.0f});
    auto const updates = [&](std::vector<key_id> const& order, index_t tile = 0) {
        return counts_of<sufa_descending>(c, order, tile)
            .count(stage::attention, event::max_update);
    };
    CHECK(updates({0, 1, 2, 3}) == 0);
    CHECK(updates({0, 1, 2, 3}, 2) == 0);
    CHECK(updates({3, 2, 1, 0}) == 3);
    CHECK(updates({1, 0, 2, 3}) == 1);
    CHECK(updates({2, 3, 0, 1}, 2) == 1); // the second tile holds the max
    CHECK(updates({2, 3, 1, 0}, 2) == 2);
}

TEST_CASE("sufa.sorted_updating: ascending takes the same keys from the other end") {
    auto const c = with_logits({4.0f, 3.0f, 2.0f, 1.0f});
    auto const ledger = counts_of<sufa_ascending>(c, {0, 1, 2, 3});
    CHECK(ledger.count(stage::attention, event::max_update) == 3);
    CHECK(counts_of<sufa_ascending>(c, {3, 2, 1, 0}).count(event::max_update) == 0);
}

TEST_CASE("sufa.sorted_updating: equal logits need no rescaling in either order") {
    auto const c = with_logits({2.0f, 2.0f, 2.0f, 2.0f});
    CHECK(counts_of<sufa_descending>(c, {0, 1, 2, 3}).count(event::max_update) == 0);
    CHECK(counts_of<sufa_ascending>(c, {0, 1, 2, 3}).count(event::max_update) == 0);
}

TEST_CASE("sufa.sorted_updating: 4 keys of 1 dimension and 4 values cost these events") {
    auto const c = with_logits({4.0f, 3.0f, 2.0f, 1.0f});
    SUBCASE("descending, in order") {
        auto const l = counts_of<sufa_descending>(c, {0, 1, 2, 3});
        CHECK(l.count(event::multiply) == 4 * (1 + 1 + 4)); // q.k, scale, p * v
        CHECK(l.count(event::add) == 4 * (1 + 4) + 4 * 2);  // products; logit - m, l
        CHECK(l.count(event::exp) == 4);
        CHECK(l.count(event::compare) == 1);
        CHECK(l.count(event::divide) == 4);
    }
    SUBCASE("ascending: a multiplication more for each of three new maxima") {
        auto const l = counts_of<sufa_ascending>(c, {0, 1, 2, 3});
        CHECK(l.count(event::multiply) == 4 * (1 + 1 + 4) + 3);
        CHECK(l.count(event::add) == 4 * (1 + 4) + 4 * 2);
        CHECK(l.count(event::exp) == 4);
        CHECK(l.count(event::compare) == 1);
    }
    SUBCASE("two tiles: one comparison each") {
        CHECK(counts_of<sufa_descending>(c, {0, 1, 2, 3}, 2).count(event::compare) == 2);
    }
}

TEST_CASE("sufa.sorted_updating: the state is that of the keys seen, m their largest logit") {
    SOFATTN_GENERATOR(random);
    test::attend_case<float> const c(random, 60, 32, 4);
    std::vector<double> const logits = c.logits();
    for (test::arrival how : test::all_arrivals) {
        auto const keys = test::arranged(random, c, test::random_keys(random, 60, 30), how);
        std::vector<double> o(4);
        std::vector<double> scratch(30);
        auto state = sufa::softmax_state<double>::empty(o);
        exec::reference x;
        auto const kept = test::as_kept(keys);
        sufa_descending{}(x, c.inputs(), std::span<ranked<int> const>(kept), std::span(scratch),
                          state);
        double max = -1e300;
        for (key_id k : keys) {
            max = std::max(max, logits[static_cast<std::size_t>(k)]);
        }
        double sum = 0.0;
        for (key_id k : keys) {
            sum += std::exp(logits[static_cast<std::size_t>(k)] - max);
        }
        CHECK(state.m == doctest::Approx(max).epsilon(1e-12));
        CHECK(state.l == doctest::Approx(sum).epsilon(1e-12));
        CHECK(state.log_sum_exp() == doctest::Approx(max + std::log(sum)).epsilon(1e-12));
    }
}
