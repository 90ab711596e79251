// SPDX-License-Identifier: MIT
#include "support/generators.hpp"
#include <sofattn/probe/ledger.hpp>

#include <doctest/doctest.h>

#include <array>
#include <cstddef>
#include <cstdint>

using namespace sofattn;
using probe::event;
using probe::ledger;
using probe::stage;

namespace {

stage random_stage(test::generator& random) {
    return static_cast<stage>(random.integer<std::size_t>(0, probe::stage_count - 1));
}
event random_event(test::generator& random) {
    return static_cast<event>(random.integer<std::size_t>(0, probe::event_count - 1));
}

} // namespace

TEST_CASE("probe.ledger: counts per stage and event, and per event over all stages") {
    SOFATTN_GENERATOR(random);
    ledger l;
    std::array<std::array<std::uint64_t, probe::event_count>, probe::stage_count> expected{};
    for (int n = 0; n < 2000; ++n) {
        auto const s = random_stage(random);
        auto const e = random_event(random);
        auto const count = random.integer<std::uint64_t>(0, 1'000'000'000'000);
        l(s, e, count);
        expected[static_cast<std::size_t>(s)][static_cast<std::size_t>(e)] += count;
    }
    for (std::size_t e = 0; e < probe::event_count; ++e) {
        std::uint64_t total = 0;
        for (std::size_t s = 0; s < probe::stage_count; ++s) {
            CHECK(l.count(static_cast<stage>(s), static_cast<event>(e)) == expected[s][e]);
            total += expected[s][e];
        }
        CHECK(l.count(static_cast<event>(e)) == total);
    }
}

TEST_CASE("probe.ledger: equal means every count is equal") {
    ledger a;
    ledger b;
    CHECK(a == b);
    a(stage::selection, event::compare, 1);
    CHECK(a != b);
    b(stage::attention, event::compare, 1);
    CHECK(a != b); // the same event elsewhere
    CHECK(a.count(event::compare) == b.count(event::compare));
    b = a;
    CHECK(a == b);
    a.begin_tile({1, 2, 3}); // nothing to count
    CHECK(a == b);
    a(stage::selection, event::compare, 0);
    CHECK(a == b);
}

TEST_CASE("probe.ledger: parts of a run sum to the whole, in any order") {
    SOFATTN_GENERATOR(random);
    std::array<ledger, 3> parts;
    ledger whole;
    for (int n = 0; n < 300; ++n) {
        auto const s = random_stage(random);
        auto const e = random_event(random);
        auto const count = random.integer<std::uint64_t>(0, 1000);
        parts[random.integer<std::size_t>(0, 2)](s, e, count);
        whole(s, e, count);
    }
    ledger forwards = parts[0];
    (forwards += parts[1]) += parts[2];
    ledger backwards = parts[2];
    (backwards += parts[1]) += parts[0];
    CHECK(forwards == whole);
    CHECK(backwards == whole);
}

TEST_CASE("probe.ledger: traffic has the unit bytes") {
    ledger l;
    l(stage::score_prediction, event::index_bytes, 64);
    l(stage::attention, event::index_bytes, 36);
    l(stage::attention, event::key_bytes, 5);
    CHECK(l.traffic(event::index_bytes) == bytes(100));
    CHECK(l.traffic(event::key_bytes) == bytes(5));
    CHECK(l.traffic(event::value_bytes) == bytes{});
}

TEST_CASE("probe.ledger: works in constant expressions") {
    constexpr std::uint64_t seen = [] {
        ledger l;
        l(stage::selection, event::compare, 44);
        l += l;
        return l.count(event::compare);
    }();
    CHECK(seen == 88);
}
