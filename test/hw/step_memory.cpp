// SPDX-License-Identifier: MIT
// Steps that a pipeline has made before: repeated, with the outcome of a simulation.
#include "hw/pipeline_oracle.hpp"
#include "support/generators.hpp"
#include <sofattn/core/error.hpp>
#include <sofattn/hw/pipeline.hpp>
#include <sofattn/hw/step_memory.hpp>
#include <sofattn/hw/work.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

using namespace sofattn;

namespace {

/// A few kinds of items in any order: nothing repeats, and everything comes again.
hw::work shuffled(test::generator& random, std::vector<hw::work_item> const& kinds,
                  index_t length) {
    std::vector<hw::work> parts;
    for (index_t n = 0; n < length; ++n) {
        parts.push_back(hw::work::of(kinds[random.integer<std::size_t>(0, kinds.size() - 1)]));
    }
    parts.back().item.ends_row = true;
    return hw::work::all(std::move(parts));
}

std::optional<hw::pipeline_timing> run(hw::pipeline_graph const& graph, hw::work const& stream,
                                       hw::pipeline_options const& options = {}) {
    try {
        return hw::simulate(graph, stream, options);
    } catch (error const&) {
        return std::nullopt;
    }
}

struct counting_listener final : hw::pipeline_listener {
    std::uint64_t heard = 0;
    void on_busy(std::size_t /*engine*/, std::uint64_t item, std::uint64_t /*start*/,
                 std::uint64_t /*end*/) override {
        heard = std::max(heard, item + 1);
    }
};

} // namespace

TEST_CASE("hw.step_memory: a stream that only resembles itself gives the cycles of a simulation") {
    SOFATTN_GENERATOR(random);
    int finished = 0;
    std::uint64_t items = 0;
    std::uint64_t simulated = 0;
    for (int n = 0; n < 1500; ++n) {
        CAPTURE(n);
        auto const graph = test::random_graph(random);
        std::vector<hw::work_item> kinds(random.integer<std::size_t>(1, 4));
        for (auto& kind : kinds) {
            // Of a random stream, the first item.
            std::vector<hw::work_item> some;
            do {
                test::expand(test::random_stream(random, graph, 1, 2), some);
            } while (some.empty());
            kind = some.front();
        }
        auto const stream = shuffled(random, kinds, random.integer<index_t>(1, 250));
        std::vector<hw::work_item> all;
        test::expand(stream, all);
        auto const expected = test::cycle_by_cycle(graph, all).run();
        auto const found = run(graph, stream);
        REQUIRE(found.has_value() == expected.has_value());
        if (expected) {
            INFO(test::describe(*found), "\nexpected ", test::describe(*expected));
            REQUIRE(*found == *expected);
            ++finished;
            items += found->items;
            simulated += found->items_simulated;
        }
    }
    CHECK(finished > 1000);
    CHECK(simulated < items * 3 / 4); // steps were repeated
}

TEST_CASE("hw.step_memory: nothing that is to be heard is passed over") {
    SOFATTN_GENERATOR(random);
    for (int n = 0; n < 60; ++n) {
        hw::pipeline_graph graph;
        std::vector<hw::work_item> kinds(2);
        for (std::size_t e = 0; e < 4; ++e) {
            graph.engines.push_back({.name = "e" + std::to_string(e)});
            if (e > 0) {
                graph.buffers.push_back({.from = e - 1, .to = e});
            }
            for (auto& kind : kinds) {
                kind.busy_cycles.push_back(random.integer<std::uint64_t>(1, 9));
            }
        }
        auto const stream = shuffled(random, kinds, 3000);
        counting_listener listener;
        auto const heard = random.integer<std::uint64_t>(0, 400);
        auto const found = hw::simulate(graph, stream, {&listener, heard, true});
        CHECK(listener.heard == heard);
        CHECK(found == hw::simulate(graph, stream, {.fast_forward = false}));
        CHECK(found.items_simulated >= heard);
        CHECK(found.items_simulated < 2700);
    }
}

TEST_CASE("hw.step_memory: places are found by all of their key, and room has an end") {
    using hw::detail::step_memory;
    step_memory memory;
    auto const first = memory.place_of({1, 2, 3}, 7);
    REQUIRE(first.has_value());
    CHECK(memory.place_of({1, 2, 3}, 7) == first);
    CHECK(memory.place_of({1, 2}, 0) != first);
    CHECK(memory.find(*first, 5) == nullptr);
    memory.learn(*first, 5, {.to = 1, .cycles = 10});
    memory.learn(*first, 5, {.to = 1, .cycles = 99}); // a step has one outcome
    REQUIRE(memory.find(*first, 5) != nullptr);
    CHECK(memory.find(*first, 5)->cycles == 10);
    CHECK(memory.find(*first, 6) == nullptr);
    for (std::uint64_t n = 2; n < step_memory::most_places; ++n) {
        REQUIRE(memory.place_of({n}, 0).has_value());
    }
    CHECK(!memory.place_of({~std::uint64_t{0}}, 0).has_value());
    CHECK(memory.place_of({1, 2, 3}, 7) == first);
    CHECK(memory.items_behind(*first) == 7);
    CHECK(memory.key(*first) == std::vector<std::uint64_t>{1, 2, 3});
}
