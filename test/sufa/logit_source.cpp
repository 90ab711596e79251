// SPDX-License-Identifier: MIT
#include "sufa/attend_case.hpp"
#include "support/generators.hpp"
#include "support/watched.hpp"
#include <sofattn/core/types.hpp>
#include <sofattn/exec/executor.hpp>
#include <sofattn/sufa/logit_source.hpp>
#include <sofattn/sufa/rivals.hpp>
#include <sofattn/sufa/sorted_updating.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <set>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace {

using namespace sofattn;
using probe::event;
using probe::stage;

template <class Order>
using reusing = sufa::sorted_updating<Order, sufa::reused>;
template <class Order>
using recomputing = sufa::sorted_updating<Order>;

struct wholly : sufa::reused {
    static constexpr double exact_within = std::numeric_limits<double>::infinity();
};
struct without_limit {
    static constexpr bool reuses = true;
};
static_assert(sufa::logit_source<sufa::recomputed> && sufa::logit_source<sufa::reused>);
static_assert(sufa::logit_source<wholly>);
static_assert(!sufa::logit_source<without_limit> && !sufa::logit_source<sufa::descending>);
static_assert(std::is_same_v<sufa::sorted_updating<>,
                             sufa::sorted_updating<sufa::descending, sufa::recomputed>>);
static_assert(sufa::reuses_scores<reusing<sufa::descending>> &&
              sufa::reuses_scores<reusing<sufa::ascending>>);
static_assert(!sufa::reuses_scores<sufa::sorted_updating<>> &&
              !sufa::reuses_scores<sufa::flash_attention_2>);

/// What a row is after its tiles, and what it attended with.
struct outcome {
    double m = 0;
    double l = 0;
    std::vector<double> o;
    std::vector<double> logits; ///< [kept]

    friend bool operator==(outcome const&, outcome const&) = default;
};

/// Keys in the order they are kept in, and their logits.
struct row_case {
    test::attend_case<float> const& c;
    std::vector<key_id> keys;
    std::vector<double> exact{}; ///< [kept], to the bit
};

/// Attends a row in tiles of `tile` (0: one tile), from the back where the attender wants it so.
template <class Attender, class X>
outcome attend(X& x, Attender attender, row_case const& row, std::vector<double> const& predicted,
               std::size_t tile = 0) {
    using real = sufa::detail::real_number<X>;
    std::vector<real> o(static_cast<std::size_t>(row.c.value_dim()));
    std::vector<real> logits;
    for (double const logit : predicted) {
        logits.push_back(real(logit));
    }
    auto state = sufa::softmax_state<real>::empty(o);
    auto const kept = test::as_kept(row.keys);
    std::size_t const step = tile > 0 ? tile : std::max<std::size_t>(kept.size(), 1);
    std::size_t const tiles = (kept.size() + step - 1) / step;
    for (std::size_t t = 0; t < tiles; ++t) {
        std::size_t const first = (Attender::from_back ? tiles - 1 - t : t) * step;
        std::size_t const count = std::min(step, kept.size() - first);
        attender(x, row.c.inputs(), std::span<ranked<int> const>(kept).subspan(first, count),
                 std::span(logits).subspan(first, count), state);
    }
    outcome result{static_cast<double>(state.m), static_cast<double>(state.l), {}, {}};
    for (real const& r : o) {
        result.o.push_back(static_cast<double>(r));
    }
    for (real const& logit : logits) {
        result.logits.push_back(static_cast<double>(logit));
    }
    return result;
}

template <class Attender>
outcome attend(Attender attender, row_case const& row, std::vector<double> const& predicted,
               std::size_t tile = 0) {
    exec::reference x;
    return attend(x, attender, row, predicted, tile);
}

/// Keys whose logits are these; all values are 1.
test::attend_case<float> with_logits(std::vector<float> const& logits) {
    test::generator random;
    test::attend_case<float> c(random, std::ssize(logits), 1, 1);
    c.scale = 1.0;
    c.query(0) = 1.0f;
    for (index_t k = 0; k < c.key_count(); ++k) {
        c.keys(k, 0) = logits[static_cast<std::size_t>(k)];
        c.values(k, 0) = 1.0f;
    }
    return c;
}

std::vector<double> perturbed(test::generator& random, std::vector<double> logits,
                              double deviation) {
    for (double& logit : logits) {
        logit += random.normal(deviation);
    }
    return logits;
}

/// Calls f(order) for both.
template <class F>
void for_orders(F f) {
    f(sufa::descending{});
    f(sufa::ascending{});
}

