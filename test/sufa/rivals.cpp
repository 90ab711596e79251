// SPDX-License-Identifier: MIT
// What all attenders must agree on, and what each of them costs.
#include "sufa/attend_case.hpp"
#include "support/generators.hpp"
#include "support/watched.hpp"
#include <sofattn/core/bfloat16.hpp>
#include <sofattn/core/half.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/exec/executor.hpp>
#include <sofattn/sufa/rivals.hpp>
#include <sofattn/sufa/sorted_updating.hpp>

#include <doctest/doctest.h>

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace {

using namespace sofattn;
using probe::event;
using probe::stage;

using sufa_descending = sufa::sorted_updating<sufa::descending>;
using sufa_ascending = sufa::sorted_updating<sufa::ascending>;

static_assert(sufa::flash_attention_2::tile_ready && !sufa::two_pass::tile_ready);

template <index_t Width>
using counting_lanes =
    exec::executor<exec::scalar_lanes<Width>, probe::ledger, exec::reference::real_type>;

/// Calls f(attender) for all of them.
template <class F>
void for_attenders(F f) {
    f(sufa_descending{});
    f(sufa_ascending{});
    f(sufa::flash_attention_2{});
    f(sufa::two_pass{});
}

/// All attenders on the same keys in every order, in one tile and (where they can) in several.
template <class T>
void check_against_definition(test::generator& random, test::attend_case<T> const& c,
                              std::vector<key_id> const& selected,
                              std::vector<index_t> const& tiles = {0, 1, 7, 32}) {
    CAPTURE(c.key_count());
    CAPTURE(selected.size());
    CAPTURE(c.scale);
    std::vector<double> const expected = test::expected_output(c, selected);
    for (test::arrival how : test::all_arrivals) {
        CAPTURE(static_cast<int>(how));
        auto const keys = test::arranged(random, c, selected, how);
        for_attenders([&](auto attender) {
            for (index_t tile : tiles) {
                if (!attender.tile_ready && tile != 0) {
                    continue;
                }
                std::string const name = attender.name;
                CAPTURE(name);
                CAPTURE(tile);
                exec::reference x;
                auto const row = test::attend(x, attender, c, keys, tile);
                REQUIRE(test::deviation(row, expected) <= test::attend_tolerance);
            }
        });
    }
}

// --- costs ---------------------------------------------------------------------------------------

/// Events of the attention stage without the q.k and p.v products, which all attenders share.
struct softmax_arithmetic {
    std::uint64_t adds, multiplies, exps, compares;
};

softmax_arithmetic softmax_part(probe::ledger const& l, std::uint64_t keys, std::uint64_t dim,
                                std::uint64_t value_dim) {
    auto const count = [&](event e) { return l.count(stage::attention, e); };
    return {count(event::add) - keys * (dim + value_dim),
            count(event::multiply) - keys * (dim + 1 + value_dim), count(event::exp),
            count(event::compare)};
}

// Weights that reproduce the paper's Fig. 5 with 16-bit operands; an exponential counts as 34 adds.
constexpr std::uint64_t weight_exp = 34;
constexpr std::uint64_t weight_multiply = 4;
constexpr std::uint64_t weight_add = 1;
constexpr std::uint64_t weight_compare = 1;

std::uint64_t weighted(softmax_arithmetic const& a) {
    return weight_exp * a.exps + weight_multiply * a.multiplies + weight_add * a.adds +
           weight_compare * a.compares;
}

} // namespace

TEST_CASE_TEMPLATE("sufa.attenders: any set in any order is within 2e-6 of double precision", T,
                   float, half, bfloat16) {
    SOFATTN_GENERATOR(random);
    struct size {
        index_t keys, dim, value_dim;
    };
    std::vector<size> const sizes{{1, 1, 1},     {2, 8, 3},     {17, 64, 64},
                                  {100, 80, 96}, {64, 256, 16}, {300, 16, 256}};
    for (auto const& [keys, dim, value_dim] : sizes) {
        test::attend_case<T> c(random, keys, dim, value_dim);
        for (double magnitude : {0.0, 5.0, 1e4}) {
            if (magnitude > 0.0) {
                c.stretch_to(magnitude);
            }
            for (index_t kept : {index_t{1}, (keys + 3) / 4, keys}) {
                check_against_definition(random, c, test::random_keys(random, keys, kept));
            }
        }
    }
}

