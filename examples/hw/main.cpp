// SPDX-License-Identifier: MIT
// sofattn-hw: cycles, energy, area and traffic of the SOFA accelerator and its variants.
#include "attend/command.hpp"
#include "hw/data.hpp"
#include "hw/dram_trace.hpp"
#include "hw/measured.hpp"
#include "hw/page.hpp"
#include "hw/recorder.hpp"
#include "hw/report.hpp"
#include "hw/settings.hpp"
#include "hw/sweep.hpp"
#include "hw/tables.hpp"
#include <sofattn/core/error.hpp>
#include <sofattn/hw/benchmarks.hpp>
#include <sofattn/hw/prices.hpp>
#include <sofattn/hw/run.hpp>
#include <sofattn/io/file.hpp>

#include <CLI/CLI.hpp>

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace sofattn::hw {
namespace {

struct arguments {
    std::vector<std::string> machines{"sofa_28nm"};
    std::string workload_name = "llama_7b_layer";
    std::vector<std::string> assignments;
    std::vector<std::string> variations;
    std::string table_name;
    std::string sample_folder;
    recorded_layer layer;
    std::string format = "text";
    std::filesystem::path html;
    std::filesystem::path timeline;
    std::uint64_t timeline_tiles = 1000;
    std::filesystem::path requests;
    std::string requests_format = "dramsim3";
    std::uint64_t requests_tiles = 1000;
};

constexpr char const* introduction =
    "Models the SOFA accelerator (MICRO 2024): cycles of a pipeline of engines over tiles, DRAM\n"
    "traffic, energy and area by block, with every constant's source.\n";

constexpr char const* reading =
    "\nA machine or workload is a name (explain lists them) or a .json file that names the fields "
    "in\n"
    "which it differs from its \"base_name\". --set changes single fields of either. With --q, "
    "--k, --v,\n"
    "run takes shapes and events from data: the paper's preset with the workload's kept_share.\n"
    "\n"
    "Examples:\n"
    "  sofattn-hw run --workload llama_7b_causal --set kept_share=0.074\n"
    "  sofattn-hw run --q q.npy --k k.npy --v v.npy --set kept_share=0.1\n"
    "  sofattn-hw compare --machine sofa_28nm --machine sofa_row_ready --html page.html\n"
    "  sofattn-hw run --timeline trace.json               # open in https://ui.perfetto.dev\n"
    "  sofattn-hw run --set memory.model_name=hbm2_16x64 --dram-trace requests.trc\n"
    "  sofattn-hw sweep --vary attention.exp_units_count=1,2,4,128 --workload llama_7b_attention\n"
    "  sofattn-hw tables --sample examples/data\n"
    "\n"
    "Exit codes: 0 done, 2 bad input (one line on standard error).";

void declare(CLI::App& app, arguments& a) {
    app.require_subcommand(1);
    auto const formats = [&](CLI::App* command) {
        command->add_option("--format", a.format, "text, json or csv")
            ->check(CLI::IsMember({"text", "json", "csv"}));
    };
    auto const pages = [&](CLI::App* command) {
        command->add_option("--html", a.html, "A page with figures, prices and assumptions too");
    };
    auto const inputs = [&](CLI::App* command, bool many) {
        auto* machines = command->add_option("--machine", a.machines,
                                             many ? "Machines, name or file; repeatable"
                                                  : "Machine, name or file");
        machines->allow_extra_args(false)->take_all();
        if (!many) {
            machines->expected(1);
        }
        command->add_option("--workload", a.workload_name, "Workload, name or file");
        command->add_option("--set", a.assignments, "FIELD=VALUE; repeatable")
            ->allow_extra_args(false)
            ->take_all();
    };
    auto* run = app.add_subcommand("run", "One workload on one machine");
    inputs(run, false);
    auto* q = run->add_option("--q", a.layer.q, "Recorded queries [heads, tokens, dim], .npy");
    auto* k = run->add_option("--k", a.layer.k, "Recorded keys [kv_heads, tokens, dim]");
    auto* v = run->add_option("--v", a.layer.v, "Recorded values [kv_heads, tokens, value_dim]");
    q->needs(k)->needs(v);
    k->needs(q);
    v->needs(q);
    run->add_flag("--bidirectional", a.layer.is_bidirectional, "No causal mask, for --q")->needs(q);
    formats(run);
    pages(run);
    auto* timeline = run->add_option("--timeline", a.timeline,
                                     "Trace of the first tiles too, for Perfetto or "
                                     "chrome://tracing");
    run->add_option("--timeline-tiles", a.timeline_tiles, "How many, about 3 kB each")
        ->check(CLI::Range(std::uint64_t{1}, std::uint64_t{1000000}))
        ->needs(timeline);
    auto* requests = run->add_option("--dram-trace", a.requests,
                                     "Requests of the first tiles to the DRAM too, for its "
                                     "simulators");
    std::vector<std::string> trace_names;
    for (auto const& [name, format] : trace_formats) {
        trace_names.push_back(name);
    }
    run->add_option("--dram-trace-format", a.requests_format,
                    "dramsim3, ramulator_load_store or ramulator_read_write")
        ->check(CLI::IsMember(trace_names))
        ->needs(requests);
    run->add_option("--dram-trace-tiles", a.requests_tiles,
                    "How many tiles, some 10 to 100 kB each")
        ->check(CLI::Range(std::uint64_t{1}, std::uint64_t{100000}))
        ->needs(requests);
    auto* compare = app.add_subcommand("compare", "One workload on several machines");
    inputs(compare, true);
    formats(compare);
    pages(compare);
    auto* vary = app.add_subcommand("sweep", "One or two fields over lists of values");
    inputs(vary, false);
    vary->add_option("--vary", a.variations, "FIELD=VALUE,VALUE,...; once or twice")
        ->required()
        ->allow_extra_args(false)
        ->take_all();
    formats(vary);
    pages(vary);
    auto* tables = app.add_subcommand("tables", "The paper's figures beside ours");
    tables->add_option(
        "--sample", a.sample_folder,
        "Folder of the sample layers (examples/data): with what is measured on them");
    formats(tables);
    auto* explained =
        app.add_subcommand("explain", "Every field of a machine and a workload, or a price table");
    inputs(explained, false);
    explained->add_option("--table", a.table_name, "Prices of this table instead, with sources");
}

void print(std::string const& text) { std::fwrite(text.data(), 1, text.size(), stdout); }

std::string as(std::string const& format, std::vector<named_run> const& runs,
               std::string const& first, std::vector<bool> const& pareto = {}) {
    if (format == "csv") {
        return to_table(runs, first, pareto).csv();
    }
    if (format == "json") {
        json list = json::array();
        for (std::size_t i = 0; i < runs.size(); ++i) {
            json one = to_json(runs[i]);
            one["name"] = runs[i].name;
            if (!pareto.empty()) {
                one["is_pareto"] = static_cast<bool>(pareto[i]);
            }
            list.push_back(std::move(one));
        }
        return list.dump(2) + "\n";
    }
    return to_table(runs, first, pareto, !pareto.empty()).text() +
           (pareto.empty() ? ""
                           : "\nbest *: no other is at least as good in time, energy and area, and "
                             "better in one\n");
}

machine machine_of(std::string const& name, arguments const& a, workload& w) {
    machine m = load_machine(name);
    for (std::string const& one : a.assignments) {
        assign(one, m, w);
    }
    return m;
}

std::string explain_all(arguments const& a) {
    if (!a.table_name.empty()) {
        return to_text(find_table(a.table_name));
    }
    chosen_workload w = load_workload(a.workload_name);
    machine const m = machine_of(a.machines.front(), a, w.of);
    std::string out = "machines:\n  ";
    for (char const c : machine::fields[0].choices) {
        out += c == '|' ? "\n  " : std::string(1, c);
    }
    out += "\ntables: " + detail::choices_text(technology::fields[3].choices) + "\nworkloads:\n";
    for (named_workload const& named : named_workloads()) {
        out += "  " + named.name + ": " + named.doc + "\n";
    }
    out += "\nmachine " + a.machines.front() + "\n" + to_text(explain(m));
    out += "\nworkload " + w.name + "\n" + to_text(explain(w.of));
    return out;
}

/// A page that appears beside the text, or not at all.
class page_file {
public:
    /// Throws `error` where no file can be made, before anything is run.
    explicit page_file(std::filesystem::path const& path) {
        if (!path.empty()) {
            file_.emplace(path);
        }
    }
    [[nodiscard]] explicit operator bool() const noexcept { return file_.has_value(); }
    void write(std::string const& page) { file_->write(page); }
    void commit() {
        if (file_) {
            file_->commit();
        }
    }

private:
    std::optional<io::atomic_file> file_;
};

int run_one(arguments const& a, chosen_workload const& chosen) {
    std::error_code code; // of paths that cannot be made absolute: they cannot be opened either
    auto const require_different = [&](char const* name, std::filesystem::path const& one,
                                       char const* other, std::filesystem::path const& path) {
        if (!one.empty() && std::filesystem::absolute(one, code).lexically_normal() ==
                                std::filesystem::absolute(path, code).lexically_normal()) {
            throw error(name, io::quoted(one.string()), std::string("another file than ") + other);
        }
    };
    require_different("--timeline", a.timeline, "--html", a.html);
    require_different("--dram-trace", a.requests, "--html", a.html);
    require_different("--dram-trace", a.requests, "--timeline", a.timeline);
    workload w = chosen.of;
    machine const m = machine_of(a.machines.front(), a, w);
    page_file html(a.html);
    std::optional<dram_trace> requests;
    if (!a.requests.empty()) {
        requests.emplace(m, a.requests, trace_formats.at(a.requests_format), a.requests_tiles);
    }
    run_recorder recorder(m, a.timeline, a.timeline_tiles,
                          requests ? &requests->replay() : nullptr);
    bool const is_heard = !a.html.empty() || !a.timeline.empty() || requests;
    pipeline_options const heard = is_heard ? recorder.options() : pipeline_options{};
    auto const on_tile = [&](tile_work const& tile) { requests->add(tile); };
    named_run const one =
        a.layer.q.empty()
            ? named_run{chosen.name, run(w, m, heard)}
            : run_on_data(a.layer, w, m, heard,
                          requests ? std::function<void(tile_work const&)>(on_tile) : nullptr);
    std::string out = a.format == "json"  ? to_json(one).dump(2) + "\n"
                      : a.format == "csv" ? to_table({one}, "workload").csv()
                                          : to_text(one);
    if (html) {
        html.write(to_page(one.name, {{one, recorder.first_tiles("The first tiles")}}));
    }
    if (requests) {
        std::string const line = requests->write(one.report);
        if (a.format == "text") {
            out += "\n" + line;
        }
        requests->commit();
    }
    recorder.commit();
    html.commit(); // what fails most fails before
    print(out);
    return 0;
}

int run_command(CLI::App const& app, arguments const& a) {
    if (app.got_subcommand("tables")) {
        auto rows = paper_rows();
        if (!a.sample_folder.empty()) {
            auto const measured = measured_rows(a.sample_folder);
            rows.insert(rows.end(), measured.begin(), measured.end());
        }
        print(a.format == "json"  ? to_json(rows).dump(2) + "\n"
              : a.format == "csv" ? to_csv(rows)
                                  : to_text(rows));
        return 0;
    }
    if (app.got_subcommand("explain")) {
        print(explain_all(a));
        return 0;
    }
    chosen_workload const chosen = load_workload(a.workload_name);
    if (app.got_subcommand("run")) {
        return run_one(a, chosen);
    }
    page_file html(a.html);
    std::vector<named_run> runs;
    if (app.got_subcommand("compare")) {
        std::vector<pictured_run> pictured;
        for (std::string const& name : a.machines) {
            workload w = chosen.of;
            machine const m = machine_of(name, a, w);
            run_recorder recorder(m);
            runs.push_back({name, run(w, m, html ? recorder.options() : pipeline_options{})});
            if (html) {
                pictured.push_back({runs.back(), recorder.first_tiles("First tiles, " + name)});
            }
        }
        std::string const out = as(a.format, runs, "machine");
        if (html) {
            html.write(to_page(chosen.name, pictured));
        }
        html.commit();
        print(out);
        return 0;
    }
    if (a.variations.size() > 2) {
        throw error("--vary", std::to_string(a.variations.size()) + " times",
                    "given once or twice");
    }
    std::vector<variation> varied;
    for (std::string const& text : a.variations) {
        varied.push_back(parse_variation(text));
    }
    workload w = chosen.of;
    machine const m = machine_of(a.machines.front(), a, w);
    runs = sweep(m, w, varied);
    std::vector<bool> const pareto = pareto_front(runs);
    std::string const out = as(a.format, runs, names_of(varied), pareto);
    if (html) {
        html.write(to_page(chosen.name, runs, varied, pareto));
    }
    html.commit();
    print(out);
    return 0;
}

} // namespace
} // namespace sofattn::hw

int main(int argc, char** argv) {
    using namespace sofattn::hw;
    return sofattn::attend::command<arguments>{"sofattn-hw", introduction, reading, declare,
                                               run_command}(argc, argv);
}
