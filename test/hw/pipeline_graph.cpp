// SPDX-License-Identifier: MIT
#include <sofattn/hw/pipeline.hpp>
#include <sofattn/hw/pipeline_graph.hpp>

#include <doctest/doctest.h>

#include <cstddef>
#include <functional>
#include <string>
#include <utility>
#include <vector>

using namespace sofattn;

namespace {

hw::pipeline_graph pair_of_engines() {
    return {.engines = {{.name = "fetch", .resource = 0}, {.name = "predict"}},
            .buffers = {{.from = 0, .to = 1, .slots = 2, .capacity_bytes = 100}},
            .resources = {"dram"}};
}

template <class F>
void check_error(F f, char const* text) {
    CHECK_THROWS_WITH_AS(f(), text, error);
}

} // namespace

TEST_CASE("hw.pipeline_graph: what cannot run is named") {
    auto const with = [](std::function<void(hw::pipeline_graph&)> const& spoil) {
        return [spoil] {
            hw::pipeline_graph graph = pair_of_engines();
            spoil(graph);
            graph.validate();
        };
    };
    CHECK_NOTHROW(pair_of_engines().validate());
    check_error(with([](auto& g) { g.engines.clear(); }),
                "pipeline: number of engines is 0, must be from 1 to 64");
    check_error(with([](auto& g) { g.engines.resize(65); }),
                "pipeline: number of engines is 65, must be from 1 to 64");
    check_error(with([](auto& g) { g.engines[0].resource = 1; }),
                "pipeline: shared resource of engine fetch is 1, must be below the number of "
                "resources, 1");
    check_error(with([](auto& g) { std::swap(g.buffers[0].from, g.buffers[0].to); }),
                "pipeline: engines joined by buffer 0 is 1 to 0, must be ascending, below 2");
    check_error(with([](auto& g) { g.buffers[0].to = 2; }),
                "pipeline: engines joined by buffer 0 is 0 to 2, must be ascending, below 2");
    check_error(with([](auto& g) { g.buffers[0].slots = 0; }),
                "pipeline: slots of the buffer from fetch to predict is 0, must be at least 1");
    check_error(with([](auto& g) { g.buffers[0].capacity_bytes = 0; }),
                "pipeline: bytes of the buffer from fetch to predict is 0, must be at least 1");
}

TEST_CASE("hw.pipeline_graph: an item of another shape is refused before anything runs") {
    hw::pipeline_graph const graph = pair_of_engines();
    auto const simulate = [&](hw::work_item const& item) {
        return [&graph, item] { (void)hw::simulate(graph, hw::work::of(item)); };
    };
    CHECK_NOTHROW(simulate({.busy_cycles = {1, 2}, .output_bytes = {100}})());
    check_error(simulate({.busy_cycles = {1}}),
                "pipeline: number of an item's busy cycles is 1, must be 2");
    check_error(simulate({}), "pipeline: number of an item's busy cycles is 0, must be 2");
    check_error(simulate({.busy_cycles = {1, 2}, .latency_cycles = {1}}),
                "pipeline: number of an item's latencies is 1, must be 0 or 2");
    check_error(simulate({.busy_cycles = {1, 2}, .resource_cycles = {1, 2, 3}}),
                "pipeline: number of an item's resource cycles is 3, must be 0 or 2");
    check_error(simulate({.busy_cycles = {1, 2}, .output_bytes = {1, 2}}),
                "pipeline: number of an item's bytes is 2, must be 0 or 1");
    check_error(simulate({.busy_cycles = {1, 2}, .output_bytes = {101}}),
                "pipeline: bytes of an item in the buffer from fetch to predict is 101, must be at "
                "most its capacity, 100");
    // Nested items, too, and those of no repetitions are not looked at.
    check_error([&] { (void)hw::simulate(graph, hw::work::all({hw::work::of({})}, 3)); },
                "pipeline: number of an item's busy cycles is 0, must be 2");
    CHECK_NOTHROW((void)hw::simulate(graph, hw::work::of({}, 0)));
}
