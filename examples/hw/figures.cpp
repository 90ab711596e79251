// SPDX-License-Identifier: MIT
#include "hw/figures.hpp"

#include <sofattn/hw/activity.hpp>
#include <sofattn/hw/energy_table.hpp>
#include <sofattn/hw/memory_model.hpp>
#include <sofattn/io/charts.hpp>
#include <sofattn/io/svg.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <optional>
#include <string_view>
#include <utility>

namespace sofattn::hw {

namespace {

constexpr double per_milli = 1e3;

/// The parts that are not zero in every bar, at most as many as there are hues: the smallest become
/// one. Bars are of all parts.
void keep_largest(io::stacked_bars& chart) {
    std::vector<std::pair<double, std::size_t>> sizes;
    for (std::size_t p = 0; p < chart.parts.size(); ++p) {
        double all = 0;
        for (io::bar const& one : chart.bars) {
            all += one.parts[p];
        }
        if (all > 0) {
            sizes.emplace_back(all, p);
        }
    }
    std::ranges::sort(sizes, std::ranges::greater{});
    bool const is_cut = sizes.size() > io::figure_hues;
    std::vector<std::size_t> kept;
    for (std::size_t n = 0; n < sizes.size() && n < io::figure_hues - (is_cut ? 1 : 0); ++n) {
        kept.push_back(sizes[n].second);
    }
    std::ranges::sort(kept);
    for (io::bar& one : chart.bars) {
        std::vector<double> parts;
        double rest = 0;
        for (double const value : one.parts) {
            rest += value;
        }
        for (std::size_t const p : kept) {
            parts.push_back(one.parts[p]);
            rest -= one.parts[p];
        }
        if (is_cut) {
            parts.push_back(std::max(0.0, rest));
        }
        one.parts = std::move(parts);
    }
    std::vector<std::string> names;
    names.reserve(kept.size() + 1);
    for (std::size_t const p : kept) {
        names.push_back(chart.parts[p]);
    }
    if (is_cut) {
        names.emplace_back("others");
    }
    chart.parts = std::move(names);
}

std::string words_of(std::string_view name) {
    std::string text(name);
    std::ranges::replace(text, '_', ' ');
    return text;
}

std::vector<std::string> block_names(std::size_t blocks) {
    std::vector<std::string> names;
    for (std::size_t b = 0; b < blocks; ++b) {
        names.push_back(words_of(name(static_cast<block>(b))));
    }
    return names;
}

io::bar block_bar(std::string const& name, per_block const& of, std::size_t blocks, double unit) {
    io::bar one{name, {}};
    for (std::size_t b = 0; b < blocks; ++b) {
        one.parts.push_back(of[b] / unit);
    }
    return one;
}

per_block energy_of_blocks(run_report const& r) {
    per_block all = r.dynamic_picojoules;
    for (std::size_t b = 0; b < block_count; ++b) {
        all[b] += r.static_picojoules[b];
    }
    return all;
}

template <std::size_t Count>
scaled_unit first_within(std::array<scaled_unit, Count> const& units, double most) {
    for (scaled_unit const& unit : units) {
        if (most >= unit.size) {
            return unit;
        }
    }
    return units.back();
}

std::optional<double> number_in(std::string const& text) {
    char* end = nullptr;
    double const value = std::strtod(text.c_str(), &end);
    bool const is_whole = !text.empty() && end == text.c_str() + text.size();
    return is_whole && std::isfinite(value) && value >= 0 ? std::optional(value) : std::nullopt;
}

/// Logarithmic where values spread over more than a decade.
bool spreads(double least, double most) { return least > 0 && most > 10 * least; }

/// Equal roofs are one, without a name where they have several: there is no room for all.
void add_roof(std::vector<io::named_value>& roofs, std::string const& name, double value) {
    auto const same = std::ranges::find(roofs, value, &io::named_value::value);
    if (same == roofs.end()) {
        roofs.push_back({name, value});
    } else if (same->name != name) {
        same->name.clear();
    }
}

} // namespace

std::string shortened(std::string const& name, std::size_t most) {
    // UTF-8: no letter is cut.
    auto const begins = [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; };
    std::size_t letters = 0;
    for (std::size_t at = 0; at < name.size(); ++at) {
        if (begins(name[at]) && ++letters > most) {
            return name.substr(0, at) + "...";
        }
    }
    return name;
}

scaled_unit energy_unit(double most_picojoules) {
    return first_within<5>({{{1e12, "J"}, {1e9, "mJ"}, {1e6, "uJ"}, {1e3, "nJ"}, {1, "pJ"}}},
                           most_picojoules);
}
scaled_unit bytes_unit(double most_bytes) {
    return first_within<4>({{{1e9, "GB"}, {1e6, "MB"}, {1e3, "kB"}, {1, "B"}}}, most_bytes);
}

io::figure energy_figure(std::vector<named_run> const& runs, bool core_only) {
    std::size_t const blocks = core_only ? static_cast<std::size_t>(block::interface) : block_count;
    double most = 0;
    for (named_run const& one : runs) {
        most = std::max(most, core_only ? one.report.core_picojoules() : one.report.picojoules());
    }
    scaled_unit const unit = energy_unit(most);
    io::stacked_bars chart{.title = core_only ? "Energy of the core" : "Energy, DRAM included",
                           .unit = unit.name,
                           .parts = block_names(blocks)};
    if (runs.size() == 1) {
        run_report const& r = runs.front().report;
        chart.bars = {block_bar("dynamic", r.dynamic_picojoules, blocks, unit.size),
                      block_bar("static", r.static_picojoules, blocks, unit.size)};
        return draw(chart);
    }
    for (named_run const& one : runs) {
        chart.bars.push_back(
            block_bar(shortened(one.name), energy_of_blocks(one.report), blocks, unit.size));
    }
    return draw(chart);
}

io::figure area_figure(std::vector<named_run> const& runs) {
    constexpr auto blocks = static_cast<std::size_t>(block::interface);
    io::stacked_bars chart{
        .title = "Area of the core", .unit = "mm2", .parts = block_names(blocks)};
    for (named_run const& one : runs) {
        chart.bars.push_back(
            block_bar(shortened(runs.size() == 1 ? one.report.on.base_name : one.name),
                      one.report.square_micrometres, blocks, 1e6));
    }
    return draw(chart);
}

io::figure traffic_figure(std::vector<named_run> const& runs) {
    io::stacked_bars chart{.title = "DRAM traffic", .unit = "", .parts = {}};
    double most = 0;
    for (named_run const& one : runs) {
        most = std::max(most, static_cast<double>(one.report.traffic.total()));
    }
    scaled_unit const unit = bytes_unit(most);
    chart.unit = unit.name;
    std::vector<bool> written;
    for (auto const& [what, member] : traffic_fields) {
        chart.parts.push_back(words_of(what.substr(0, what.size() - 6)));
        written.push_back(member == &tile_traffic::stored_bytes ||
                          member == &tile_traffic::output_bytes);
    }
    auto const bar_of = [&](std::string const& name, tile_traffic const& t, bool reads,
                            bool writes) {
        io::bar one{name, {}};
        for (std::size_t f = 0; f < traffic_fields.size(); ++f) {
            auto const member = traffic_fields[f].second;
            // Spilled scores go both ways.
            bool const is_both = member == &tile_traffic::spilled_score_bytes;
            int const times = (reads && (is_both || !written[f]) ? 1 : 0) +
                              (writes && (is_both || written[f]) ? 1 : 0);
            one.parts.push_back(times * static_cast<double>(t.*member) / unit.size);
        }
        return one;
    };
    for (named_run const& one : runs) {
        tile_traffic const& t = one.report.traffic;
        if (runs.size() == 1) {
            chart.bars = {bar_of("read", t, true, false), bar_of("written", t, false, true)};
        } else {
            chart.bars.push_back(bar_of(shortened(one.name), t, true, true));
        }
    }
    keep_largest(chart);
    return draw(chart);
}

io::figure dram_energy_figure(std::vector<named_run> const& runs) {
    double most = 0;
    for (named_run const& one : runs) {
        most = std::max(most, one.report.picojoules() - one.report.core_picojoules());
    }
    scaled_unit const unit = energy_unit(most);
    io::stacked_bars chart{
        .title = "Energy of the DRAM and its interface",
        .unit = unit.name,
        .parts = {"activate", "read", "write", "refresh", "standby", "interface"}};
    for (named_run const& one : runs) {
        run_report const& r = one.report;
        io::bar bar{shortened(runs.size() == 1 ? "memory model " + r.on.memory.model_name
                                               : one.name + ", " + r.on.memory.model_name),
                    {}};
        if (r.on.memory.model_name == "flat") { // per bit: no causes
            auto const spent = [&](activity a) {
                return static_cast<double>(r.done[a]) * r.prices.of(a).picojoules;
            };
            bar.parts = {0, spent(activity::dram_read_bits), spent(activity::dram_write_bits), 0,
                         0, spent(activity::interface_bits)};
        } else {
            for (auto const& [what, member] : off_chip_fields) {
                bar.parts.push_back((r.off_chip.*member).count());
            }
        }
        for (double& part : bar.parts) {
            part /= unit.size;
        }
        chart.bars.push_back(std::move(bar));
    }
    keep_largest(chart);
    return draw(chart);
}

io::figure throughput_figure(std::vector<named_run> const& runs) {
    double most = 0;
    for (named_run const& one : runs) {
        most = std::max({most, one.report.effective_gops(), one.report.paper_gops()});
    }
    scaled_unit const unit = first_within<3>({{{1e3, "TOPS"}, {1, "GOPS"}, {1e-3, "MOPS"}}}, most);
    io::stacked_bars chart{
        .title = "Throughput, two accountings", .unit = unit.name, .parts = {unit.name}};
    for (named_run const& one : runs) {
        std::string const of = runs.size() == 1 ? "" : shortened(one.name, 24) + ": ";
        chart.bars.push_back(
            {of + "dense work over all time", {one.report.effective_gops() / unit.size}});
        chart.bars.push_back({of + "the paper's", {one.report.paper_gops() / unit.size}});
    }
    return draw(chart);
}

intensity intensity_of(run_report const& r) {
    double const operations =
        2 * static_cast<double>(r.done[activity::multiply_add] + r.done[activity::kv_multiply_add]);
    auto const moved = static_cast<double>(r.traffic.total());
    return {moved > 0 ? operations / moved : 0, operations / r.seconds()};
}

io::figure roofline_figure(std::vector<named_run> const& runs) {
    io::roofline chart{
        .title = "Roofline of the multiply-add arrays", .peaks = {}, .bandwidths = {}};
    for (named_run const& one : runs) {
        machine const& m = one.report.on;
        auto const counts = part_counts(m);
        double const hertz = m.process.clock_megahertz * 1e6;
        auto const peak = [&](part p) {
            return 2 * static_cast<double>(counts[static_cast<std::size_t>(p)]) * hertz;
        };
        add_roof(chart.peaks, "SU-FA alone", peak(part::attention_mac));
        add_roof(chart.peaks, "KV and SU-FA arrays",
                 peak(part::attention_mac) + peak(part::kv_mac));
        memory_model const memory(m);
        if (memory.is_flat()) {
            double const bytes = m.memory.peak_bytes_per_cycle * hertz;
            add_roof(chart.bandwidths, "streams", bytes * m.memory.stream_share);
            add_roof(chart.bandwidths, "scattered", bytes * m.memory.scattered_share);
        } else {
            add_roof(chart.bandwidths, m.memory.model_name, memory.dram().peak_gb_per_s() * 1e9);
        }
        intensity const at = intensity_of(one.report);
        if (at.operations_per_byte > 0 && at.operations_per_second > 0) {
            chart.points.push_back(
                {shortened(one.name), at.operations_per_byte, at.operations_per_second});
        }
    }
    for (auto* roofs : {&chart.peaks, &chart.bandwidths}) {
        for (io::named_value& roof : *roofs) {
            roof.name +=
                " " + io::short_number(roof.value) + (roofs == &chart.peaks ? "OPS" : "B/s");
        }
    }
    return draw(chart);
}

io::figure sweep_figure(std::vector<named_run> const& runs, std::vector<variation> const& varied,
                        std::vector<bool> const& pareto, plotted const& what) {
    variation const& last = varied.back();
    std::string const field = last.path.substr(last.path.rfind('.') + 1);
    std::vector<double> xs;
    for (std::string const& text : last.values) {
        if (auto const x = number_in(text)) {
            xs.push_back(*x);
        }
    }
    std::string const y_name = what.unit;
    if (xs.size() != last.values.size()) {
        io::stacked_bars chart{.title = what.title, .unit = what.unit, .parts = {what.title}};
        for (std::size_t i = 0; i < runs.size(); ++i) {
            chart.bars.push_back(
                {shortened(runs[i].name) + (pareto[i] ? " *" : ""), {what.of(runs[i].report)}});
        }
        return draw(chart);
    }
    io::line_chart chart{.title = what.title, .x_name = field, .y_name = y_name};
    std::size_t const each = xs.size();
    double least = INFINITY;
    double most = 0;
    for (std::size_t first = 0; first < runs.size(); first += each) {
        io::chart_line line{
            varied.size() == 1 ? field : shortened(varied.front().values[first / each], 24), {}};
        for (std::size_t i = 0; i < each; ++i) {
            double const y = what.of(runs[first + i].report);
            line.points.push_back({xs[i], y, pareto[first + i]});
            least = std::min(least, y);
            most = std::max(most, y);
        }
        std::ranges::stable_sort(line.points, {}, &io::chart_point::x);
        chart.lines.push_back(std::move(line));
    }
    chart.log_x = spreads(*std::ranges::min_element(xs), *std::ranges::max_element(xs));
    chart.log_y = spreads(least, most);
    return draw(chart);
}

io::figure pareto_figure(std::vector<named_run> const& runs, std::vector<bool> const& pareto) {
    io::chart_line front{"no other is better", {}};
    io::chart_line others{"others", {}, false};
    double most = 0;
    for (named_run const& one : runs) {
        most = std::max(most, one.report.picojoules());
    }
    scaled_unit const unit = energy_unit(most);
    for (std::size_t i = 0; i < runs.size(); ++i) {
        run_report const& r = runs[i].report;
        (pareto[i] ? front : others)
            .points.push_back({per_milli * r.seconds(), r.picojoules() / unit.size,
                               static_cast<bool>(pareto[i])});
    }
    std::ranges::sort(front.points, {}, &io::chart_point::x);
    front.joined = false; // the front is of three quantities: a line would promise points between
    io::line_chart chart{.title = "Energy against time",
                         .x_name = "ms",
                         .y_name = unit.name,
                         .lines = {front, others},
                         .log_x = true,
                         .log_y = true};
    std::erase_if(chart.lines, [](io::chart_line const& line) { return line.points.empty(); });
    return draw(chart);
}

} // namespace sofattn::hw
