// SPDX-License-Identifier: MIT
#include "support/generators.hpp"
#include <sofattn/probe/trace.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

using namespace sofattn;
using probe::event;
using probe::ledger;
using probe::stage;
using probe::tile_id;
using probe::trace;

TEST_CASE("probe.trace: its total is what a ledger hears") {
    SOFATTN_GENERATOR(random);
    trace t;
    ledger l;
    ledger before;
    std::vector<ledger> of_tile;
    std::vector<tile_id> ids;
    for (int n = 0; n < 2000; ++n) {
        if (n > 20 && random.chance(0.05)) {
            ids.push_back({random.integer<index_t>(0, 7), random.integer<index_t>(0, 999),
                           random.integer<index_t>(0, 999)});
            of_tile.emplace_back();
            t.begin_tile(ids.back());
            l.begin_tile(ids.back());
        }
        auto const s = static_cast<stage>(random.integer<std::size_t>(0, probe::stage_count - 1));
        auto const e = static_cast<event>(random.integer<std::size_t>(0, probe::event_count - 1));
        auto const count = random.integer<std::uint64_t>(0, 1'000'000);
        t(s, e, count);
        l(s, e, count);
        (of_tile.empty() ? before : of_tile.back())(s, e, count);
    }
    CHECK(t.total() == l);
    CHECK(t.before() == before);
    REQUIRE(t.tiles().size() == ids.size());
    for (std::size_t i = 0; i < ids.size(); ++i) { // in order of execution
        CHECK(t.tiles()[i].id == ids[i]);
        CHECK(t.tiles()[i].counts == of_tile[i]);
    }
}

TEST_CASE(
    "probe.trace: a tile without events is there, and coming back to a tile makes a new one") {
    trace t;
    t.begin_tile({0, 0, 0});
    t.begin_tile({0, 0, 64});
    t(stage::selection, event::compare, 5);
    t.begin_tile({0, 0, 0});
    t(stage::selection, event::compare, 7);
    REQUIRE(t.tiles().size() == 3);
    CHECK(t.tiles()[0].counts == ledger{});
    CHECK(t.tiles()[1].counts.count(event::compare) == 5);
    CHECK(t.tiles()[2].id == t.tiles()[0].id);
    CHECK(t.tiles()[2].counts.count(event::compare) == 7);
    CHECK(t.total().count(event::compare) == 12);
}

TEST_CASE("probe.trace: equal totals in other tiles are another trace") {
    trace a;
    trace b;
    CHECK(a == b);
    a(stage::attention, event::exp, 1);
    b.begin_tile({});
    b(stage::attention, event::exp, 1);
    CHECK(a.total() == b.total());
    CHECK(a != b);
    trace const copy = b;
    CHECK(copy == b);
}

TEST_CASE("probe.trace: a tile's fullest row is the largest that was told since it began") {
    SOFATTN_GENERATOR(random);
    trace t;
    t.row_kept(7); // before the first tile, there is nothing to keep of
    CHECK(t.tiles().empty());
    for (int n = 0; n < 100; ++n) {
        t.begin_tile({0, 0, n});
        std::uint64_t most = 0;
        for (int row = random.integer(0, 20); row > 0; --row) {
            auto const kept = random.integer<std::uint64_t>(0, 128);
            t.row_kept(kept);
            most = std::max(most, kept);
        }
        CHECK(t.tiles().back().kept_most == most);
        CHECK(t.tiles().back().counts == ledger{});
    }
}
