// SPDX-License-Identifier: MIT
// Parts that follow from the paper's numbers and the model of the machine, without data.
#include "hw/figures.hpp"
#include "hw/report.hpp"
#include "hw/settings.hpp"
#include "paper/part.hpp"
#include <sofattn/dlzs/lz_code.hpp>
#include <sofattn/hw/benchmarks.hpp>
#include <sofattn/hw/run.hpp>
#include <sofattn/io/charts.hpp>

#include <array>
#include <cstddef>
#include <utility>

namespace sofattn::paper {

namespace {

using hw::status;

/// What sofattn-hw tables shows, once for all parts.
std::vector<hw::table_row> const& printed_rows() {
    static std::vector<hw::table_row> const rows = hw::paper_rows();
    return rows;
}

std::string no_data(inputs const&) { return "none but the paper's numbers and the model"; }

findings with_rows(std::vector<std::string> const& of, tools& run) {
    run.note("sofattn-hw tables");
    return {.rows = rows_of(printed_rows(), of)};
}

findings table2(inputs const&, tools& run) { return with_rows({"Table II"}, run); }

findings table3(inputs const&, tools& run) {
    findings found = with_rows({"Table III", "Sec. V"}, run);
    hw::workload const w = hw::load_workload("llama_7b_layer").of;
    hw::machine m = hw::sofa_28nm();
    hw::named_run const calibrated{"sofa_28nm, Table III's prices", hw::run(w, m)};
    m.process.energy_table_name = "public_28nm";
    m.process.supply_volts = 0.9;
    hw::named_run const held_out{"the same, public figures", hw::run(w, m)};
    found.figures.push_back(
        {hw::area_figure({calibrated, held_out}),
         "By calibration to Table III, and from public figures of 28 nm circuits alone."});
    return found;
}

findings table4(inputs const&, tools& run) { return with_rows({"Table IV"}, run); }

hw::workload llama(double kept_share) {
    hw::workload w = hw::load_workload("llama_7b_attention").of;
    w.kept_share = kept_share;
    return w;
}

/// Fig. 3: memory's share of the time over queries served at once.
findings figure3(inputs const&, tools& run) {
    findings found = with_rows({"Fig. 3"}, run);
    run.note("sofattn-paper --only fig3");
    static constexpr std::array<index_t, 6> parallel{32, 64, 128, 256, 512, 1024};
    io::line_chart chart{.title = "Time in which the DRAM works",
                         .x_name = "queries at a time",
                         .y_name = "% of the time",
                         .log_x = true};
    std::vector<std::string> header{"design"};
    for (index_t const queries : parallel) {
        header.push_back(std::to_string(queries));
    }
    io::table table(header);
    for (auto const& [name, machine] :
         {std::pair{"FACT", hw::fact()}, std::pair{"Energon", hw::energon()},
          std::pair{"SOFA", hw::sofa_28nm()}}) {
        io::chart_line line{name, {}};
        std::vector<std::string> cells{name};
        for (index_t const queries : parallel) {
            double const share =
                100 *
                hw::run(llama(0.187), hw::with_parallel_queries(machine, queries)).memory_share();
            line.points.push_back({static_cast<double>(queries), share});
            cells.push_back(hw::number("%.1f %%", share));
        }
        chart.lines.push_back(std::move(line));
        table.add(std::move(cells));
    }
    found.figures.push_back({draw(chart), "Llama-7B's attention, 18.7 % kept, 2 MB of SRAM in the "
                                          "designs that hand whole rows over."});
    found.tables.push_back({"Share of the time in which the DRAM works, by queries served at once:",
                            std::move(table)});
    return found;
}

/// Fig. 7c: 24 * 6, by powers of two.
findings figure7(inputs const&, tools& run) {
    run.note("sofattn-paper --only fig7");
    using dlzs::lz_code;
    constexpr int x = 24;
    constexpr int y = 6;
    auto const row = [](std::string what, double paper, double ours) {
        return hw::table_row{"Fig. 7", std::move(what), paper, ours, "", status::reproduced};
    };
    auto const one_sided = static_cast<double>(dlzs::shifted(x, lz_code::encode<8>(y)));
    auto const two_sided =
        static_cast<double>(lz_code::encode<8>(x).value() * lz_code::encode<8>(y).value());
    return {.rows = {row("24 * 6, both as powers of two", 64, two_sided),
                     row("24 * 6, DLZS", 96, one_sided),
                     row("error of DLZS", 48, x * y - one_sided),
                     row("error of the vanilla scheme", 80, x * y - two_sided)}};
}

findings figure15(inputs const&, tools& run) { return with_rows({"Fig. 15"}, run); }

/// Fig. 19 and the gains of section V, on baselines that this library models.
findings figure19(inputs const&, tools& run) {
    findings found = with_rows({"Fig. 19"}, run);
    run.note("sofattn-hw compare --workload llama_7b_attention --set kept_share=0.074 --machine "
             "dense_fa2 --machine plain_4bit --machine fact --machine energon --machine spatten "
             "--machine sanger --machine sofa_row_ready --machine sofa_28nm");
    struct loss {
        double kept_share;
        double speed; ///< the paper's, over an A100
        double energy;
    };
    static constexpr std::array<loss, 3> losses{
        {{0.187, 6.1, 49.8}, {0.123, 7.2, 57.6}, {0.074, 9.5, 71.5}}};
    std::string const reason = "the paper's baseline is an A100, of which it implies 2571 GOPS at "
                               "25.6 W; ours is dense FlashAttention-2 on as many elements";
    for (std::size_t n = 0; n < losses.size(); ++n) {
        hw::run_report const dense = hw::run(llama(losses[n].kept_share), hw::dense_fa2());
        hw::run_report const sofa = hw::run(llama(losses[n].kept_share), hw::sofa_28nm());
        std::string const at = ", " + std::to_string(n) + " % loss";
        found.rows.push_back({"Fig. 19", "speed over dense FA-2" + at, losses[n].speed,
                              dense.seconds() / sofa.seconds(), "x", status::contradicted, reason});
        found.rows.push_back({"Sec. V", "energy over dense FA-2" + at, losses[n].energy,
                              dense.picojoules() / sofa.picojoules(), "x", status::contradicted,
                              reason});
    }
    std::vector<hw::named_run> runs;
    for (char const* name : {"dense_fa2", "plain_4bit", "fact", "energon", "spatten", "sanger",
                             "sofa_row_ready", "sofa_28nm"}) {
        runs.push_back({name, hw::run(llama(losses.back().kept_share), hw::find_machine(name))});
    }
    found.tables.push_back(
        {"Attention of a Llama-7B layer, 4096 tokens, 7.4 % kept; dense_fa2 "
         "keeps all. dense_fa2 and plain_4bit have SOFA's multiply-add elements:",
         hw::to_table(runs, "machine", {}, true)});
    found.figures.push_back({hw::throughput_figure(runs),
                             "Dense: what dense attention would have computed, over all time."});
    found.figures.push_back({hw::energy_figure(runs, false), "Of the same work."});
    found.figures.push_back({hw::traffic_figure(runs), "Of the same work."});
    return found;
}

findings figure21(inputs const&, tools& run) {
    findings found = with_rows({"Fig. 21"}, run);
    std::vector<hw::table_row> engines;
    for (hw::table_row const& r : found.rows) {
        if (r.how == status::contradicted) {
            engines.push_back(r);
        }
    }
    found.figures.push_back({compared_bars("Gain of an engine in time", "x", engines),
                             "From a machine with 4-bit products, a full sort and "
                             "FlashAttention-2 to SOFA; the paper starts from an A100."});
    return found;
}

/// What has no number, or none that can be read.
findings rest(inputs const&, tools&) {
    auto const row = [](char const* table, char const* what, char const* reason) {
        return hw::table_row{table, what, 0, 0, "", status::contradicted, reason};
    };
    return {.rows = {row("Table I", "all of it",
                         "no number of it is among the facts that this "
                         "library is built from"),
                     row("Fig. 1", "bars", "their numbers cannot be read off the picture"),
                     row("Fig. 4", "bars", "their numbers cannot be read off the picture"),
                     row("Fig. 21", "energy gains 2.48, 2.1 and 3.27",
                         "steps from an A100, which is not modelled"),
                     row("Fig. 18", "bars of 20 benchmarks",
                         "need 20 models fine-tuned with the sparsity")},
            .notes = {"The drawings of algorithms and engines (Fig. 9 to 14) are code here: "
                      "README.md says which header is which figure."}};
}

} // namespace

std::vector<hw::table_row> rows_of(std::vector<hw::table_row> const& rows,
                                   std::vector<std::string> const& tables) {
    std::vector<hw::table_row> some;
    for (std::string const& name : tables) {
        for (hw::table_row const& r : rows) {
            if (r.table == name) {
                some.push_back(r);
            }
        }
    }
    return some;
}

io::figure compared_bars(std::string const& title, std::string const& unit,
                         std::vector<hw::table_row> const& rows) {
    io::stacked_bars chart{.title = title, .unit = unit, .parts = {unit}};
    for (hw::table_row const& r : rows) {
        chart.bars.push_back({r.what + ", paper", {r.paper}});
        chart.bars.push_back({r.what + ", ours", {r.ours}});
    }
    return draw(chart);
}

std::vector<part> machine_parts() {
    return {
        {"table2", "Table II: SOFA and eight designs", no_data, table2},
        {"table3", "Table III and Sec. V: area, power and peaks", no_data, table3},
        {"table4", "Table IV: the memory", no_data, table4},
        {"fig3", "Fig. 3: time that memory takes", no_data, figure3},
        {"fig7", "Fig. 7: leading zeros instead of products", no_data, figure7},
        {"fig15", "Fig. 15: the schedule of loads (RASS)", no_data, figure15},
        {"fig19", "Fig. 19 and Sec. V: speed and energy, on baselines of ours", no_data, figure19},
        {"fig21", "Fig. 21: one engine after the other", no_data, figure21},
        {"rest", "What is not computed", no_data, rest},
    };
}

} // namespace sofattn::paper
