// SPDX-License-Identifier: MIT
#include "support/generators.hpp"
#include <sofattn/core/query_mask.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/rass/schedule.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <set>
#include <utility>
#include <vector>

namespace {

using namespace sofattn;
using rass::wanted_key;

using range_rule = rass::left_to_right<rass::load_rule::range>;
using wanted_rule = rass::left_to_right<rass::load_rule::wanted>;

struct outcome {
    rass::totals sum;
    std::vector<rass::load> loads;

    std::set<key_id> keys_of(index_t phase) const {
        std::set<key_id> keys;
        for (rass::load const& l : loads) {
            if (l.phase == phase) {
                keys.insert(l.key);
            }
        }
        return keys;
    }
};

template <class Schedule>
outcome run(Schedule schedule, std::vector<wanted_key> const& keys) {
    rass::schedule_scratch scratch(std::ssize(keys));
    outcome result;
    result.sum = schedule(keys, scratch, [&](rass::load const& l) { result.loads.push_back(l); });
    return result;
}

wanted_key wants(key_id key, std::uint64_t mask) { return {key, query_mask::from_bits(mask)}; }

/// Paper Fig. 15; masks are written q3 q2 q1 q0.
std::vector<wanted_key> figure_15() {
    return {wants(0, 0b0010), wants(1, 0b0010), wants(2, 0b0111), wants(3, 0b0111),
            wants(4, 0b1101), wants(5, 0b1000), wants(6, 0b1000), wants(7, 0b1101)};
}

/// Vectors fetched: a key and its value per load.
index_t vectors(outcome const& o) { return 2 * o.sum.key_loads; }

/// Random wants of `queries` queries among `keys` keys; each pair with the given chance.
std::vector<wanted_key> random_wants(test::generator& random, index_t queries, index_t keys,
                                     double chance) {
    std::vector<wanted_key> list;
    for (index_t k = 0; k < keys; ++k) {
        query_mask by;
        for (index_t q = 0; q < queries; ++q) {
            if (random.chance(chance)) {
                by.set(q);
            }
        }
        if (!by.empty()) {
            list.push_back({static_cast<key_id>(k), by});
        }
    }
    return list;
}

/// Calls check(list) for blocks of up to 128 queries and 128 keys, sparse to dense.
template <class Check>
void for_random_wants(Check check) {
    SOFATTN_GENERATOR(random);
    for (int round = 0; round < 300; ++round) {
        index_t const queries = random.integer<index_t>(1, query_block);
        index_t const keys = random.integer<index_t>(1, 128);
        double const chance = round % 5 == 0 ? 1.0 : 0.02 * (1 + round % 25);
        CAPTURE(queries);
        CAPTURE(keys);
        CAPTURE(chance);
        check(random_wants(random, queries, keys, chance));
    }
}

index_t most_wants(std::vector<wanted_key> const& keys) {
    index_t most = 0;
    for (index_t q = 0; q < query_block; ++q) {
        most = std::max<index_t>(
            most, std::ranges::count_if(keys, [&](wanted_key const& k) { return k.by.test(q); }));
    }
    return most;
}

/// Totals are what was issued, and phases are issued one after the other.
void check_totals(outcome const& o) {
    REQUIRE(o.sum.key_loads == std::ssize(o.loads));
    index_t phase = 0;
    for (rass::load const& l : o.loads) {
        REQUIRE((l.phase == phase || l.phase == phase + 1)); // no phase is idle
        phase = l.phase;
    }
    REQUIRE(o.sum.phases == (o.loads.empty() ? 0 : phase + 1));
}

/// Every query, taking its keys left to right and two per phase, finds them loaded.
void check_left_to_right(std::vector<wanted_key> const& keys, outcome const& o) {
    for (index_t q = 0; q < query_block; ++q) {
        index_t taken = 0;
        for (wanted_key const& k : keys) {
            if (k.by.test(q)) {
                REQUIRE(std::ranges::count(o.loads, rass::load{k.key, taken / 2}) == 1);
                ++taken;
            }
        }
    }
}

} // namespace

TEST_CASE("rass.schedule: Fig. 15 takes {2,3,5,6} then {0,1,4,7}, 16 vectors") {
    outcome const o = run(rass::reuse_aware{}, figure_15());
    CHECK(o.sum.phases == 2);
    CHECK(o.keys_of(0) == std::set<key_id>{2, 3, 5, 6});
    CHECK(o.keys_of(1) == std::set<key_id>{0, 1, 4, 7});
    CHECK(o.sum.key_loads == 8);
    CHECK(vectors(o) == 16);
}

