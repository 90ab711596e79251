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

hw::pipeline_graph chain(std::size_t engines, std::uint64_t slots) {
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

TEST_CASE("hw.pipeline: one engine needs the sum of its cycles") {
    SOFATTN_GENERATOR(random);
    hw::pipeline_graph const graph = chain(1, 1);
    auto const stream = test::random_stream(random, graph, 2, 9);
    std::vector<hw::work_item> items;
    test::expand(stream, items);
    std::uint64_t sum = 0;
    for (auto const& item : items) {
        sum += item.busy_cycles[0];
    }
    auto const timing = hw::simulate(graph, stream);
    CHECK(timing.engines[0].busy == cycles(sum));
    CHECK(timing.engines[0].stalled() == cycles(0));
}

TEST_CASE("hw.pipeline: with double buffers a chain runs at the pace of its slowest engine") {
    SOFATTN_GENERATOR(random);
    for (int n = 0; n < 50; ++n) {
        auto const engines = random.integer<std::size_t>(1, 6);
        auto const count = random.integer<std::uint64_t>(1, 100'000'000);
        hw::work_item item;
        std::uint64_t sum = 0;
        for (std::size_t e = 0; e < engines; ++e) {
            item.busy_cycles.push_back(random.integer<std::uint64_t>(e == 0 ? 1 : 0, 100));
            sum += item.busy_cycles.back();
        }
        std::uint64_t const slowest = std::ranges::max(item.busy_cycles);
        auto const timing = hw::simulate(chain(engines, 2), hw::work::of(item, count));
        CHECK(timing.total == cycles(sum + (count - 1) * slowest));
        // Engines of nearly the same pace take a while to settle.
        CHECK(timing.items_simulated < 5000);
        check_sums(timing);
    }
}

TEST_CASE("hw.pipeline: with one slot neighbours take turns") {
    auto const timing =
        hw::simulate(chain(2, 1), hw::work::of({.busy_cycles = {30, 12}}, 1'000'000));
    CHECK(timing.total == cycles(42'000'000));
    // Each waits for the other; the first and the last wait are idleness.
    CHECK(timing.engines[0].stalled(hw::stall_cause::output) == cycles(12 * 999'999));
    CHECK(timing.engines[1].stalled(hw::stall_cause::input) == cycles(30 * 999'999));
}

TEST_CASE("hw.pipeline: a row-ready buffer delays the consumer by a row, a latency by itself") {
    hw::pipeline_graph graph = chain(2, hw::unbounded);
    auto const rows = hw::work::all({hw::work::of({.busy_cycles = {10, 10}}, 15),
                                     hw::work::of({.busy_cycles = {10, 10}, .ends_row = true})},
                                    1000);
    CHECK(hw::simulate(graph, rows).total == cycles(10 * 16 * 1000 + 10));
    graph.buffers[0].ready = hw::hand_over::row;
    auto const by_row = hw::simulate(graph, rows);
    CHECK(by_row.total == cycles(10 * 16 * 1001));
    CHECK(by_row.buffers[0].peak_items == 17); // a row, and what is made beside it
    CHECK(by_row.items_simulated < 1000);

    auto const late = hw::work::of({.busy_cycles = {10, 10}, .latency_cycles = {75, 10}}, 1000);
    CHECK(hw::simulate(chain(2, hw::unbounded), late).total == cycles(75 + 10 * 1000));
    auto const last = hw::work::of({.busy_cycles = {10, 10}, .latency_cycles = {10, 75}}, 1000);
    CHECK(hw::simulate(chain(2, 2), last).total == cycles(10 + 10 * 999 + 75));
}

TEST_CASE("hw.pipeline: a shared resource serves who asked first, then the earlier engine") {
    hw::pipeline_graph graph = chain(3, 4);
    graph.resources = {"port"};
    graph.engines[0].resource = 0;
    graph.engines[2].resource = 0;
    // Fetch 10, compute 1, write 10: the port is the limit and is never free.
    auto const timing = hw::simulate(graph, hw::work::of({.busy_cycles = {10, 1, 10}}, 1000));
    CHECK(timing.resources_held[0] == cycles(20'000));
    CHECK(timing.total >= cycles(20'000));
    CHECK(timing.total <= cycles(20'000 + 2)); // the compute of the first or last items shows
    // A transfer longer than the work is the memory's fault, and so is nothing else.
    auto const slow = hw::simulate(
        graph, hw::work::of({.busy_cycles = {4, 1, 0}, .resource_cycles = {10, 0, 0}}, 1000));
    CHECK(slow.engines[0].stalled(hw::stall_cause::memory) == cycles(6000));
    CHECK(slow.total == cycles(10 * 1000 + 1));
}

TEST_CASE("hw.pipeline: bounds from below, and more buffer is never slower") {
    SOFATTN_GENERATOR(random);
    for (int n = 0; n < 400; ++n) {
        CAPTURE(n);
        auto graph = test::random_graph(random, 6);
        auto const stream = test::random_stream(random, graph, 1, 6);
        auto const base = run(graph, stream);
        if (!base) {
            continue;
        }
        std::vector<hw::work_item> items;
        test::expand(stream, items);
        for (auto const& item : items) { // the longest path of one item
            std::vector<std::uint64_t> done(graph.engines.size());
            for (std::size_t e = 0; e < graph.engines.size(); ++e) {
                std::uint64_t const latency =
                    item.latency_cycles.empty() ? 0 : item.latency_cycles[e];
                done[e] += std::max(item.busy_cycles[e], latency);
                CHECK(base->total >= cycles(done[e]));
                for (auto const& b : graph.buffers) {
                    done[b.to] = b.from == e ? std::max(done[b.to], done[e]) : done[b.to];
                }
            }
        }
        for (cycles const held : base->resources_held) {
            CHECK(held <= base->total);
        }
        // First come first served can make a better start end worse: not with shared resources.
        for (auto& e : graph.engines) {
            e.resource.reset();
        }
        auto const alone = run(graph, stream);
        REQUIRE(alone.has_value());
        if (!graph.buffers.empty()) {
            auto more = graph;
            auto& grown = more.buffers[random.integer<std::size_t>(0, more.buffers.size() - 1)];
            grown.slots += grown.slots == hw::unbounded ? 0 : 1;
            grown.capacity_bytes += grown.capacity_bytes == hw::unbounded ? 0 : 5;
            CHECK(hw::simulate(more, stream).total <= alone->total);
            grown.ready = hw::hand_over::tile; // and neither is a hand-over by tiles
            CHECK(hw::simulate(more, stream).total <= alone->total);
        }
    }
}

TEST_CASE("hw.pipeline: pieces come when they are needed and go when they are done") {
    SOFATTN_GENERATOR(random);
    auto const graph = chain(4, 3);
    std::vector<hw::work> pieces;
    for (int n = 0; n < 20'000; ++n) {
        pieces.push_back(hw::work::of({.busy_cycles = {random.integer<std::uint64_t>(0, 9), 5,
                                                       random.integer<std::uint64_t>(0, 9), 4}},
                                      random.integer<std::uint64_t>(0, 2)));
    }
    std::size_t next = 0;
    auto const lazy = hw::simulate(graph, [&]() -> std::optional<hw::work> {
        return next < pieces.size() ? std::optional(pieces[next++]) : std::nullopt;
    });
    CHECK(lazy.peak_pieces <= 3 * 4); // no more than the buffers hold
    CHECK(lazy == hw::simulate(graph, hw::work::all(pieces)));
    CHECK(hw::simulate(graph, hw::work::all({})).total == cycles(0));
}

TEST_CASE("hw.pipeline: a tiled layer of a million tokens is a matter of its transients") {
    // 8192 blocks of 128 queries, 8192 tiles of 128 keys, 32 heads; and the causal half of it.
    hw::pipeline_graph graph = chain(5, 2);
    graph.resources = {"dram"};
    graph.engines[0].resource = 0;
    graph.engines[4].resource = 0;
    hw::work_item const tile{.busy_cycles = {10, 30, 20, 35, 0}};
    hw::work_item const last{.busy_cycles = {10, 30, 20, 35, 100}, .ends_row = true};
    auto const dense = hw::simulate(
        graph,
        hw::work::all({hw::work::all({hw::work::of(tile, 8191), hw::work::of(last)}, 8192)}, 32));
    CHECK(dense.items == 8192ull * 8192 * 32);
    CHECK(dense.items_simulated < 1000);
    std::vector<hw::work> rows;
    for (std::uint64_t r = 0; r < 8192; ++r) {
        rows.push_back(hw::work::of(tile, r));
        rows.push_back(hw::work::of(last));
    }
    auto const causal = hw::simulate(graph, hw::work::all(std::move(rows), 32));
    CHECK(causal.items == 8192ull * 8193 / 2 * 32);
    CHECK(causal.items_simulated < 500'000);
    check_sums(dense);
    check_sums(causal);
}

namespace {

/// Adds up what it hears, and checks that intervals follow each other.
struct recorder : hw::pipeline_listener {
    explicit recorder(hw::pipeline_graph const& graph)
        : busy(graph.engines.size()), lost(graph.engines.size()), until(graph.engines.size()),
          fill(graph.buffers.size()) {}

    void on_busy(std::size_t e, std::uint64_t item, std::uint64_t start,
                 std::uint64_t end) override {
        follow(e, start, end);
        busy[e] += end - start;
        last_item = std::max(last_item, item);
    }
    void on_stall(std::size_t e, std::uint64_t item, hw::stall why, std::uint64_t start,
                  std::uint64_t end) override {
        follow(e, start, end);
        CHECK(why.lost == cycles(end - start));
        lost[e] += end - start;
        last_item = std::max(last_item, item);
    }
    void on_fill(std::size_t b, std::uint64_t, std::uint64_t items, std::uint64_t size) override {
        fill[b].peak_items = std::max(fill[b].peak_items, items);
        fill[b].peak = std::max(fill[b].peak, bytes(size));
    }
    void follow(std::size_t e, std::uint64_t start, std::uint64_t end) {
        CHECK(start < end);
        CHECK(start >= until[e]);
        until[e] = end;
    }

    std::vector<std::uint64_t> busy, lost, until; // [engine]
    std::vector<hw::buffer_timing> fill;          // [buffer]
    std::uint64_t last_item = 0;
};

} // namespace

TEST_CASE("hw.pipeline: a listener hears every cycle that is accounted for") {
    SOFATTN_GENERATOR(random);
    for (int n = 0; n < 200; ++n) {
        CAPTURE(n);
        auto const graph = test::random_graph(random);
        auto const stream = test::random_stream(random, graph, 1, 30);
        auto const silent = run(graph, stream);
        if (!silent) {
            continue;
        }
        recorder all(graph);
        CHECK(hw::simulate(graph, stream, {.listener = &all}) == *silent);
        for (std::size_t e = 0; e < graph.engines.size(); ++e) {
            CHECK(all.busy[e] == silent->engines[e].busy.count());
            CHECK(all.lost[e] == silent->engines[e].stalled().count());
        }
        CHECK(all.fill == silent->buffers);
        recorder some(graph);
        CHECK(hw::simulate(graph, stream, {.listener = &some, .heard_items = 7}) == *silent);
        CHECK(some.last_item < 7);
    }
}

TEST_CASE("hw.pipeline: a wait without end is named") {
    hw::pipeline_graph graph = chain(2, 3);
    graph.buffers[0].ready = hw::hand_over::row;
    CHECK_THROWS_WITH_AS(
        (void)hw::simulate(graph, hw::work::of({.busy_cycles = {1, 1}}, 8)),
        "pipeline: wait of engine e0 at item 3 for output of engine e1 is without end, must be "
        "finite: buffers hold a whole row where a later engine waits for one, and the last item "
        "ends a row",
        error);
}
