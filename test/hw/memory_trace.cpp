// SPDX-License-Identifier: MIT
#include <sofattn/hw/dram_presets.hpp>
#include <sofattn/hw/memory_trace.hpp>

#include <doctest/doctest.h>
#include <support/generators.hpp>

#include <array>
#include <cstdint>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

using namespace sofattn;
using hw::memory_access;
using hw::memory_request;
using hw::trace_format;
using test::generator;

namespace {

constexpr std::array all_formats{trace_format::dramsim3, trace_format::ramulator_load_store,
                                 trace_format::ramulator_read_write};

std::string written(hw::dram_parameters const& p, trace_format format,
                    std::vector<memory_request> const& requests) {
    std::ostringstream out;
    hw::memory_trace_writer write(out, format, p);
    for (auto const& r : requests) {
        write(r);
    }
    return out.str();
}

std::vector<memory_request> read_back(hw::dram_parameters const& p, trace_format format,
                                      std::string const& text) {
    std::istringstream in(text);
    hw::memory_trace_reader reader(in, format, p);
    std::vector<memory_request> requests;
    while (auto const r = reader.next()) {
        requests.push_back(*r);
    }
    return requests;
}

} // namespace

TEST_CASE("hw.memory_trace: lines as the two simulators read them") {
    hw::dram_parameters const p = hw::hbm2_16x64();
    std::vector<memory_request> const requests{
        {.address = 0x1040, .bytes = 100, .kind = memory_access::read, .arrival_cycle = 7},
        {.address = 0x2000, .bytes = 1, .kind = memory_access::write, .arrival_cycle = 12}};
    CHECK(written(p, trace_format::dramsim3, requests) ==
          "0x1040 READ 7\n0x1080 READ 7\n0x2000 WRITE 12\n");
    CHECK(written(p, trace_format::ramulator_load_store, requests) ==
          "LD 0x1040\nLD 0x1080\nST 0x2000\n");
    // 64-byte bursts go round 16 pseudo-channels, then along the row.
    CHECK(written(p, trace_format::ramulator_read_write, requests) ==
          "R 0,1,0,0,0,4\nR 1,0,0,0,0,4\nW 0,0,0,0,0,8\n");
    // The rank stands where the pseudo-channel would.
    hw::dram_parameters const ddr4 = hw::ddr4_2133();
    std::uint64_t const there = hw::dram_mapping(ddr4).address_of(
        {.rank = 1, .group = 1, .bank = 2, .row = 3, .column = 4});
    CHECK(written(ddr4, trace_format::ramulator_read_write, {{.address = there, .bytes = 64}}) ==
          "R 0,1,1,2,3,4\n");
}

TEST_CASE("hw.memory_trace: what is written is read back, burst by burst") {
    SOFATTN_GENERATOR(random);
    for (std::string_view const name : hw::dram_preset_names) {
        for (trace_format const format : all_formats) {
            hw::dram_parameters const p = hw::dram_preset(name);
            bool const timed = format == trace_format::dramsim3;
            std::vector<memory_request> requests;
            std::vector<memory_request> bursts;
            std::uint64_t cycle = 0;
            for (int n = 0; n < 300; ++n) {
                cycle += random.integer<std::uint64_t>(0, 1000);
                memory_request const r{.address = random.next() % (p.capacity_bytes() - 1000),
                                       .bytes = random.integer<std::uint64_t>(0, 400),
                                       .kind = random.chance(0.5) ? memory_access::write
                                                                  : memory_access::read,
                                       .arrival_cycle = cycle};
                requests.push_back(r);
                for (std::uint64_t b = 0; b < p.capacity_bytes() && r.bytes > 0; ++b) {
                    std::uint64_t const first = (r.address / 64 + b) * 64;
                    if (first >= r.address + r.bytes) {
                        break;
                    }
                    bursts.push_back({first, 64, r.kind, timed ? cycle : 0});
                }
            }
            CHECK(read_back(p, format, written(p, format, requests)) == bursts);
            CHECK(read_back(p, format, "").empty());
        }
    }
}

TEST_CASE("hw.memory_trace: a bad line is named, and no text does harm") {
    SOFATTN_GENERATOR(random);
    hw::dram_parameters const p = hw::hbm2_16x64();
    CHECK_THROWS_WITH_AS((void)read_back(p, trace_format::dramsim3, "0x40 READ 1\n0x40 LOAD 2\n"),
                         "memory trace: line 2 is \"0x40 LOAD 2\", must be \"0xADDRESS READ|WRITE "
                         "CYCLE\"",
                         error);
    CHECK_THROWS_AS((void)read_back(p, trace_format::ramulator_load_store, "LD 64\n"), error);
    CHECK_THROWS_AS((void)read_back(p, trace_format::ramulator_read_write, "R 0,0,0,0,0\n"), error);
    CHECK_THROWS_AS((void)read_back(p, trace_format::ramulator_read_write, "R 0,2,0,0,0,0\n"),
                    error);
    for (int n = 0; n < 3000; ++n) { // true lines, spoiled
        trace_format const format = all_formats[random.next() % 3];
        std::string text = written(p, format, {{.address = random.next() % 10000, .bytes = 200}});
        for (int k = random.integer(1, 3); k > 0; --k) {
            auto const at = random.integer<std::size_t>(0, text.size() - 1);
            text[at] = static_cast<char>(random.integer(0, 255));
        }
        try {
            for (auto const& r : read_back(p, format, text)) {
                CHECK(r.bytes == 64);
            }
        } catch (error const& e) {
            CHECK(e.subject().starts_with("memory trace: line "));
        }
    }
    hw::dram_parameters both = p;
    both.ranks = 2;
    CHECK_THROWS_WITH_AS((void)written(both, trace_format::ramulator_read_write, {}),
                         "memory trace: ranks of a device with pseudo-channels is 2, must be 1 in "
                         "Ramulator's address vectors",
                         error);
    CHECK_NOTHROW((void)written(both, trace_format::dramsim3, {}));
}