TEST_CASE_TEMPLATE("sufa.attenders: 4096 keys and 256 dimensions are within 2e-6 too", T, float,
                   half, bfloat16) {
    SOFATTN_GENERATOR(random);
    test::attend_case<T> c(random, 4096, 256, 128);
    check_against_definition(random, c, test::random_keys(random, 4096, 4096), {0});
    c.stretch_to(1e4);
    check_against_definition(random, c, test::random_keys(random, 4096, 1000), {0, 256});
}

TEST_CASE("sufa.attenders: logits of 1e4 and -1e4 side by side, tied and nearly tied at the top") {
    SOFATTN_GENERATOR(random);
    test::attend_case<float> c(random, 200, 4, 32);
    c.scale = 1.0;
    for (index_t d = 0; d < 4; ++d) {
        c.query(d) = d == 0 ? 1.0f : 0.0f;
    }
    auto const all = test::random_keys(random, 200, 200);
    SUBCASE("half of them at either end") {
        for (index_t k = 0; k < 200; ++k) {
            c.keys(k, 0) = k % 2 == 0 ? 1e4f : -1e4f;
        }
    }
    SUBCASE("steps of 2^-9 under 1e4") {
        for (index_t k = 0; k < 200; ++k) {
            c.keys(k, 0) = 1e4f - 0x1p-9f * static_cast<float>(k * 37 % 200);
        }
    }
    SUBCASE("all at -1e4") {
        for (index_t k = 0; k < 200; ++k) {
            c.keys(k, 0) = -1e4f;
        }
    }
    SUBCASE("evenly from -1e4 to 1e4") {
        for (index_t k = 0; k < 200; ++k) {
            c.keys(k, 0) = -1e4f + 100.0f * static_cast<float>(k);
        }
    }
    check_against_definition(random, c, all);
}

TEST_CASE("sufa.attenders: outlier channels and zero rows are attended like others") {
    SOFATTN_GENERATOR(random);
    for (test::spread kind : test::all_spreads) {
        test::attend_case<float> c(random, 90, 64, 40);
        c.keys = test::random_matrix<float, axis::key, axis::dim>(random, {90, 64}, kind);
        c.values = test::random_matrix<float, axis::key, axis::value_dim>(random, {90, 40}, kind);
        check_against_definition(random, c, test::random_keys(random, 90, 45));
    }
}

TEST_CASE("sufa.attenders: inputs may have any strides") {
    SOFATTN_GENERATOR(random);
    test::attend_case<float> const c(random, 30, 24, 20);
    auto const keys = test::random_keys(random, 30, 19);
    for (test::layout kind : test::all_layouts) {
        auto const query = test::strided(random, c.query.view(), kind);
        auto const key_rows = test::strided(random, c.keys.view(), kind);
        auto const values = test::strided(random, c.values.view(), kind);
        sufa::attend_inputs<float, float, float> const in{query.cview(), key_rows.cview(),
                                                          values.cview(), c.scale};
        for_attenders([&](auto attender) {
            exec::reference x;
            std::vector<double> o(20);
            std::vector<double> logits(keys.size());
            auto state = sufa::softmax_state<double>::empty(o);
            auto const kept = test::as_kept(keys);
            attender(x, in, std::span<ranked<int> const>(kept), std::span(logits), state);
            std::vector<float> row(20);
            sufa::normalise{}(x, state, row);
            CHECK(row == test::attend(x, attender, c, keys)); // the same bits
        });
    }
}

TEST_CASE("sufa.attenders: no kept keys leave the state as it was and cost nothing") {
    SOFATTN_GENERATOR(random);
    test::attend_case<float> const c(random, 5, 8, 6);
    for_attenders([&](auto attender) {
        exec::counting x;
        CHECK(test::attend(x, attender, c, {}) == std::vector<float>(6));
        CHECK(x.probe == probe::ledger{});
        if (attender.tile_ready) {
            std::vector<double> o(6);
            std::vector<double> logits(5);
            auto state = sufa::softmax_state<double>::empty(o);
            auto const kept = test::as_kept(std::vector<key_id>{3, 1});
            attender(x, c.inputs(), std::span<ranked<int> const>(kept), std::span(logits), state);
            auto const before = state;
            auto const row = o;
            auto const counts = x.probe;
            attender(x, c.inputs(), std::span<ranked<int> const>{}, std::span(logits), state);
            CHECK(state.m == before.m);
            CHECK(state.l == before.l);
            CHECK(o == row);
            CHECK(x.probe == counts);
        }
    });
}