TEST_CASE("rass.schedule: Fig. 15 left to right loads the ranges 0-5 and 2-7, 24 vectors") {
    outcome const o = run(range_rule{}, figure_15());
    CHECK(o.sum.phases == 2);
    CHECK(o.keys_of(0) == std::set<key_id>{0, 1, 2, 3, 4, 5});
    CHECK(o.keys_of(1) == std::set<key_id>{2, 3, 4, 5, 6, 7});
    CHECK(o.sum.key_loads == 12);
    CHECK(vectors(o) == 24);
}

TEST_CASE("rass.schedule: Fig. 15 left to right with wanted keys only loads 22 vectors") {
    outcome const o = run(wanted_rule{}, figure_15());
    CHECK(o.sum.phases == 2);
    CHECK(o.keys_of(0) == std::set<key_id>{0, 1, 2, 3, 4, 5});
    CHECK(o.keys_of(1) == std::set<key_id>{2, 3, 4, 6, 7});
    CHECK(o.sum.key_loads == 11);
    CHECK(vectors(o) == 22);
}

TEST_CASE("rass.schedule: an empty list takes no phase and loads nothing") {
    auto const check = [](outcome const& o) {
        CHECK(o.sum.phases == 0);
        CHECK(o.sum.key_loads == 0);
        CHECK(o.loads.empty());
    };
    check(run(rass::reuse_aware{}, {}));
    check(run(range_rule{}, {}));
    check(run(wanted_rule{}, {}));
}

TEST_CASE("rass.schedule: one query takes its keys two by two, whatever the schedule") {
    std::vector<wanted_key> const keys{wants(3, 1), wants(4, 1), wants(5, 1)};
    std::vector<rass::load> const expected{{3, 0}, {4, 0}, {5, 1}};
    CHECK(run(rass::reuse_aware{}, keys).loads == expected);
    CHECK(run(range_rule{}, keys).loads == expected);
    CHECK(run(wanted_rule{}, keys).loads == expected);
}

TEST_CASE("rass.schedule: the range rule loads keys between the wanted ones too") {
    std::vector<wanted_key> const keys{wants(10, 1), wants(14, 1)};
    CHECK(run(range_rule{}, keys).sum.key_loads == 5);
    CHECK(run(wanted_rule{}, keys).sum.key_loads == 2);
    CHECK(run(rass::reuse_aware{}, keys).sum.key_loads == 2);
}

TEST_CASE("rass.schedule: keys wanted by equally many queries go in ascending order") {
    std::vector<wanted_key> const keys{wants(1, 0b01), wants(2, 0b10), wants(5, 0b01),
                                       wants(7, 0b10), wants(8, 0b11)};
    std::vector<rass::load> const expected{{8, 0}, {1, 0}, {2, 0}, {5, 1}, {7, 1}};
    CHECK(run(rass::reuse_aware{}, keys).loads == expected);
}

TEST_CASE("rass.schedule: queries of both halves of a mask are served") {
    std::vector<wanted_key> keys(4);
    for (index_t k = 0; k < 4; ++k) {
        auto& wanted = keys[static_cast<std::size_t>(k)];
        wanted.key = static_cast<key_id>(k);
        wanted.by.set(63);
        wanted.by.set(64);
        wanted.by.set(127);
    }
    std::vector<rass::load> const expected{{0, 0}, {1, 0}, {2, 1}, {3, 1}};
    CHECK(run(rass::reuse_aware{}, keys).loads == expected);
    CHECK(run(range_rule{}, keys).loads == expected);
    CHECK(run(wanted_rule{}, keys).loads == expected);
}

TEST_CASE("rass.schedule: reuse-aware loads every wanted key exactly once") {
    for_random_wants([](std::vector<wanted_key> const& keys) {
        outcome const o = run(rass::reuse_aware{}, keys);
        check_totals(o);
        REQUIRE(o.sum.key_loads == std::ssize(keys));
        std::set<key_id> loaded;
        for (rass::load const& l : o.loads) {
            loaded.insert(l.key);
        }
        for (wanted_key const& k : keys) {
            REQUIRE(loaded.contains(k.key)); // so every query gets each of its keys
        }
    });
}