constexpr index_t dim = 20;
constexpr index_t value_dim = 9;

/// Calls f(row) for sizes around every width, right and wrong orders, and logits up to +-12.
template <class F>
void for_rows(test::generator& random, F f) {
    test::attend_case<float> c(random, 70, dim, value_dim);
    c.stretch_to(12.0);
    for (index_t const kept : {0, 1, 2, 3, 5, 8, 16, 17, 70}) {
        for (auto const how : test::all_arrivals) {
            CAPTURE(kept);
            CAPTURE(static_cast<int>(how));
            row_case row{c, test::arranged(random, c, test::random_keys(random, 70, kept), how)};
            row.exact =
                attend(recomputing<sufa::descending>{}, row, std::vector<double>(row.keys.size()))
                    .logits;
            f(std::as_const(row));
        }
    }
}

template <index_t Width>
using counting_lanes = exec::executor<exec::scalar_lanes<Width>, probe::ledger, double>;

} // namespace

TEST_CASE("sufa.logit_source: attenders that reuse scores have names of their own") {
    std::set<std::string> const names{
        recomputing<sufa::descending>::name, recomputing<sufa::ascending>::name,
        reusing<sufa::descending>::name, reusing<sufa::ascending>::name};
    CHECK(names.size() == 4);
}

TEST_CASE("sufa.logit_source: keys within 4 logits of the best predicted one are computed") {
    auto const c = with_logits({9.5f, 8.0f, 7.0f, 5.0f, 2.0f});
    std::vector<double> const predicted{10.0, 8.25, 6.0, 5.75, 1.0};
    for_orders([&](auto order) {
        auto const got = attend(reusing<decltype(order)>{}, {c, {0, 1, 2, 3, 4}}, predicted);
        CHECK(got.logits == std::vector{9.5, 8.0, 7.0, 5.75, 1.0}); // 6 is just within
        CHECK(got.m == 9.5);
        double sum = 0;
        for (double const logit : got.logits) {
            sum += std::exp(logit - got.m);
        }
        CHECK(got.l == doctest::Approx(sum).epsilon(1e-14));
        CHECK(got.o.front() == doctest::Approx(sum).epsilon(1e-14));
    });
}

TEST_CASE("sufa.logit_source: later tiles are measured from the row's best so far") {
    auto const c = with_logits({10.0f, 5.0f, 4.0f, 3.0f});
    using attender = reusing<sufa::descending>;
    // The first tile's key is at 10, whatever was predicted: its logit is the computed one.
    CHECK(attend(attender{}, {c, {0, 1, 2, 3}}, {3.0, 6.5, 5.5, 2.5}, 1).logits ==
          std::vector{10.0, 5.0, 5.5, 2.5});
    CHECK(attend(attender{}, {c, {0, 1, 2, 3}}, {30.0, 6.5, 5.5, 2.5}, 1).logits ==
          std::vector{10.0, 5.0, 5.5, 2.5});
    // A tile's own best counts wherever it stands, and a later tile may hold a better one.
    CHECK(attend(attender{}, {c, {3, 0, 1, 2}}, {3.5, 9.0, 5.0, 4.75}, 2).logits ==
          std::vector{3.5, 10.0, 5.0, 4.75});
    CHECK(attend(attender{}, {c, {3, 2, 1, 0}}, {3.5, 2.5, 9.0, 4.5}, 2).logits ==
          std::vector{3.0, 4.0, 5.0, 4.5});
}

