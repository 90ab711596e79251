// SPDX-License-Identifier: MIT
// What the tool writes into files: pages with the numbers of its JSON, traces with its cycles.
#include "hw/page.hpp"

#include "hw/figures.hpp"
#include "io/markup.hpp"
#include "support/generators.hpp"
#include "support/temporary_folder.hpp"
#include "support/tool.hpp"
#include <sofattn/hw/benchmarks.hpp>
#include <sofattn/hw/config.hpp>
#include <sofattn/hw/run.hpp>

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <regex>
#include <set>
#include <string>
#include <vector>

using namespace sofattn;
using test::element;
using test::holds;
using test::json;
using test::operator+;
using test::outcome;
using test::read_bytes;
using test::refused;
using test::run_tool;
using test::temporary_folder;
using test::words;

namespace {

/// Elements of the page that these arguments make; it is one page and fetches nothing.
std::vector<element> page_of(temporary_folder const& folder, words const& arguments) {
    auto const file = folder / "page.html";
    outcome const run = run_tool(arguments + words{"--html", file.string()});
    CAPTURE(run.err);
    REQUIRE(run.code == 0);
    CHECK(run.err.empty());
    // What is printed does not depend on it.
    CHECK(run.out == run_tool(arguments).out);
    std::string const text = read_bytes(file);
    for (std::string const bad : {"src=", "href=", "url(", "@import", "<script"}) {
        CAPTURE(bad);
        CHECK(!holds(text, bad));
    }
    CHECK(!std::regex_search(text, std::regex("\\b(nan|inf)\\b")));
    return test::elements_of(text);
}

/// The number at the beginning of the cell beside this name: <dt>name</dt><dd>12.3 ms</dd>.
double headline(std::vector<element> const& page, std::string const& name) {
    for (std::size_t e = 0; e + 1 < page.size(); ++e) {
        if (page[e].name == "dt" && page[e].text == name) {
            return std::strtod(page[e + 1].text.c_str(), nullptr);
        }
    }
    FAIL("no number " << name);
    return 0;
}

/// Cells of every table row by the row's name; of equal names the last.
std::map<std::string, std::vector<std::string>> rows_of(std::vector<element> const& page) {
    std::map<std::string, std::vector<std::string>> rows;
    std::vector<std::string>* row = nullptr;
    for (element const& e : page) {
        if (e.name == "th" && e.attributes.contains("scope") && e.attributes.at("scope") == "row") {
            row = &rows[e.text];
            row->clear();
        } else if (e.name == "td" && row != nullptr) {
            row->push_back(e.text);
        }
    }
    return rows;
}

double sum_of(json const& object) {
    double sum = 0;
    for (auto const& entry : object.items()) {
        sum += entry.value().get<double>();
    }
    return sum;
}

/// The tip of a rectangle or a point that begins so.
std::size_t tips(std::vector<element> const& page, std::string const& beginning) {
    return static_cast<std::size_t>(std::ranges::count_if(page, [&](element const& e) {
        return e.name == "title" && e.text.starts_with(beginning);
    }));
}

bool has_text(std::vector<element> const& page, std::string const& text) {
    return std::ranges::any_of(page, [&](element const& e) { return holds(e.text, text); });
}

} // namespace