TEST_CASE("rass.schedule: reuse-aware gives no query more than two keys per phase") {
    for_random_wants([](std::vector<wanted_key> const& keys) {
        std::map<key_id, query_mask> by;
        for (wanted_key const& k : keys) {
            by[k.key] = k.by;
        }
        outcome const o = run(rass::reuse_aware{}, keys);
        std::map<std::pair<index_t, index_t>, int> taken; // (phase, query)
        for (rass::load const& l : o.loads) {
            for (index_t q = 0; q < query_block; ++q) {
                if (by[l.key].test(q)) {
                    REQUIRE(++taken[{l.phase, q}] <= rass::keys_per_phase);
                }
            }
        }
    });
}

TEST_CASE("rass.schedule: a key left for a later phase was wanted by a query that was full") {
    for_random_wants([](std::vector<wanted_key> const& keys) {
        std::map<key_id, query_mask> by;
        for (wanted_key const& k : keys) {
            by[k.key] = k.by;
        }
        outcome const o = run(rass::reuse_aware{}, keys);
        std::vector<std::vector<int>> taken( // [phase, query]
            static_cast<std::size_t>(o.sum.phases),
            std::vector<int>(static_cast<std::size_t>(query_block)));
        auto const count = [&](index_t phase, index_t q) -> int& {
            return taken[static_cast<std::size_t>(phase)][static_cast<std::size_t>(q)];
        };
        for (rass::load const& l : o.loads) {
            for (index_t q = 0; q < query_block; ++q) {
                count(l.phase, q) += by[l.key].test(q) ? 1 : 0;
            }
        }
        for (rass::load const& l : o.loads) {
            for (index_t earlier = 0; earlier < l.phase; ++earlier) {
                bool somebody_full = false;
                for (index_t q = 0; q < query_block; ++q) {
                    somebody_full = somebody_full || (by[l.key].test(q) &&
                                                      count(earlier, q) == rass::keys_per_phase);
                }
                REQUIRE(somebody_full);
            }
        }
    });
}

TEST_CASE("rass.schedule: left to right, every query finds its next two keys in each phase") {
    for_random_wants([](std::vector<wanted_key> const& keys) {
        outcome const range = run(range_rule{}, keys);
        outcome const wanted = run(wanted_rule{}, keys);
        check_totals(range);
        check_totals(wanted);
        check_left_to_right(keys, range);
        check_left_to_right(keys, wanted);
        REQUIRE(range.sum.phases == wanted.sum.phases);
        REQUIRE(range.sum.phases == (most_wants(keys) + 1) / 2);
    });
}

TEST_CASE("rass.schedule: left to right with wanted keys only loads nothing that nobody takes") {
    for_random_wants([](std::vector<wanted_key> const& keys) {
        std::set<std::pair<index_t, key_id>> consumed; // (phase, key)
        for (index_t q = 0; q < query_block; ++q) {
            index_t taken = 0;
            for (wanted_key const& k : keys) {
                if (k.by.test(q)) {
                    consumed.emplace(taken++ / 2, k.key);
                }
            }
        }
        REQUIRE(run(wanted_rule{}, keys).sum.key_loads == std::ssize(consumed));
    });
}

TEST_CASE("rass.schedule: no schedule loads fewer than the union, and the range rule loads most") {
    for_random_wants([](std::vector<wanted_key> const& keys) {
        index_t const reuse = run(rass::reuse_aware{}, keys).sum.key_loads;
        index_t const wanted = run(wanted_rule{}, keys).sum.key_loads;
        index_t const range = run(range_rule{}, keys).sum.key_loads;
        REQUIRE(reuse == std::ssize(keys));
        REQUIRE(wanted >= reuse);
        REQUIRE(range >= wanted);
    });
}

TEST_CASE("rass.schedule: phases are at least half the wants of the busiest query") {
    for_random_wants([](std::vector<wanted_key> const& keys) {
        index_t const least = (most_wants(keys) + 1) / 2;
        REQUIRE(run(rass::reuse_aware{}, keys).sum.phases >= least);
    });
}

TEST_CASE("rass.schedule: a schedule is deterministic and does not depend on what scratch held") {
    for_random_wants([](std::vector<wanted_key> const& keys) {
        auto const check = [&](auto schedule) {
            outcome const first = run(schedule, keys);
            rass::schedule_scratch used(128);
            std::ranges::fill(used.order, 0xdeadbeefu);
            std::vector<rass::load> again;
            schedule(keys, used, [&](rass::load const& l) { again.push_back(l); });
            REQUIRE(first.loads == again);
        };
        check(rass::reuse_aware{});
        check(range_rule{});
        check(wanted_rule{});
    });
}
