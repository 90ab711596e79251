// SPDX-License-Identifier: MIT
#include "hw/page.hpp"

#include "hw/figures.hpp"
#include "hw/sweep.hpp"
#include <sofattn/hw/energy_table.hpp>
#include <sofattn/hw/field.hpp>
#include <sofattn/io/html_report.hpp>
#include <sofattn/io/pipeline_figures.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <utility>

namespace sofattn::hw {

namespace {

using names_and_values = std::vector<std::pair<std::string, std::string>>;
using text_rows = std::vector<std::vector<std::string>>;

std::vector<named_run> without_pictures(std::vector<pictured_run> const& runs) {
    std::vector<named_run> plain;
    plain.reserve(runs.size());
    for (pictured_run const& one : runs) {
        plain.push_back(one.of);
    }
    return plain;
}

std::string energy_text(double picojoules) {
    scaled_unit const unit = energy_unit(picojoules);
    return number("%.4g ", picojoules / unit.size) + unit.name;
}
std::string time_text(double seconds) {
    return seconds >= 1      ? number("%.4g s", seconds)
           : seconds >= 1e-3 ? number("%.4g ms", 1e3 * seconds)
                             : number("%.4g us", 1e6 * seconds);
}

std::string rate_text(double gops) { return number(gops < 1e3 ? "%.4g GOPS" : "%.0f GOPS", gops); }

names_and_values headline(run_report const& r) {
    return {{"time", time_text(r.seconds())},
            {"cycles", number("%.3f M", static_cast<double>(r.timing.total.count()) / 1e6)},
            {"throughput", rate_text(r.effective_gops())},
            {"paper's accounting", rate_text(r.paper_gops())},
            {"energy", energy_text(r.picojoules())},
            {"energy of the core", energy_text(r.core_picojoules())},
            {"mean power", number("%.3f W", r.picojoules() / 1e12 / r.seconds())},
            {"area of the core", number("%.3f mm2", sum(r.square_micrometres) / 1e6)},
            {"DRAM traffic", number("%.2f MB", static_cast<double>(r.traffic.total()) / 1e6)},
            {"kept", number("%.2f %%", 100 * r.kept_share())},
            {"multiply-adds used", number("%.1f %%", 100 * r.mac_utilisation())}};
}

/// Every stall that cost something, the costliest first.
io::table stall_table(pipeline_timing const& t) {
    std::vector<std::pair<stall, std::string>> all;
    for (engine_timing const& e : t.engines) {
        for (stall const& s : e.stalls) {
            if (s.lost.count() > 0) {
                all.emplace_back(s, e.name);
            }
        }
    }
    std::ranges::stable_sort(all, [](auto const& a, auto const& b) {
        return a.first.lost.count() > b.first.lost.count();
    });
    io::table table({"stage", "waits for", "of", "Mcycles", "%"});
    for (auto const& [s, name] : all) {
        auto const lost = static_cast<double>(s.lost.count());
        table.add({name, std::string(io::cycle_kinds[io::cycle_kind(s.cause)]),
                   t.engines[s.other].name, number("%.3f", lost / 1e6),
                   number("%.1f", 100 * lost / static_cast<double>(t.total.count()))});
    }
    return table;
}

void add_prices(io::html_report& page, energy_table const& prices, activity_counts const* done) {
    text_rows events;
    for (std::size_t a = 0; a < activity_count; ++a) {
        auto const which = static_cast<activity>(a);
        std::vector<std::string> row{std::string(name(which)), std::string(name(block_of(which))),
                                     number("%.4g", prices.of(which).picojoules)};
        if (done != nullptr) {
            auto const times = static_cast<double>((*done)[which]);
            row.push_back(number("%.4g", times));
            row.push_back(number("%.4g", times * prices.of(which).picojoules / 1e6));
        }
        row.emplace_back(prices.of(which).source);
        events.push_back(std::move(row));
    }
    std::vector<std::string> header{"event", "block", "pJ"};
    if (done != nullptr) {
        header.insert(header.end(), {"events of this run", "uJ"});
    }
    header.emplace_back("source");
    page.table("Energy of an event", header, events, 1);
    text_rows units;
    for (std::size_t p = 0; p < part_count; ++p) {
        auto const which = static_cast<part>(p);
        units.push_back({std::string(name(which)), std::string(name(block_of(which))),
                         number("%.4g", prices.of(which).square_micrometres),
                         number("%.4g", prices.of(which).static_microwatts),
                         std::string(prices.of(which).source)});
    }
    page.table("Area and static power of a unit", {"unit", "block", "um2", "uW", "source"}, units,
               1);
}

/// Each table once, with its name and operating point, folded.
void add_price_tables(io::html_report& page, std::vector<named_run> const& runs) {
    page.heading("Prices used");
    page.paragraph("Results hold beside the table they were computed with; every entry names its "
                   "source.");
    std::vector<energy_table> shown;
    for (named_run const& one : runs) {
        energy_table const& prices = one.report.prices;
        if (std::ranges::find(shown, prices) != shown.end()) {
            continue;
        }
        shown.push_back(prices);
        page.begin_fold(std::string(prices.name) + number(", %g nm", prices.node_nanometres) +
                        number(", %g V", prices.supply_volts) +
                        (runs.size() > 1 ? ": " + one.name : ""));
        page.paragraph(std::string(prices.doc) + ".");
        add_prices(page, prices, runs.size() == 1 ? &one.report.done : nullptr);
        page.end_fold();
    }
}

std::string value_text(explained_field const& f) {
    bool const has_unit = f.unit != "name" && !f.unit.empty() && f.unit != "count";
    return f.value + (has_unit ? " " + f.unit : "");
}

void add_fields(io::html_report& page, std::string const& caption,
                std::vector<explained_field> const& fields) {
    text_rows rows;
    for (explained_field const& f : fields) {
        if (!f.value.empty()) {
            rows.push_back({f.name, value_text(f), f.doc, f.source});
        }
    }
    page.table(caption, {"field", "value", "meaning", "source of the preset"}, rows, 2);
}

/// Fields in which the runs' machines and workloads are not all alike: a column each.
void add_differences(io::html_report& page, std::vector<named_run> const& runs) {
    std::vector<std::vector<explained_field>> all;
    std::vector<std::string> header{"field"};
    for (named_run const& one : runs) {
        auto fields = explain(one.report.on);
        auto const more = explain(one.report.of);
        fields.insert(fields.end(), more.begin(), more.end());
        all.push_back(std::move(fields));
        header.push_back(shortened(one.name, 32));
    }
    text_rows rows;
    for (std::size_t f = 0; f < all.front().size(); ++f) {
        bool const differs = std::ranges::any_of(
            all, [&](auto const& fields) { return fields[f].value != all.front()[f].value; });
        if (differs && all.front()[f].name != "base_name") {
            std::vector<std::string> row{all.front()[f].name};
            for (auto const& fields : all) {
                row.push_back(value_text(fields[f]));
            }
            rows.push_back(std::move(row));
        }
    }
    if (!rows.empty()) {
        page.table("In what they differ", header, rows);
    }
}

/// How a machine departs from the named one it is based on.
void add_departures(io::html_report& page, machine const& m) {
    auto const base = explain(find_machine(m.base_name));
    auto const own = explain(m);
    text_rows rows;
    for (std::size_t f = 0; f < own.size(); ++f) {
        if (own[f].value != base[f].value) {
            rows.push_back({own[f].name, value_text(base[f]), value_text(own[f])});
        }
    }
    if (rows.empty()) {
        page.paragraph("The machine is " + m.base_name + ", unchanged.");
    } else {
        page.table("Departures from " + m.base_name, {"field", m.base_name, "here"}, rows);
    }
}

void add_configuration(io::html_report& page, std::vector<named_run> const& runs,
                       std::string const& heading = "Configuration") {
    page.heading(heading);
    if (runs.size() == 1) {
        add_departures(page, runs.front().report.on);
    } else {
        add_differences(page, runs);
    }
    for (named_run const& one : runs) {
        page.begin_fold("Machine " + (runs.size() == 1 ? one.report.on.base_name : one.name) +
                        ", every field");
        add_fields(page, "Machine", explain(one.report.on));
        page.end_fold();
    }
    page.begin_fold("Workload, every field");
    add_fields(page, "Workload", explain(runs.front().report.of));
    page.end_fold();
}

/// Once each; what does not hold for all runs says for which.
void add_assumptions(io::html_report& page, std::vector<named_run> const& runs) {
    std::vector<std::pair<std::string, std::vector<std::string>>> found;
    for (named_run const& one : runs) {
        for (std::string const& text : assumptions(one.report)) {
            auto at = std::ranges::find(found, text, [](auto const& f) { return f.first; });
            if (at == found.end()) {
                at = found.insert(at, {text, {}});
            }
            at->second.push_back(one.name);
        }
    }
    std::vector<std::string> items;
    for (auto const& [text, names] : found) {
        std::string item;
        for (std::string const& name : names) {
            item.append(item.empty() ? "" : ", ").append(name);
        }
        item.append(": ").append(text);
        items.push_back(names.size() == runs.size() ? text : item);
    }
    page.heading("What is assumed");
    page.list(items);
}

} // namespace

std::vector<std::string> assumptions(run_report const& r) {
    std::vector<std::string> all{
        "What later blocks of queries need again stays on chip if a head's fit, else it goes "
        "through the DRAM. Here keys and values " +
            std::string(r.placed.keys_stay ? "stay" : "do not stay") + ", weights " +
            (r.of.has_kv_cache       ? "are not needed"
             : r.placed.weights_stay ? "stay"
                                     : "do not stay") +
            ", and predicted scores of a row block " +
            (r.placed.scores_stay ? "stay." : "are spilled."),
        "Zeros save switching, not cycles.",
        "RASS issues a tile's keys in as many phases as its fullest row needs.",
        "Ports of the on-chip memories carry"};
    for (std::size_t n = 0; n < chip_memory_count; ++n) {
        auto const which = static_cast<chip_memory>(n);
        all.back() +=
            (n == 0 ? " " : ", ") + std::to_string(buffer_of(r.on, which).bytes_per_cycle()) +
            " (" + std::string(name(which)) + number(", %.0f %% used)", 100 * r.port_shares()[n]);
    }
    all.back() += " bytes per cycle; the paper gives capacities only. Its peak rates need several "
                  "words per cycle, its SRAM power is that of one per memory (sofa_one_port).";
    if (r.on.process.energy_table_name == "sofa_table3") {
        all.emplace_back("Table III's powers hold at full activity, and a tenth of logic power "
                         "leaks.");
    }
    if (r.on.memory.model_name == "flat") {
        all.emplace_back(
            "The memory is flat: bandwidth, latency and energy per bit, without banks, "
            "rows and refresh.");
    }
    auto fields = explain(r.on);
    auto const more = explain(r.of);
    fields.insert(fields.end(), more.begin(), more.end());
    for (explained_field const& f : fields) {
        if (f.source.find("not in the paper") != std::string::npos) {
            all.push_back(f.name + " = " + value_text(f) + ": " + f.doc + " (" + f.source + ").");
        }
    }
    return all;
}

std::string to_page(std::string const& workload_name, std::vector<pictured_run> const& runs) {
    std::vector<named_run> const plain = without_pictures(runs);
    bool const is_one = plain.size() == 1;
    run_report const& first = plain.front().report;
    std::string const roofs = "Only operations of the KV and SU-FA arrays count, as they were "
                              "done; pairs that were not kept do not.";
    std::string const accountings =
        "Dense: what dense attention would have computed, over the time of everything that was "
        "done. The paper's: both arrays at their utilisation, divided by the kept share, as if "
        "all that they did were attention.";
    auto const of = [&](named_run const& one) { return is_one ? "" : one.name + ": "; };
    io::html_report page(workload_name +
                             (is_one ? " on " + first.on.base_name : " on several machines"),
                         shape_text(first));
    if (is_one) {
        page.numbers(headline(first));
    } else {
        page.paragraph("A multiply-add is two operations; mJ includes the DRAM, core mJ does not.");
        page.table("Machines", to_table(plain, "machine"));
        page.add(throughput_figure(plain), accountings);
        page.add(roofline_figure(plain), roofs);
    }
    page.heading("Time");
    for (pictured_run const& one : runs) {
        page.add(io::utilisation_figure(one.of.report.timing, is_one ? "Where the cycles went"
                                                                     : shortened(one.of.name, 28)),
                 is_one ? "Of every stage, in the order that tiles pass them." : "");
    }
    if (is_one) {
        page.add(roofline_figure(plain), roofs);
    }
    for (pictured_run const& one : runs) {
        page.add(one.first_tiles, "Work and stalls of every stage; numbers are tiles.");
    }
    for (named_run const& one : plain) {
        page.table(of(one) + "cycles by stage", stage_table(one.report.timing));
        page.begin_fold(of(one) + "every stall and its cause");
        page.table("Of the total", stall_table(one.report.timing));
        page.end_fold();
    }
    page.heading("Energy and area");
    page.add(energy_figure(plain, false));
    page.add(energy_figure(plain, true));
    page.add(area_figure(plain));
    if (is_one) {
        page.add(throughput_figure(plain), accountings);
    }
    for (named_run const& one : plain) {
        page.table(of(one) + "by block", block_table(one.report));
        page.table(of(one) + "throughput and efficiency", throughput_table(one.report));
    }
    page.heading("Memory");
    page.add(traffic_figure(plain));
    page.add(dram_energy_figure(plain));
    for (named_run const& one : plain) {
        page.table(of(one) + "bytes that are moved", traffic_table(one.report));
    }
    add_price_tables(page, plain);
    add_configuration(page, plain);
    add_assumptions(page, plain);
    return page.text();
}

std::string to_page(std::string const& workload_name, std::vector<named_run> const& runs,
                    std::vector<variation> const& varied, std::vector<bool> const& pareto) {
    run_report const& first = runs.front().report;
    io::html_report page(workload_name + " on " + first.on.base_name + ": " + names_of(varied),
                         "First run: " + shape_text(first));
    page.paragraph("Large points: no other run is at least as good in time, energy and area, and "
                   "better in one.");
    constexpr std::array<std::pair<char const*, char const*>, 4> titles{
        {{"Time", "ms"},
         {"Energy, DRAM included", "mJ"},
         {"Area of the core", "mm2"},
         {"Throughput, dense work over all time", "GOPS"}}};
    std::array<double (*)(run_report const&), 4> const values{
        [](run_report const& r) { return 1e3 * r.seconds(); },
        [](run_report const& r) { return r.picojoules() / 1e9; },
        [](run_report const& r) { return sum(r.square_micrometres) / 1e6; },
        [](run_report const& r) { return r.effective_gops(); }};
    std::string const lines =
        varied.size() == 2 ? "A line per value of " + varied.front().path + "." : "";
    for (std::size_t i = 0; i < titles.size(); ++i) {
        page.add(sweep_figure(runs, varied, pareto, {titles[i].first, titles[i].second, values[i]}),
                 lines);
    }
    page.add(pareto_figure(runs, pareto));
    page.table("Every run", to_table(runs, names_of(varied), pareto));
    add_price_tables(page, runs);
    add_configuration(page, {runs.front()}, "Configuration of the first run");
    add_assumptions(page, {runs.front()});
    return page.text();
}

} // namespace sofattn::hw