TEST_CASE("sofattn-hw run --html: the page has the numbers of the JSON") {
    temporary_folder const folder;
    for (words const& arguments :
         {words{"run"}, words{"run", "--workload", "llama_7b_decode", "--machine", "sofa_hbm2"},
          words{"run", "--workload", "gpt2_wikitext2_loss1", "--machine", "sofa_ddr4", "--set",
                "process.energy_table_name=public_28nm", "--set", "process.supply_volts=0.9"},
          words{"run", "--q", SOFATTN_SOURCE_DIR "/examples/data/gtesmall_L05_q.npy", "--k",
                SOFATTN_SOURCE_DIR "/examples/data/gtesmall_L05_k.npy", "--v",
                SOFATTN_SOURCE_DIR "/examples/data/gtesmall_L05_v.npy", "--bidirectional"}}) {
        CAPTURE(arguments.back());
        json const all = json::parse(run_tool(arguments + words{"--format", "json"}).out);
        auto const page = page_of(folder, arguments);
        auto const near = [](double value) { return doctest::Approx(value).epsilon(0.01); };
        CHECK(headline(page, "cycles") ==
              doctest::Approx(all["total_cycles"].get<double>() / 1e6).epsilon(0.001 + 1e-9));
        CHECK(headline(page, "throughput") == near(all["effective_gops"].get<double>()));
        CHECK(headline(page, "paper's accounting") ==
              near(all["paper_accounting_gops"].get<double>()));
        CHECK(headline(page, "area of the core") ==
              near(sum_of(all["area_square_micrometres"]) / 1e6));
        CHECK(headline(page, "kept") == near(100 * all["kept_share"].get<double>()));
        double const joules =
            (sum_of(all["dynamic_picojoules"]) + sum_of(all["static_picojoules"])) / 1e12;
        CHECK(headline(page, "mean power") == near(joules / all["time_seconds"].get<double>()));

        auto const rows = rows_of(page);
        for (auto const& entry : all["stages"].items()) {
            CAPTURE(entry.key());
            REQUIRE(rows.contains(entry.key()));
        }
        for (auto const& entry : all["prices"]["activities"].items()) {
            CAPTURE(entry.key());
            REQUIRE(rows.contains(entry.key()));
            auto const& cells = rows.at(entry.key()); // block, pJ, events, uJ, source
            REQUIRE(cells.size() == 5);
            CHECK(std::strtod(cells[1].c_str(), nullptr) ==
                  doctest::Approx(entry.value()["picojoules"].get<double>()).epsilon(0.001));
            CHECK(!cells.back().empty());
        }
        for (char const* field : {"attention.exp_units_count", "keys_count", "kept_share"}) {
            CHECK(rows.contains(field));
        }
        // Figures: cycles, roofline, first tiles, two of energy, area, throughput, two of memory.
        CHECK(std::ranges::count(page, "svg", &element::name) == 9);
        CHECK(tips(page, "dynamic, ") >= 4);
        CHECK(has_text(page, "not in the paper"));
    }
}

TEST_CASE("sofattn-hw run --html: memory and energy by block are those of the JSON") {
    temporary_folder const folder;
    words const arguments{"run", "--workload", "llama_7b_attention"};
    json const all = json::parse(run_tool(arguments + words{"--format", "json"}).out);
    auto const rows = rows_of(page_of(folder, arguments));
    for (char const* block : {"prediction", "selection", "interface", "dram"}) {
        CAPTURE(block); // dynamic uJ, static uJ, %, mW, mm2; stages have such rows before
        auto const& cells = rows.at(block);
        REQUIRE(cells.size() == 5);
        CHECK(std::strtod(cells[0].c_str(), nullptr) ==
              doctest::Approx(all["dynamic_picojoules"][block].get<double>() / 1e6).epsilon(1e-4));
        CHECK(std::strtod(cells[1].c_str(), nullptr) ==
              doctest::Approx(all["static_picojoules"][block].get<double>() / 1e6).epsilon(1e-4));
    }
    CHECK(std::strtod(rows.at("query").front().c_str(), nullptr) ==
          doctest::Approx(all["dram_traffic"]["query_bytes"].get<double>() / 1e6).epsilon(1e-4));
    CHECK(std::strtod(rows.at("read and written").front().c_str(), nullptr) ==
          doctest::Approx(sum_of(all["dram_traffic"]) / 1e6).epsilon(1e-4));
}

