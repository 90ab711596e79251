// SPDX-License-Identifier: MIT
#include <sofattn/hw/pipeline.hpp>
#include <sofattn/io/timeline.hpp>

#include <doctest/doctest.h>
#include <hw/pipeline_oracle.hpp>
#include <nlohmann/json.hpp>
#include <support/generators.hpp>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <map>
#include <sstream>
#include <string>
#include <vector>

using namespace sofattn;
using nlohmann::json;
using test::generator;

TEST_CASE("io.timeline: the text is JSON, and its intervals are the pipeline's cycles") {
    SOFATTN_GENERATOR(random);
    for (int n = 0; n < 60; ++n) {
        CAPTURE(n);
        auto const graph = test::random_graph(random, 4, false);
        auto const stream = test::random_stream(random, graph, 1, 5);
        double const clock_ns = n % 2 == 0 ? 1.0 : 0.937;
        std::ostringstream text;
        hw::pipeline_timing timing;
        {
            io::timeline_writer writer(text, graph, {.title = "run", .clock_ns = clock_ns});
            timing = hw::simulate(graph, stream, {.listener = &writer});
        }
        json const trace = json::parse(text.str());
        CHECK(trace["displayTimeUnit"] == "ns");
        std::map<std::size_t, std::string> tracks;
        std::map<std::size_t, std::uint64_t> busy, stalled; // by tid, cycles
        std::map<std::size_t, double> until;                // us
        std::map<std::string, hw::buffer_timing> peaks;
        for (json const& event : trace["traceEvents"]) {
            CHECK(event["pid"] == 1);
            std::string const phase = event["ph"];
            if (phase == "M" && event["name"] == "thread_name") {
                tracks[event["tid"]] = event["args"]["name"];
            } else if (phase == "X") {
                std::size_t const track = event["tid"];
                std::uint64_t const length = event["args"]["cycles"];
                (event["cat"] == "busy" ? busy : stalled)[track] += length;
                double const start = event["ts"];
                CHECK(start >= until[track] - 1e-9);
                until[track] = start + event["dur"].get<double>();
                CHECK(event["dur"].get<double>() ==
                      doctest::Approx(static_cast<double>(length) * clock_ns * 1e-3));
            } else if (phase == "C") {
                auto& peak = peaks[event["name"]];
                peak.peak_items =
                    std::max(peak.peak_items, event["args"]["items"].get<std::uint64_t>());
                peak.peak = std::max(peak.peak, bytes(event["args"]["bytes"].get<std::uint64_t>()));
            }
        }
        CHECK(tracks.size() == graph.engines.size());
        for (std::size_t e = 0; e < graph.engines.size(); ++e) {
            CHECK(tracks[e + 1] == graph.engines[e].name);
            CHECK(busy[e + 1] == timing.engines[e].busy.count());
            CHECK(stalled[e + 1] == timing.engines[e].stalled().count());
            CHECK(until[e + 1] <=
                  static_cast<double>(timing.total.count()) * clock_ns * 1e-3 + 1e-9);
        }
        for (std::size_t b = 0; b < graph.buffers.size(); ++b) {
            CHECK(peaks[graph.name_of(b)] == timing.buffers[b]);
        }
    }
}

TEST_CASE("io.timeline: stalls say for what, bytes add up, names may hold anything") {
    hw::pipeline_graph graph{
        .engines = {{"fetch \"X\"\n", 0}, {"pr\\edict\t\x01", std::nullopt}, {"write", 0}},
        .buffers = {{.from = 0, .to = 1}, {.from = 1, .to = 2}},
        .resources = {"port"}};
    std::ostringstream text;
    io::timeline_writer writer(
        text, graph,
        {.title = "k\xc3\xa4se </script>", .dram_bytes = [](std::size_t e, std::uint64_t item) {
             return e == 0 ? 100 + item : std::uint64_t{0};
         }});
    (void)hw::simulate(graph,
                       hw::work::of({.busy_cycles = {5, 3, 4}, .resource_cycles = {7, 0, 4}}, 6),
                       {.listener = &writer});
    writer.counter("mine", 9, 42);
    writer.finish();
    writer.finish(); // once only
    json const trace = json::parse(text.str());
    std::map<std::string, int> names;
    std::uint64_t moved = 0;
    for (json const& event : trace["traceEvents"]) {
        ++names[event["name"]];
        if (event["name"] == "DRAM bytes") {
            moved = event["args"]["value"];
        }
        if (event["name"] == "process_name") {
            CHECK(event["args"]["name"] == "k\xc3\xa4se </script>");
        }
        if (event["name"] == "thread_name" && event["tid"] == 1) {
            CHECK(event["args"]["name"] == "fetch \"X\"\n");
        }
        if (event["name"] == "mine") {
            CHECK(event["ts"] == 0.009);
        }
    }
    CHECK(moved == 6 * 100 + 15);
    CHECK(names["waits for its own transfer over port"] == 6);
    CHECK(names["waits for fetch \"X\"\n"] > 0);
    CHECK(names["waits while fetch \"X\"\n has port"] > 0);
    CHECK(names["tile 0"] == 3);
    CHECK_THROWS_WITH_AS(io::timeline_writer(text, graph, {.clock_ns = 0.0}),
                         "timeline: clock_ns is 0.000000, must be in [0.001, 1e9]", error);
}