TEST_CASE("sufa.attenders: states of two ranges of keys merge to the state of both") {
    SOFATTN_GENERATOR(random);
    test::attend_case<float> c(random, 80, 32, 24);
    for (double magnitude : {3.0, 1e4}) {
        c.stretch_to(magnitude);
        auto const keys = test::random_keys(random, 80, 50);
        for_attenders([&](auto attender) {
            exec::reference x;
            std::vector<double> logits(50);
            std::vector<double> o(24);
            std::vector<double> other_o(24);
            auto state = sufa::softmax_state<double>::empty(o);
            auto other = sufa::softmax_state<double>::empty(other_o);
            auto const kept = test::as_kept(keys);
            std::span<ranked<int> const> const all(kept);
            attender(x, c.inputs(), all.first(21), std::span(logits), state);
            attender(x, c.inputs(), all.subspan(21), std::span(logits), other);
            state.merge(other);
            std::vector<float> row(24);
            state.finish(row);
            CHECK(test::deviation(row, test::expected_output(c, keys)) <= test::attend_tolerance);
        });
    }
}

TEST_CASE_TEMPLATE("sufa.attenders: lanes change neither bits nor counts", X, counting_lanes<4>,
                   counting_lanes<8>, counting_lanes<16>) {
    SOFATTN_GENERATOR(random);
    for (index_t value_dim : {1, 3, 4, 5, 7, 8, 9, 15, 16, 17, 64}) {
        test::attend_case<float> const c(random, 70, 20, value_dim);
        for (index_t kept : {1, 3, 4, 5, 8, 16, 17, 70}) {
            auto const keys = test::arranged(random, c, test::random_keys(random, 70, kept),
                                             test::arrival::shuffled);
            for_attenders([&](auto attender) {
                exec::counting narrow;
                X wide;
                index_t const tile = attender.tile_ready ? 9 : 0;
                auto const expected = test::attend(narrow, attender, c, keys, tile);
                REQUIRE(test::attend(wide, attender, c, keys, tile) == expected);
                REQUIRE(wide.probe == narrow.probe);
            });
        }
    }
}

// Logical work and executed work are one and the same, FlashAttention-2's first tile included: it
// rescales an empty l and o by exp(-infinity), as its published form does. Not counted on either
// side are unary minus, the sign of a difference that is there already, and asking whether a state
// is empty: the circuit has wires or a flag for these.
TEST_CASE("sufa.attenders: a watched number confirms the declared counts") {
    SOFATTN_GENERATOR(random);
    for (index_t dim : {1, 16, 33}) {
        for (index_t value_dim : {1, 24}) {
            test::attend_case<float> const c(random, 40, dim, value_dim);
            for (test::arrival how : test::all_arrivals) {
                for (index_t kept : {0, 1, 2, 25}) {
                    auto const keys =
                        test::arranged(random, c, test::random_keys(random, 40, kept), how);
                    for_attenders([&](auto attender) {
                        for (index_t tile : {0, 1, 6}) {
                            if (!attender.tile_ready && tile != 0) {
                                continue;
                            }
                            std::string const name = attender.name;
                            CAPTURE(name);
                            CAPTURE(kept);
                            CAPTURE(tile);
                            test::watched_executor x;
                            exec::counting plain;
                            auto const expected = test::attend(plain, attender, c, keys, tile);
                            std::vector<float> row;
                            test::tally const seen = test::watch(
                                [&] { row = test::attend(x, attender, c, keys, tile); });
                            REQUIRE(row == expected);
                            REQUIRE(x.probe == plain.probe);
                            auto const declared = [&](event e) {
                                return x.probe.count(stage::attention, e);
                            };
                            REQUIRE(seen.adds == declared(event::add));
                            REQUIRE(seen.multiplies == declared(event::multiply));
                            REQUIRE(seen.exps == declared(event::exp));
                            REQUIRE(seen.compares == declared(event::compare));
                            REQUIRE(seen.divides == declared(event::divide));
                            REQUIRE(seen.shifts == 0);
                        }
                    });
                }
            }
        }
    }
}