TEST_CASE("sofattn-hw: points of a roofline lie under its roofs") {
    SOFATTN_GENERATOR(random);
    for (int n = 0; n < 300; ++n) {
        hw::machine m = hw::find_machine(
            std::vector<std::string>{"sofa_28nm", "sofa_row_ready", "sofa_hbm2",
                                     "sofa_ddr4"}[random.integer<std::size_t>(0, 3)]);
        m.generation.array_rows_count = random.integer<index_t>(1, 64);
        m.process.clock_megahertz = random.uniform(100, 2000);
        hw::workload w;
        w.keys_count = random.integer<index_t>(1, 3000);
        w.queries_count = random.integer<index_t>(1, 300);
        w.kept_share = random.uniform(0.001, 1);
        w.has_kv_cache = random.chance(0.5);
        hw::run_report const r = hw::run(w, m);
        auto const at = hw::intensity_of(r);
        auto const counts = hw::part_counts(m);
        double const peak =
            2e6 * m.process.clock_megahertz *
            static_cast<double>(counts[static_cast<std::size_t>(hw::part::kv_mac)] +
                                counts[static_cast<std::size_t>(hw::part::attention_mac)]);
        hw::memory_model const memory(m);
        double const bandwidth =
            memory.is_flat() ? m.memory.peak_bytes_per_cycle * m.process.clock_megahertz * 1e6
                             : memory.dram().peak_gb_per_s() * 1e9;
        CHECK(at.operations_per_second > 0);
        CHECK(at.operations_per_second <= peak);
        CHECK(at.operations_per_second <= at.operations_per_byte * bandwidth * (1 + 1e-9));
        CHECK(test::elements_of(hw::to_page("w", {{{"n", r}, {}}})).size() > 100);
    }
}

TEST_CASE("sofattn-hw compare --html: machines side by side, whatever their files are called") {
    temporary_folder const folder;
    auto const odd = folder / "a<b>&\"c'.json";
    test::write_bytes(odd, R"({"attention": {"exp_units_count": 3}})");
    auto const page = page_of(folder, {"compare", "--machine", "sofa_28nm", "--machine",
                                       "sofa_ddr4", "--machine", odd.string()});
    CHECK(has_text(page, "a&lt;b&gt;&amp;&quot;c'.json"));
    CHECK(tips(page, "sofa_ddr4") >= 2);
    // A utilisation and a timeline each, and seven of all.
    CHECK(std::ranges::count(page, "svg", &element::name) == 3 * 2 + 7);
    auto const rows = rows_of(page);
    auto const table =
        run_tool({"compare", "--machine", "sofa_28nm", "--machine", "sofa_ddr4", "--format", "csv"})
            .out;
    auto const name_at = table.find("sofa_ddr4,");
    REQUIRE(name_at != std::string::npos);
    CHECK(has_text(page, table.substr(name_at + 10, table.find(',', name_at + 10) - name_at - 10)));
    bool differs = false; // "In what they differ" comes before the full lists
    std::vector<std::string> row;
    for (element const& e : page) {
        if (e.name == "td") {
            row.push_back(e.text);
        } else if (e.name == "tr") {
            differs = differs || row == std::vector<std::string>{"128", "128", "3"};
            row.clear();
        }
    }
    CHECK(differs);
}

TEST_CASE("sofattn-hw sweep --html: a point per run, the Pareto front's larger") {
    temporary_folder const folder;
    words const arguments{"sweep",
                          "--workload",
                          "llama_7b_attention",
                          "--vary",
                          "attention.exp_units_count=1,2,128",
                          "--vary",
                          "kept_share=0.05,0.2"};
    json const runs = json::parse(run_tool(arguments + words{"--format", "json"}).out);
    auto const best =
        std::ranges::count_if(runs, [](json const& r) { return r["is_pareto"].get<bool>(); });
    auto const page = page_of(folder, arguments);
    auto const circles = [&](char const* radius) {
        return std::ranges::count_if(page, [&](element const& e) {
            return e.name == "circle" && e.attributes.at("r") == radius;
        });
    };
    CHECK(circles("6") == 5 * best);
    CHECK(circles("3.2") == 5 * (6 - best));
    // Values that are no numbers, and a single one.
    auto const names = page_of(folder, {"sweep", "--vary", "memory.model_name=flat,ddr4_3200"});
    CHECK(tips(names, "ddr4_3200") == 4);
    CHECK(!page_of(folder, {"sweep", "--vary", "kept_share=0.1"}).empty());
}

