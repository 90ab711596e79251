// SPDX-License-Identifier: MIT
#include "hw/dram_trace.hpp"

#include <sofattn/hw/dram.hpp>
#include <sofattn/hw/tile_order.hpp>

#include <array>
#include <cstddef>
#include <cstdio>
#include <sstream>

namespace sofattn::hw {

namespace {

/// Fails for what the format cannot say before a file is made.
dram_parameters describable(machine const& m, trace_format format) {
    validate(m);
    dram_parameters const device = device_of(m);
    memory_trace_writer::check(format, device);
    return device;
}

} // namespace

dram_trace::dram_trace(machine const& m, std::filesystem::path const& path, trace_format format,
                       std::uint64_t tiles)
    : on_(m), device_(describable(m, format)), format_(format), replay_(tiles), file_(path) {}

void dram_trace::add(tile_work const& tile) {
    if (tiles_.size() < replay_.tiles()) {
        tiles_.push_back(tile);
    }
}

std::string dram_trace::write(run_report const& of) {
    if (tiles_.empty()) {
        tiles_ = first_tiles(of.of, on_, static_cast<std::size_t>(replay_.tiles()));
    }
    auto const requests = replay_.requests(tiles_, of.of, on_, device_);
    std::ostringstream text;
    memory_trace_writer line(text, format_, device_);
    dram served(device_);
    dram at_once(device_); // with all requests there from the beginning
    std::uint64_t bursts = 0;
    for (memory_request const& r : requests) {
        line(r);
        served(r);
        memory_request waiting = r;
        waiting.arrival_cycle = 0;
        at_once(waiting);
        for_each_burst(r, device_.burst_bytes, [&](std::uint64_t) { ++bursts; });
        if (text.tellp() > std::streamoff{1} << 20) {
            file_.write(text.str());
            text.str({});
        }
    }
    file_.write(text.str());
    auto const microseconds = [&](dram const& served_by) {
        return static_cast<double>(served_by.last_complete()) * device_.clock_ns / 1e3;
    };
    double const given = static_cast<double>(replay_.end_cycle()) / on_.process.clock_megahertz;
    std::array<char, 240> words{};
    std::snprintf(
        words.data(), words.size(),
        "DRAM trace: %zu tiles, %zu requests, %llu bursts of %llu bytes. The pipeline ends "
        "them\nafter %.1f us, hw/dram after %.1f us; all at once would take it %.1f us\n",
        tiles_.size(), requests.size(), static_cast<unsigned long long>(bursts),
        static_cast<unsigned long long>(device_.burst_bytes), given, microseconds(served),
        microseconds(at_once));
    return words.data();
}

} // namespace sofattn::hw
