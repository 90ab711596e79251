// SPDX-License-Identifier: MIT
#include "hw/layers.hpp"
#include "support/generators.hpp"
#include <sofattn/core/types.hpp>
#include <sofattn/hw/config.hpp>
#include <sofattn/hw/dram.hpp>
#include <sofattn/hw/dram_replay.hpp>
#include <sofattn/hw/dram_requests.hpp>
#include <sofattn/hw/memory_model.hpp>
#include <sofattn/hw/memory_trace.hpp>
#include <sofattn/hw/run.hpp>
#include <sofattn/hw/tile_order.hpp>
#include <sofattn/hw/tile_work.hpp>
#include <sofattn/hw/workload.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <set>
#include <sstream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

using namespace sofattn;
using hw::dram_array;
using hw::memory_access;
using hw::memory_request;
using hw::tile_stage;
using hw::tile_work;
using hw::workload;

namespace {

constexpr std::size_t every_tile = std::size_t{1} << 40;

hw::machine some_machine(test::generator& random) {
    hw::machine m;
    m.pipeline.hand_over_name = random.chance(0.3) ? "row_ready" : "tile_ready";
    m.buffers.token.capacity_bytes = random.chance(0.5) ? 1 << 12 : 1 << 24;
    m.buffers.temporary.capacity_bytes = random.chance(0.5) ? 1 << 12 : 1 << 24;
    m.buffers.weight.capacity_bytes = random.chance(0.5) ? 1 << 12 : 1 << 24;
    return m;
}

/// The array that a request lies in, which it does not leave.
dram_array array_of(hw::dram_layout const& layout, memory_request const& r) {
    for (std::size_t n = 0; n < hw::dram_array_count; ++n) {
        auto const a = static_cast<dram_array>(n);
        if (r.address >= layout.begin(a) &&
            r.address + r.bytes <= layout.begin(a) + layout.bytes(a)) {
            return a;
        }
    }
    FAIL("a request outside of every array, or across their borders");
    return dram_array::queries;
}

} // namespace

TEST_CASE("hw.dram_requests: a tile moves what its traffic says, from and to its arrays") {
    SOFATTN_GENERATOR(random);
    std::map<std::pair<tile_stage, dram_array>, std::uint64_t> seen;
    for (int n = 0; n < 200; ++n) {
        CAPTURE(n);
        workload const w = test::random_workload(random);
        hw::machine const m = some_machine(random);
        hw::dram_requests layer(w, m);
        for (tile_work const& tile : hw::first_tiles(w, m, every_tile)) {
            std::array<std::array<std::uint64_t, 2>, hw::tile_stage_count> moved{};
            std::set<std::uint64_t> vectors; // of the gathered keys
            layer(tile, [&](tile_stage s, memory_request const& r) {
                auto const a = array_of(layer.layout(), r);
                moved[static_cast<std::size_t>(s)][r.kind == memory_access::write ? 1 : 0] +=
                    r.bytes;
                seen[{s, a}] += r.bytes;
                if (s == tile_stage::gather && a == dram_array::keys) {
                    vectors.insert(r.address);
                }
            });
            for (std::size_t s = 0; s < hw::tile_stage_count; ++s) {
                auto const t = hw::transfer_of(tile, static_cast<tile_stage>(s));
                REQUIRE(moved[s][0] == t.read_bytes + t.scattered_bytes);
                REQUIRE(moved[s][1] == t.write_bytes);
            }
            std::uint64_t const loads =
                tile.traffic.key_bytes / (2 * static_cast<std::uint64_t>(tile.dim));
            REQUIRE(vectors.size() ==
                    std::min<std::uint64_t>(loads, static_cast<std::uint64_t>(tile.keys)));
        }
    }
    for (std::pair<tile_stage, dram_array> const& at :
         {std::pair{tile_stage::fetch, dram_array::queries},
          {tile_stage::fetch, dram_array::tokens},
          {tile_stage::fetch, dram_array::codes},
          {tile_stage::fetch, dram_array::index},
          {tile_stage::spill, dram_array::scores},
          {tile_stage::gather, dram_array::kept_tokens},
          {tile_stage::gather, dram_array::weights},
          {tile_stage::gather, dram_array::keys},
          {tile_stage::gather, dram_array::values},
          {tile_stage::write_back, dram_array::index},
          {tile_stage::write_back, dram_array::keys},
          {tile_stage::write_back, dram_array::values},
          {tile_stage::write_back, dram_array::outputs}}) {
        CAPTURE(static_cast<int>(at.first));
        CAPTURE(static_cast<int>(at.second));
        CHECK(seen[at] > 0);
    }
}