TEST_CASE("sofattn-hw run --timeline: the cycles of the JSON, stage by stage") {
    temporary_folder const folder;
    auto const file = folder / "trace.json";
    words const small{"run", "--format", "json", "--workload", "bert_base_squad_loss1"};
    json const all = json::parse(run_tool(small).out);
    auto const tiles = all["tiles_count"].get<std::uint64_t>();
    REQUIRE(tiles < 2000);
    auto const trace_of = [&](std::string const& most) {
        outcome const run =
            run_tool(small + words{"--timeline", file.string(), "--timeline-tiles", most});
        CHECK(run.code == 0);
        CHECK(json::parse(run.out) == all);
        return json::parse(read_bytes(file))["traceEvents"];
    };
    std::map<int, std::string> stage_of;
    std::map<std::string, std::uint64_t> busy;
    std::map<std::string, std::uint64_t> stalled;
    for (json const& e : trace_of("2000")) {
        if (e["name"] == "thread_name") {
            stage_of[e["tid"].get<int>()] = e["args"]["name"].get<std::string>();
        } else if (e["ph"] == "X") {
            auto& of = e["cat"] == "busy" ? busy : stalled;
            of[stage_of.at(e["tid"].get<int>())] += e["args"]["cycles"].get<std::uint64_t>();
        }
    }
    for (auto const& entry : all["stages"].items()) {
        std::string const& name = entry.key();
        json const& stage = entry.value();
        CAPTURE(name);
        std::uint64_t lost = 0;
        for (json const& s : stage["stalls"]) {
            lost += s["stalled_cycles"].get<std::uint64_t>();
        }
        CHECK(busy[name] == stage["busy_cycles"].get<std::uint64_t>());
        CHECK(stalled[name] == lost);
    }
    std::set<std::uint64_t> seen;
    for (json const& e : trace_of("5")) {
        if (e["ph"] == "X") {
            seen.insert(e["args"]["item"].get<std::uint64_t>());
        }
    }
    CHECK(seen == std::set<std::uint64_t>{0, 1, 2, 3, 4});
}

TEST_CASE("sofattn-hw: a page or trace that fails leaves nothing, and the old one as it was") {
    temporary_folder const folder;
    auto const page = folder / "page.html";
    auto const trace = folder / "trace.json";
    test::write_bytes(page, "old");
    words const both{"--html", page.string(), "--timeline", trace.string()};
    refused(folder, words{"run", "--set", "kept_share=2"} + both, {"kept_share is 2"});
    refused(folder, words{"run", "--set", "pipeline.buffered_tiles_count=0"} + both,
            {"buffered_tiles_count is 0"});
    refused(folder, {"run", "--html", page.string(), "--timeline", (folder / "no" / "x").string()},
            {"not writable"});
    refused(folder, {"run", "--html", folder.path().string()}, {"a folder"});
    refused(folder, {"run", "--html", "/dev/full"}, {"a special file"});
    refused(folder, {"run", "--html", page.string(), "--timeline", page.string()},
            {"--timeline is", "another file than --html"});
    refused(folder, words{"run", "--timeline-tiles", "0"} + both, {"0"});
    refused(folder, {"run", "--timeline-tiles", "10"}, {"--timeline"});
    refused(folder, {"compare", "--machine", "nope", "--html", page.string()}, {"nope"});
    refused(folder, {"sweep", "--vary", "kept_share=0.1,7", "--html", page.string()},
            {"kept_share is 7"});
    refused(folder, {"tables", "--html", page.string()}, {"--html"});
    CHECK(read_bytes(page) == "old");
}
