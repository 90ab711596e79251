// SPDX-License-Identifier: MIT
#include <sofattn/hw/pipeline.hpp>

#include <doctest/doctest.h>
#include <hw/pipeline_oracle.hpp>
#include <support/generators.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

using namespace sofattn;
using test::generator;

namespace {

[[maybe_unused]] hw::pipeline_graph chain(std::size_t engines, std::uint64_t slots) {
    hw::pipeline_graph graph;
    for (std::size_t e = 0; e < engines; ++e) {
        graph.engines.push_back({.name = "e" + std::to_string(e)});
        if (e > 0) {
            graph.buffers.push_back({.from = e - 1, .to = e, .slots = slots});
        }
    }
    return graph;
}

std::optional<hw::pipeline_timing> run(hw::pipeline_graph const& graph, hw::work const& stream,
                                       hw::pipeline_options const& options = {}) {
    try {
        return hw::simulate(graph, stream, options);
    } catch (error const&) {
        return std::nullopt;
    }
}

void check_sums(hw::pipeline_timing const& timing) {
    for (auto const& e : timing.engines) {
        CHECK(e.busy + e.stalled() + e.idle_before + e.idle_after == timing.total);
        CHECK(e.items == timing.items);
        CHECK(e.busy <= timing.total);
    }
}

} // namespace

TEST_CASE("hw.pipeline: every number equals that of a simulation cycle by cycle") {
    SOFATTN_GENERATOR(random);
    int finished = 0;
    int deadlocks = 0;
    std::uint64_t skipped = 0;
    for (int n = 0; n < 3000; ++n) {
        CAPTURE(n);
        auto const graph = test::random_graph(random);
        // Long repetitions of little, or short ones of much.
        bool const is_long = n % 3 == 0;
        auto const stream = test::random_stream(random, graph, is_long ? 1 : 2, is_long ? 40 : 4);
        std::vector<hw::work_item> items;
        test::expand(stream, items);
        auto const expected = test::cycle_by_cycle(graph, items).run();
        auto const found = run(graph, stream);
        auto const stepwise = run(graph, stream, {.fast_forward = false});
        REQUIRE(found.has_value() == expected.has_value());
        REQUIRE(stepwise.has_value() == expected.has_value());
        if (expected) {
            INFO(test::describe(*found), "\nexpected ", test::describe(*expected));
            REQUIRE(*found == *expected);
            REQUIRE(*stepwise == *expected);
            check_sums(*found);
            skipped += found->items - found->items_simulated;
            CHECK(stepwise->items_simulated == stepwise->items);
        }
        (expected ? finished : deadlocks) += 1;
    }
    // The generator reaches what it is for.
    CHECK(finished > 2000);
    CHECK(deadlocks > 50);
    CHECK(skipped > 5000);
}
