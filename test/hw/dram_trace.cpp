// SPDX-License-Identifier: MIT
// sofattn-hw run --dram-trace as its users run it.
#include "support/temporary_folder.hpp"
#include "support/tool.hpp"
#include <sofattn/hw/dram.hpp>
#include <sofattn/hw/dram_presets.hpp>
#include <sofattn/hw/memory_trace.hpp>

#include <doctest/doctest.h>

#include <cstdint>
#include <filesystem>
#include <sstream>
#include <string>
#include <utility>

using namespace sofattn;
using hw::memory_access;
using hw::trace_format;
using test::json;
using test::operator+;
using test::outcome;
using test::run_tool;
using test::temporary_folder;
using test::words;

TEST_CASE("sofattn-hw run --dram-trace: the bytes of the run, in each format") {
    temporary_folder const folder;
    auto const file = folder / "requests.trc";
    words const small{"run", "--workload", "bert_base_squad_loss1", "--set",
                      "memory.model_name=hbm2_16x64"};
    json const all = json::parse(run_tool(small + words{"--format", "json"}).out);
    auto const tiles = all["tiles_count"].get<std::uint64_t>();
    auto const reads = all["dram"]["read_bursts_count"].get<std::uint64_t>();
    auto const writes = all["dram"]["write_bursts_count"].get<std::uint64_t>();
    hw::dram_parameters const device = hw::hbm2_16x64();
    for (std::pair<std::string, trace_format> const& of :
         {std::pair{std::string("dramsim3"), trace_format::dramsim3},
          {"ramulator_load_store", trace_format::ramulator_load_store},
          {"ramulator_read_write", trace_format::ramulator_read_write}}) {
        std::string const& name = of.first;
        trace_format const format = of.second;
        CAPTURE(name);
        outcome const run =
            run_tool(small + words{"--dram-trace", file.string(), "--dram-trace-format", name,
                                   "--dram-trace-tiles", std::to_string(tiles)});
        REQUIRE(run.code == 0);
        CHECK(run.out.find("DRAM trace: " + std::to_string(tiles) + " tiles") != std::string::npos);
        std::istringstream text(test::read_bytes(file));
        hw::memory_trace_reader reader(text, format, device);
        std::uint64_t read = 0;
        std::uint64_t written = 0;
        std::uint64_t last = 0;
        while (auto const r = reader.next()) {
            (r->kind == memory_access::read ? read : written) += 1;
            CHECK(r->arrival_cycle >= last);
            last = r->arrival_cycle;
        }
        // Bursts of the report are counted transfer by transfer; at their borders two share one here.
        CHECK(static_cast<double>(read) ==
              doctest::Approx(static_cast<double>(reads)).epsilon(0.01));
        CHECK(static_cast<double>(written) ==
              doctest::Approx(static_cast<double>(writes)).epsilon(0.01));
        CHECK((last > 0) == (format == trace_format::dramsim3));
    }
}

TEST_CASE("sofattn-hw run --dram-trace: what cannot be is refused, and no file is left") {
    temporary_folder const folder;
    auto const file = (folder / "requests.trc").string();
    for (words const& bad :
         {words{"--dram-trace-format", "ramulator"}, words{"--dram-trace-tiles", "0"},
          words{"--set", "kept_share=2"}, words{"--html", file}, words{"--timeline", file},
          words{"--set", "memory.model_name=ddr5"}}) {
        outcome const run = run_tool(words{"run", "--dram-trace", file} + bad);
        CHECK(run.code == 2);
        CHECK(run.out.empty());
        CHECK(!run.err.empty());
        CHECK(std::filesystem::is_empty(folder.path()));
    }
    CHECK(run_tool({"run", "--dram-trace-tiles", "4"}).code == 2);
    CHECK(run_tool({"run", "--dram-trace", (folder / "no" / "x").string()}).code == 2);
}
