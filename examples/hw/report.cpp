// SPDX-License-Identifier: MIT
#include "hw/report.hpp"

#include <sofattn/core/units.hpp>
#include <sofattn/hw/activity.hpp>
#include <sofattn/hw/dram_energy.hpp>
#include <sofattn/hw/energy_table.hpp>
#include <sofattn/hw/tile_work.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <utility>

namespace sofattn::hw {

namespace {

constexpr std::size_t columns = 100;

double share(cycles part, cycles of) {
    return of.count() == 0
               ? 0
               : 100 * static_cast<double>(part.count()) / static_cast<double>(of.count());
}

/// Where an engine waited longest: "input from fetch 12.3 %".
std::string worst_stall(engine_timing const& e, pipeline_timing const& t) {
    stall const* worst = nullptr;
    for (stall const& s : e.stalls) {
        if (worst == nullptr || s.lost.count() > worst->lost.count()) {
            worst = &s;
        }
    }
    if (worst == nullptr || worst->lost.count() == 0) {
        return "-";
    }
    std::string const cause =
        worst->cause == stall_cause::memory_port ? "" : std::string(name(worst->cause)) + " ";
    return cause + t.engines[worst->other].name + " " +
           number("%.1f %%", share(worst->lost, t.total));
}

json per_block_json(per_block const& of) {
    json object = json::object();
    for (std::size_t b = 0; b < block_count; ++b) {
        object[std::string(name(static_cast<block>(b)))] = of[b];
    }
    return object;
}

/// Text wrapped at words into lines of `width`, all but the first indented.
std::string wrapped(std::string const& text, std::size_t width, std::size_t indent) {
    std::string out;
    std::size_t line = 0;
    for (std::size_t at = 0; at < text.size();) {
        std::size_t const end = std::min(text.find(' ', at), text.size());
        if (line > 0 && line + 1 + (end - at) > width) {
            out += '\n';
            out.append(indent, ' ');
            line = 0;
        } else if (line > 0) {
            out += ' ';
            ++line;
        }
        out.append(text, at, end - at);
        line += end - at;
        at = end + 1;
    }
    return out;
}

} // namespace

std::string number(char const* format, double value) {
    std::array<char, 64> text{};
    std::snprintf(text.data(), text.size(), format, value);
    return text.data();
}

std::string shape_text(run_report const& r) {
    workload const& w = r.of;
    return "S " + std::to_string(w.keys_count) + ", T " + std::to_string(w.queries_count) + ", " +
           std::to_string(w.heads_count) + "/" + std::to_string(w.kv_heads_count) + " heads of " +
           std::to_string(w.head_dim_count) + (w.is_causal ? ", causal" : "") +
           (w.has_kv_cache ? ", K and V cached" : ", K and V on demand") + ", kept " +
           number("%.2f %%", 100 * r.kept_share());
}

io::table stage_table(pipeline_timing const& t) {
    io::table table({"stage", "busy Mcycles", "busy %", "stalled %", "idle %", "longest stall"});
    for (engine_timing const& e : t.engines) {
        table.add(
            {e.name, number("%.3f", static_cast<double>(e.busy.count()) / 1e6),
             number("%.1f", share(e.busy, t.total)), number("%.1f", share(e.stalled(), t.total)),
             number("%.1f", share(e.idle_before + e.idle_after, t.total)), worst_stall(e, t)});
    }
    return table;
}

io::table block_table(run_report const& r) {
    io::table table({"block", "dynamic uJ", "static uJ", "%", "mW", "mm2"});
    double const all = r.picojoules();
    for (std::size_t b = 0; b < block_count; ++b) {
        double const energy = r.dynamic_picojoules[b] + r.static_picojoules[b];
        double const area = r.square_micrometres[b] / 1e6;
        table.add({std::string(name(static_cast<block>(b))),
                   number("%.3f", r.dynamic_picojoules[b] / 1e6),
                   number("%.3f", r.static_picojoules[b] / 1e6), number("%.1f", 100 * energy / all),
                   number("%.2f", energy / r.seconds() / 1e9),
                   area > 0 ? number("%.3f", area) : "-"});
    }
    table.add({"total", number("%.3f", sum(r.dynamic_picojoules) / 1e6),
               number("%.3f", sum(r.static_picojoules) / 1e6), "100.0",
               number("%.2f", all / r.seconds() / 1e9),
               number("%.3f", sum(r.square_micrometres) / 1e6)});
    return table;
}

io::table traffic_table(run_report const& r) {
    io::table traffic({"DRAM traffic", "MB"});
    for (auto const& [what, member] : traffic_fields) {
        if (r.traffic.*member > 0) {
            traffic.add({std::string(what.substr(0, what.size() - 6)),
                         number("%.3f", static_cast<double>(r.traffic.*member) / 1e6)});
        }
    }
    traffic.add({"read and written", number("%.3f", static_cast<double>(r.traffic.total()) / 1e6)});
    return traffic;
}

io::table throughput_table(run_report const& r) {
    io::table rates({"throughput, two accountings", "GOPS", "GOPS/W core", "GOPS/W with DRAM"});
    double const core_watts = r.core_picojoules() / 1e12 / r.seconds();
    double const watts = r.picojoules() / 1e12 / r.seconds();
    for (auto const& [what, gops] :
         {std::pair{"dense work over the time of everything", r.effective_gops()},
          {"the paper's: both arrays, over kept share", r.paper_gops()}}) {
        rates.add({what, number("%.0f", gops), number("%.0f", gops / core_watts),
                   number("%.0f", gops / watts)});
    }
    return rates;
}

std::string to_text(named_run const& run) {
    run_report const& r = run.report;
    std::string out = run.name + " on " + r.on.base_name + ": " + shape_text(r) + "\n\n";
    out += number("%.3f Mcycles", static_cast<double>(r.timing.total.count()) / 1e6) +
           number(" = %.3f ms", 1e3 * r.seconds()) +
           number(" at %.0f MHz", r.on.process.clock_megahertz) + ", " +
           std::to_string(r.timing.items) + " tiles\n\n";
    out += stage_table(r.timing).text(2) + "\n";
    out += "energy and area by table " + std::string(r.prices.name) + " (" +
           number("%g nm", r.prices.node_nanometres) + number(", %g V", r.prices.supply_volts) +
           "; sofattn-hw explain --table prints it)\n\n";
    out += block_table(r).text(2) + "\n";
    if (r.on.memory.model_name != "flat") {
        out += "  ";
        out += r.on.memory.model_name + " in uJ:";
        for (auto const& [what, member] : off_chip_fields) {
            out += ' ';
            out += what;
            out += number(" %.1f", (r.off_chip.*member).count() / 1e6);
        }
        out += "\n\n";
    }
    out += traffic_table(r).text(2) + "\n";
    out += throughput_table(r).text(2);
    out += "\n  memory ports, bytes per cycle:";
    for (std::size_t n = 0; n < chip_memory_count; ++n) {
        auto const which = static_cast<chip_memory>(n);
        out += (n == 0 ? " " : ", ") + std::string(name(which)) +
               number(" %.0f", r.port_bytes_per_cycle()[n]) + " of " +
               std::to_string(buffer_of(r.on, which).bytes_per_cycle());
    }
    out += "\n";
    out += "  multiply-add elements used: " + number("%.1f %%", 100 * r.mac_utilisation()) + "\n";
    out += "  time in which the DRAM works: " + number("%.1f %%", 100 * r.memory_share()) + "\n";
    return out;
}

json to_json(named_run const& run) {
    run_report const& r = run.report;
    json out;
    out["workload_name"] = run.name;
    out["workload"] = to_json_value(r.of);
    out["machine"] = to_json_value(r.on);
    out["total_cycles"] = r.timing.total.count();
    out["time_seconds"] = r.seconds();
    out["tiles_count"] = r.timing.items;
    out["kept_share"] = r.kept_share();
    json stages = json::object();
    for (engine_timing const& e : r.timing.engines) {
        json stage;
        stage["busy_cycles"] = e.busy.count();
        stage["idle_before_cycles"] = e.idle_before.count();
        stage["idle_after_cycles"] = e.idle_after.count();
        json stalls = json::array();
        for (stall const& s : e.stalls) {
            if (s.lost.count() > 0) {
                stalls.push_back({{"cause", std::string(name(s.cause))},
                                  {"other", r.timing.engines[s.other].name},
                                  {"stalled_cycles", s.lost.count()}});
            }
        }
        stage["stalls"] = std::move(stalls);
        stages[e.name] = std::move(stage);
    }
    out["stages"] = std::move(stages);
    json events = json::object();
    for (std::size_t a = 0; a < activity_count; ++a) {
        auto const which = static_cast<activity>(a);
        std::string key(name(which));
        bool const has_unit = key.ends_with("_bytes") || key.ends_with("_bits");
        events[key + (has_unit ? "" : "_count")] = r.done[which];
    }
    out["activities"] = std::move(events);
    out["dynamic_picojoules"] = per_block_json(r.dynamic_picojoules);
    out["static_picojoules"] = per_block_json(r.static_picojoules);
    out["area_square_micrometres"] = per_block_json(r.square_micrometres);
    json traffic = json::object();
    for (auto const& [what, member] : traffic_fields) {
        traffic[std::string(what)] = r.traffic.*member;
    }
    out["dram_traffic"] = std::move(traffic);
    if (r.on.memory.model_name != "flat") {
        json off_chip = json::object();
        for (auto const& [what, member] : off_chip_fields) {
            off_chip[std::string(what) + "_picojoules"] = (r.off_chip.*member).count();
        }
        off_chip["activates_count"] = r.moved.activates;
        off_chip["read_bursts_count"] = r.moved.read_bursts;
        off_chip["write_bursts_count"] = r.moved.write_bursts;
        out["dram"] = std::move(off_chip);
    }
    out["effective_gops"] = r.effective_gops();
    out["paper_accounting_gops"] = r.paper_gops();
    for (std::size_t n = 0; n < chip_memory_count; ++n) {
        std::string const which(name(static_cast<chip_memory>(n)));
        out["port_use_share"][which] = r.port_shares()[n];
        out["port_bytes_per_cycle"][which] = r.port_bytes_per_cycle()[n];
    }
    out["mac_utilisation_share"] = r.mac_utilisation();
    out["memory_share"] = r.memory_share();
    out["prices"] = to_json(r.prices);
    return out;
}

io::table to_table(std::vector<named_run> const& runs, std::string_view first,
                   std::vector<bool> const& pareto, bool is_narrow) {
    std::vector<std::string> header{std::string(first), "Mcycles"};
    for (char const* column :
         {"ms", "GOPS", "paper GOPS", "MAC %", "core mJ", "mJ", "mm2", "DRAM MB", "best"}) {
        std::string const name = column;
        bool const is_left_out = (is_narrow && (name == "ms" || name == "paper GOPS")) ||
                                 (name == "best" && pareto.empty());
        if (!is_left_out) {
            header.push_back(name);
        }
    }
    io::table table(header);
    for (std::size_t i = 0; i < runs.size(); ++i) {
        run_report const& r = runs[i].report;
        std::vector<std::string> row{
            runs[i].name, number("%.3f", static_cast<double>(r.timing.total.count()) / 1e6)};
        if (!is_narrow) {
            row.push_back(number("%.3f", 1e3 * r.seconds()));
        }
        row.push_back(number("%.0f", r.effective_gops()));
        if (!is_narrow) {
            row.push_back(number("%.0f", r.paper_gops()));
        }
        row.insert(row.end(),
                   {number("%.1f", 100 * r.mac_utilisation()),
                    number("%.3f", r.core_picojoules() / 1e9), number("%.3f", r.picojoules() / 1e9),
                    number("%.3f", sum(r.square_micrometres) / 1e6),
                    number("%.2f", static_cast<double>(r.traffic.total()) / 1e6)});
        if (!pareto.empty()) {
            row.emplace_back(pareto[i] ? "*" : "");
        }
        table.add(std::move(row));
    }
    return table;
}

std::string to_text(energy_table const& prices) {
    std::string out = wrapped(std::string(prices.name) + ": " + std::string(prices.doc) + ". At " +
                                  number("%g nm", prices.node_nanometres) +
                                  number(", %g V.", prices.supply_volts),
                              columns, 0) +
                      "\n\n";
    auto const line = [&](std::string_view what, std::string_view of, std::string const& value,
                          std::string_view from) {
        std::string text(what);
        text.resize(27, ' ');
        std::string second(of);
        second.resize(14, ' ');
        std::string const padded(10 - std::min<std::size_t>(10, value.size()), ' ');
        return "  " + text + second + padded + value + "  " +
               wrapped(std::string(from), columns - 55, 55) + "\n";
    };
    out += line("event", "block", "pJ", "source");
    for (std::size_t a = 0; a < activity_count; ++a) {
        auto const which = static_cast<activity>(a);
        out += line(name(which), name(block_of(which)), number("%.4g", prices.of(which).picojoules),
                    prices.of(which).source);
    }
    out += '\n';
    out += line("unit", "block", "um2", "static uW; source");
    for (std::size_t p = 0; p < part_count; ++p) {
        auto const which = static_cast<part>(p);
        out += line(name(which), name(block_of(which)),
                    number("%.4g", prices.of(which).square_micrometres),
                    number("%.4g; ", prices.of(which).static_microwatts) +
                        std::string(prices.of(which).source));
    }
    return out;
}

std::string to_text(std::vector<explained_field> const& fields) {
    std::string out;
    for (explained_field const& f : fields) {
        if (f.value.empty()) {
            out += "\n" + f.name + ": " + f.doc + "\n";
            continue;
        }
        bool const is_text = f.unit == "name" || f.unit.empty();
        out += "  " + f.name + " = " + f.value + (is_text ? "" : " " + f.unit) + "\n";
        std::string about = f.doc + ". " + (f.limit.empty() ? "" : "Range: " + f.limit + ".") +
                            (f.source.empty() ? "" : " Source: " + f.source + ".");
        out += "      " + wrapped(about, columns - 6, 6) + "\n";
    }
    return out;
}

json to_json(energy_table const& prices) {
    json out;
    out["name"] = std::string(prices.name);
    out["node_nanometres"] = prices.node_nanometres;
    out["supply_volts"] = prices.supply_volts;
    json events = json::object();
    for (std::size_t a = 0; a < activity_count; ++a) {
        auto const which = static_cast<activity>(a);
        events[std::string(name(which))] = {{"picojoules", prices.of(which).picojoules},
                                            {"source", std::string(prices.of(which).source)}};
    }
    out["activities"] = std::move(events);
    json parts = json::object();
    for (std::size_t p = 0; p < part_count; ++p) {
        auto const which = static_cast<part>(p);
        parts[std::string(name(which))] = {
            {"area_square_micrometres", prices.of(which).square_micrometres},
            {"static_microwatts", prices.of(which).static_microwatts},
            {"source", std::string(prices.of(which).source)}};
    }
    out["parts"] = std::move(parts);
    return out;
}

} // namespace sofattn::hw