TEST_CASE("sufa.logit_source: rows, tiles and orders compute what the rule says, and no more") {
    SOFATTN_GENERATOR(random);
    for_rows(random, [&](row_case const& row) {
        auto const predicted = perturbed(random, row.exact, 0.5);
        for (std::size_t const tile : {0u, 1u, 7u}) {
            CAPTURE(tile);
            for_orders([&](auto order) {
                using attender = reusing<decltype(order)>;
                std::size_t const step =
                    tile > 0 ? tile : std::max<std::size_t>(row.keys.size(), 1);
                std::size_t const tiles = (row.keys.size() + step - 1) / step;
                auto expected = predicted;
                double best = -std::numeric_limits<double>::infinity();
                std::uint64_t computed = 0;
                for (std::size_t t = 0; t < tiles; ++t) {
                    double const attended = best;
                    std::size_t const first = (attender::from_back ? tiles - 1 - t : t) * step;
                    std::size_t const end = std::min(first + step, row.keys.size());
                    for (std::size_t i = first; i < end; ++i) {
                        best = std::max(best, predicted[i]);
                    }
                    double const least = best - 4.0;
                    best = attended;
                    for (std::size_t i = first; i < end; ++i) {
                        if (predicted[i] >= least) {
                            expected[i] = row.exact[i];
                            ++computed;
                        }
                        best = std::max(best, expected[i]);
                    }
                }
                exec::counting x;
                auto const got = attend(x, attender{}, row, predicted, tile);
                CHECK(got.logits == expected);
                CHECK((row.keys.empty() || got.m == best));
                // Costs: products of the computed keys only, and telling which they are.
                auto const count = [&](event e) { return x.probe.count(stage::attention, e); };
                std::uint64_t const kept = row.keys.size();
                CHECK(count(event::multiply) ==
                      computed * (dim + 1) + kept * value_dim + count(event::max_update));
                CHECK(count(event::add) == computed * dim + kept * (value_dim + 2) + tiles);
                // Mode 1's per tile; two per key for the best and its distance, but for the first.
                CHECK(count(event::compare) == tiles + 2 * kept - (tiles > 0 ? 1 : 0));
                CHECK(count(event::exp) == kept);
            });
        }
    });
}

TEST_CASE("sufa.logit_source: where logits are recomputed, predicted ones do not matter") {
    SOFATTN_GENERATOR(random);
    for_rows(random, [&](row_case const& row) {
        for_orders([&](auto order) {
            recomputing<decltype(order)> const attender;
            auto const expected = attend(attender, row, std::vector<double>(row.keys.size()), 7);
            CHECK(expected.logits == row.exact);
            CHECK(attend(attender, row, perturbed(random, row.exact, 100.0), 7) == expected);
        });
    });
}

TEST_CASE("sufa.logit_source: exact predictions, or all keys near enough, are recomputation") {
    SOFATTN_GENERATOR(random);
    for_rows(random, [&](row_case const& row) {
        for (std::size_t const tile : {0u, 1u, 7u}) {
            for_orders([&](auto order) {
                using how = decltype(order);
                auto const expected = attend(recomputing<how>{}, row, row.exact, tile);
                CHECK(attend(reusing<how>{}, row, row.exact, tile) == expected);
                CHECK(attend(sufa::sorted_updating<how, wholly>{}, row,
                             perturbed(random, row.exact, 100.0), tile) == expected);
            });
        }
    });
}

TEST_CASE_TEMPLATE("sufa.logit_source: lanes change neither bits nor counts", X, counting_lanes<2>,
                   counting_lanes<3>, counting_lanes<4>, counting_lanes<5>, counting_lanes<7>,
                   counting_lanes<8>, counting_lanes<15>, counting_lanes<16>) {
    SOFATTN_GENERATOR(random);
    for_rows(random, [&](row_case const& row) {
        auto const predicted = perturbed(random, row.exact, 0.5);
        for (std::size_t const tile : {0u, 9u}) {
            for_orders([&](auto order) {
                reusing<decltype(order)> const attender;
                exec::counting narrow;
                X wide;
                auto const expected = attend(narrow, attender, row, predicted, tile);
                CHECK(attend(wide, attender, row, predicted, tile) == expected);
                CHECK(wide.probe == narrow.probe);
            });
        }
    });
}

TEST_CASE("sufa.logit_source: a watched number confirms the declared counts") {
    SOFATTN_GENERATOR(random);
    for_rows(random, [&](row_case const& row) {
        auto const predicted = perturbed(random, row.exact, 0.5);
        for (std::size_t const tile : {0u, 1u, 6u}) {
            for_orders([&](auto order) {
                reusing<decltype(order)> const attender;
                CAPTURE(tile);
                exec::counting plain;
                test::watched_executor x;
                auto const expected = attend(plain, attender, row, predicted, tile);
                outcome got;
                test::tally const seen =
                    test::watch([&] { got = attend(x, attender, row, predicted, tile); });
                CHECK(got == expected);
                CHECK(x.probe == plain.probe);
                auto const declared = [&](event e) { return x.probe.count(stage::attention, e); };
                CHECK(seen.adds == declared(event::add));
                CHECK(seen.multiplies == declared(event::multiply));
                CHECK(seen.exps == declared(event::exp));
                CHECK(seen.compares == declared(event::compare));
                CHECK(seen.divides == declared(event::divide));
                CHECK(seen.shifts == 0);
            });
        }
    });
}