TEST_CASE("hw.dram_requests: all queries are read and all outputs written, once") {
    SOFATTN_GENERATOR(random);
    for (int n = 0; n < 100; ++n) {
        CAPTURE(n);
        workload const w = test::random_workload(random);
        hw::machine const m = some_machine(random);
        hw::dram_requests layer(w, m);
        std::map<dram_array, std::vector<std::pair<std::uint64_t, std::uint64_t>>> ranges;
        for (tile_work const& tile : hw::first_tiles(w, m, every_tile)) {
            layer(tile, [&](tile_stage, memory_request const& r) {
                ranges[array_of(layer.layout(), r)].push_back({r.address, r.address + r.bytes});
            });
        }
        for (dram_array const a : {dram_array::queries, dram_array::outputs}) {
            auto& of = ranges[a];
            std::ranges::sort(of);
            std::uint64_t next = layer.layout().begin(a);
            for (auto const& [from, to] : of) {
                REQUIRE(from == next);
                next = to;
            }
            CHECK(next == layer.layout().begin(a) + layer.layout().bytes(a));
        }
    }
}

TEST_CASE("hw.first_tiles: all tiles of a run, in its order") {
    SOFATTN_GENERATOR(random);
    for (int n = 0; n < 100; ++n) {
        workload const w = test::random_workload(random);
        hw::machine const m = some_machine(random);
        auto const all = hw::first_tiles(w, m, every_tile);
        CHECK(all.size() == hw::run(w, m).timing.items);
        auto const some = hw::first_tiles(w, m, all.size() / 2);
        REQUIRE(some.size() == all.size() / 2);
        CHECK(std::equal(some.begin(), some.end(), all.begin()));
        std::uint64_t rows = 0;
        for (tile_work const& tile : all) {
            rows += static_cast<std::uint64_t>(tile.finished_rows);
        }
        CHECK(rows == static_cast<std::uint64_t>(w.heads_count * w.queries_count));
    }
}

TEST_CASE("hw.dram_replay: requests arrive while their transfers hold the DRAM") {
    SOFATTN_GENERATOR(random);
    for (char const* const memory : {"flat", "hbm2_16x64", "ddr4_3200"}) {
        CAPTURE(std::string(memory));
        workload w = test::random_workload(random);
        w.queries_count = w.keys_count = 600;
        w.first_position_count = 0;
        hw::machine m;
        m.memory.model_name = memory;
        hw::dram_parameters const device = hw::device_of(m);
        hw::dram_replay replay(4096);
        auto const report = hw::run(w, m, {.listener = &replay});
        auto const tiles = hw::first_tiles(w, m, 4096);
        auto const requests = replay.requests(tiles, w, m, device);
        std::uint64_t bytes = 0;
        std::uint64_t last = 0;
        for (memory_request const& r : requests) {
            CHECK(r.arrival_cycle >= last);
            last = r.arrival_cycle;
            bytes += r.bytes;
        }
        CHECK(bytes == report.traffic.total());
        CHECK(replay.end_cycle() <= report.timing.total.count());
        double const cycle_ns = 1e3 / m.process.clock_megahertz;
        double const end_ns = static_cast<double>(replay.end_cycle()) * cycle_ns;
        CHECK(static_cast<double>(last) * device.clock_ns <= end_ns);
        // What is written can be read back, and is served.
        std::stringstream text;
        hw::memory_trace_writer write(text, hw::trace_format::dramsim3, device);
        hw::dram direct(device);
        for (memory_request const& r : requests) {
            write(r);
            direct(r);
        }
        hw::memory_trace_reader reader(text, hw::trace_format::dramsim3, device);
        hw::dram again(device);
        while (auto const r = reader.next()) {
            again(*r);
        }
        CHECK(again.last_complete() == direct.last_complete());
        // Closed forms put transfers behind each other as the device serves them.
        if (std::string_view(memory) != "flat") {
            double const served_ns = static_cast<double>(direct.last_complete()) * device.clock_ns;
            MESSAGE(std::string(memory)
                    << ": served in " << served_ns << " ns, the pipeline has " << end_ns);
            CHECK(served_ns <= 1.25 * end_ns);
        }
    }
}