TEST_CASE("sufa.flash_attention_2: every tile rescales l and the whole output, the first one too") {
    SOFATTN_GENERATOR(random);
    test::attend_case<float> const c(random, 12, 8, 10);
    auto const keys = test::random_keys(random, 12, 12);
    for (index_t tile : {3, 4, 12}) {
        exec::counting x;
        test::attend(x, sufa::flash_attention_2{}, c, keys, tile);
        auto const part = softmax_part(x.probe, 12, 8, 10);
        auto const tiles = static_cast<std::uint64_t>(12 / tile);
        CHECK(part.exps == 12 + tiles);
        CHECK(part.multiplies == tiles * (1 + 10));
        CHECK(part.adds == 2 * 12 + tiles);
        CHECK(part.compares == 12);
    }
}

TEST_CASE("sufa.two_pass: one exponential and two adds per key, one comparison less than keys") {
    SOFATTN_GENERATOR(random);
    test::attend_case<float> const c(random, 12, 8, 10);
    exec::counting x;
    test::attend(x, sufa::two_pass{}, c, test::random_keys(random, 12, 12));
    auto const part = softmax_part(x.probe, 12, 8, 10);
    CHECK(part.exps == 12);
    CHECK(part.multiplies == 0);
    CHECK(part.adds == 24);
    CHECK(part.compares == 11);
}

TEST_CASE("sufa.normalise: a division per output element, none for a row without keys") {
    std::vector<double> o{2.0, -6.0, 1.0};
    sufa::softmax_state<double> state;
    state.m = 3.0;
    state.l = 4.0;
    state.o = o;
    exec::counting x;
    std::vector<float> row(3);
    sufa::normalise{}(x, state, row);
    CHECK(row == std::vector<float>{0.5f, -1.5f, 0.25f});
    CHECK(x.probe.count(stage::attention, event::divide) == 3);
    exec::counting none;
    sufa::normalise{}(none, sufa::softmax_state<double>::empty(o), row);
    CHECK(row == std::vector<float>(3));
    CHECK(none.probe == probe::ledger{});
}

// Paper section III-C: a quarter fewer than FlashAttention, 11 % fewer than ascending. Four tiles
// of 32 kept keys, d = 64; the order is right within the tiles and from tile to tile.
TEST_CASE("sufa.attenders: descending takes 25 % fewer operations than FA-2, 11 % than ascending") {
    SOFATTN_GENERATOR(random);
    constexpr index_t keys = 128;
    constexpr index_t dim = 64;
    test::attend_case<float> const c(random, keys, dim, dim);
    auto const down =
        test::arranged(random, c, test::random_keys(random, keys, keys), test::arrival::descending);
    // A tile reaches `ascending` best first too, so tiles come from the lowest to the highest.
    std::vector<key_id> low_tiles_first;
    for (index_t tile = 3; tile >= 0; --tile) {
        auto const first = down.begin() + tile * 32;
        low_tiles_first.insert(low_tiles_first.end(), first, first + 32);
    }
    auto const cost = [&](auto attender, std::vector<key_id> const& order) {
        exec::counting x;
        test::attend(x, attender, c, order, 32);
        return static_cast<double>(weighted(softmax_part(x.probe, keys, dim, dim)));
    };
    double const descending = cost(sufa_descending{}, down);
    double const ascending = cost(sufa_ascending{}, low_tiles_first);
    double const flash = cost(sufa::flash_attention_2{}, down);
    double const under_flash = 100.0 * (1.0 - descending / flash);
    double const under_ascending = 100.0 * (1.0 - descending / ascending);
    MESSAGE("weights: exp ", weight_exp, ", multiply ", weight_multiply, ", add ", weight_add,
            ", compare ", weight_compare);
    MESSAGE("softmax arithmetic, 4 tiles of 32 keys, d = 64: descending ", descending,
            ", ascending ", ascending, ", FlashAttention-2 ", flash);
    MESSAGE("descending against FlashAttention-2: -", under_flash, " %, against ascending: -",
            under_ascending, " %");
    CHECK(under_flash > 20.0);
    CHECK(under_flash < 30.0);
    CHECK(under_ascending > 6.0);
    CHECK(under_ascending < 16.0);
}
