// SPDX-License-Identifier: MIT
#include "dse/arguments.hpp"
#include "dse/hardware.hpp"
#include "dse/pictures.hpp"
#include "hw/settings.hpp"
#include <sofattn/core/error.hpp>
#include <sofattn/dse/elementary.hpp>
#include <sofattn/io/html_report.hpp>
#include <sofattn/io/table.hpp>

#include <algorithm>
#include <cstdio>
#include <set>

namespace sofattn::dse {

namespace {

/// What is shown of an objective, which is a logarithm of SI units.
double shown_value(hardware_goal goal, double logarithm_of_it) {
    return exponential(logarithm_of_it) * (goal == hardware_goal::square_millimetres ? 1.0 : 1e3);
}

json to_json(hardware_figures const& f) {
    json busy = json::object();
    auto const stages = stage_names();
    for (std::size_t s = 0; s < f.busy_shares.size(); ++s) {
        busy[stages[s]] = f.busy_shares[s];
    }
    return {{"seconds", f.seconds},         {"effective_gops", f.effective_gops},
            {"joules", f.joules},           {"square_millimetres", f.square_millimetres},
            {"port_shares", f.port_shares}, {"busy_shares", busy}};
}

std::vector<std::string> row_of(std::string const& name, hardware_figures const& f) {
    return {name,
            number("%.3f", f.seconds * 1e3),
            number("%.0f", f.effective_gops),
            number("%.1f", f.joules * 1e3),
            number("%.3f", f.square_millimetres),
            number("%.0f", 100 * f.port_shares[0]) + "/" + number("%.0f", 100 * f.port_shares[1]) +
                "/" + number("%.0f", 100 * f.port_shares[2])};
}

struct outcome_tables {
    io::table machines{{"machine", "ms", "GOPS", "mJ", "mm2", "ports %"}};
    io::table changes{{"changed field", "base", "found", "GOPS without", "mm2 without"}};
    io::table busy{{"stage", "base busy %", "found busy %"}};
};

/// What the command found, for all three outputs.
struct findings {
    hardware_figures base;
    std::optional<trial> best; ///< of the Bayesian search; with several objectives, of the first
    hardware_figures best_figures;
    std::vector<hardware_problem::change> changes;
};

findings judge(hardware_problem const& problem, method_run const& run) {
    findings f;
    f.base = problem.base_figures();
    for (std::size_t const i : pareto_front(run.result.state.trials)) {
        trial const& t = run.result.state.trials[i];
        if (!f.best || t.result.objectives < f.best->result.objectives) {
            f.best = t;
        }
    }
    if (f.best) {
        f.best_figures = problem.figures_of(f.best->at);
        f.changes = problem.changes(f.best->at);
    }
    return f;
}

outcome_tables tables_of(hardware_problem const& problem, arguments const& a, findings const& f,
                         std::vector<method_run> const& runs) {
    outcome_tables t;
    t.machines.add(row_of(a.machine_name, f.base));
    for (method_run const& r : runs) {
        auto const front = pareto_front(r.result.state.trials);
        for (std::size_t const i : front) {
            if (problem.goals().size() == 1 || r.by == method::bayesian) {
                t.machines.add(row_of(std::string(name_of(r.by)) +
                                          (front.size() > 1 ? " " + std::to_string(i) : ""),
                                      problem.figures_of(r.result.state.trials[i].at)));
            }
        }
    }
    for (auto const& c : f.changes) {
        t.changes.add({c.path, c.from, c.to, number("%.0f", c.without.effective_gops),
                       number("%.3f", c.without.square_millimetres)});
    }
    auto const stages = stage_names();
    for (std::size_t s = 0; f.best && s < stages.size(); ++s) {
        t.busy.add({stages[s], number("%.1f", 100 * f.base.busy_shares[s]),
                    number("%.1f", 100 * f.best_figures.busy_shares[s])});
    }
    return t;
}

/// Throughput and area against the base, and what bounds either.
std::string verdict(arguments const& a, findings const& f) {
    auto const busiest = [](hardware_figures const& of) {
        auto const at = std::max_element(of.busy_shares.begin(), of.busy_shares.end());
        return stage_names()[static_cast<std::size_t>(at - of.busy_shares.begin())] + " (" +
               number("%.0f %%", 100 * *at) + " busy)";
    };
    return number("%.2f", f.best_figures.effective_gops / f.base.effective_gops) +
           " times the throughput of " + a.machine_name + " on " +
           number("%.3f", f.best_figures.square_millimetres / f.base.square_millimetres) +
           " of its area with " + number("%.2f", f.best_figures.joules / f.base.joules) +
           " of its energy. The busiest stage was " + busiest(f.base) + " and is " +
           busiest(f.best_figures) + ".";
}

constexpr char const* notes =
    "GOPS: dense work over the time of everything. Without: the found machine with this one field "
    "as in the base. Ports: bytes through token, weight and temporary memory over what their ports "
    "can deliver, which timing waits for.";

json result_of(search_identity const& identity, hardware_problem const& problem, findings const& f,
               std::vector<method_run> const& runs) {
    json result = effort_json(identity, runs.front().result);
    result["base"] = to_json(f.base);
    if (f.best) {
        result["found"] = to_json(f.best_figures);
        result["found"]["trial"] = f.best->id;
        result["found"]["settings"] = problem.settings_of(f.best->at);
        json& changed = result["changes"] = json::array();
        for (auto const& c : f.changes) {
            changed.push_back({{"fields", c.path},
                               {"base", c.from},
                               {"found", c.to},
                               {"without", to_json(c.without)}});
        }
    }
    json& methods = result["methods"] = json::object();
    for (method_run const& r : runs) {
        json front = json::array();
        for (std::size_t const i : pareto_front(r.result.state.trials)) {
            json one = r.result.state.details[i];
            one["trial"] = i;
            one["settings"] = problem.settings_of(r.result.state.trials[i].at);
            front.push_back(std::move(one));
        }
        methods[std::string(name_of(r.by))] = {{"front", front}};
    }
    return result;
}

std::string page_of(hardware_problem const& problem, arguments const& a, findings const& f,
                    outcome_tables const& tables, std::vector<method_run> const& runs) {
    io::html_report page("Search for a machine", a.workload_name + ", from " + a.machine_name +
                                                     ": " + effort_text(runs.front().result));
    if (f.best) {
        page.paragraph(verdict(a, f));
    }
    auto const& goals = problem.goals();
    if (goals.size() == 1) {
        page.add(draw_convergence("Best machine so far", axis_name(goals[0]), curves_of(runs),
                                  [&](double v) { return shown_value(goals[0], v); }));
    } else {
        page.add(draw_fronts("Pareto fronts", {axis_name(goals[0]), axis_name(goals[1])}, runs,
                             [&](std::size_t j, double v) { return shown_value(goals[j], v); }));
    }
    page.table("Machines", tables.machines);
    page.table("What changed", tables.changes);
    page.table("Busy stages", tables.busy);
    page.paragraph(notes);
    return page.text();
}

} // namespace

int hardware_command(arguments const& a) {
    hw::chosen_workload workload = hw::load_workload(a.workload_name);
    hw::machine base = hw::load_machine(a.machine_name);
    for (std::string const& one : a.assignments) {
        hw::assign(one, base, workload.of);
    }
    std::vector<hardware_dimension> dimensions;
    for (std::string const& text : a.variations) {
        dimensions.push_back(parse_dimension(text));
    }
    if (dimensions.empty()) {
        dimensions = usual_dimensions();
    }
    std::vector<hardware_goal> goals;
    for (std::string const& name : a.objectives) {
        goals.push_back(find_hardware_goal(name));
        if (std::count(goals.begin(), goals.end(), goals.back()) > 1) {
            throw error("--objective " + name, "given twice", "given once");
        }
    }
    std::optional<double> most_area = a.most_area;
    if (!most_area && !a.is_area_free) { // equal area: the base's, and a rounding error
        hardware_problem const unlimited(base, workload.of, dimensions, goals, std::nullopt);
        most_area = unlimited.base_figures().square_millimetres * (1 + 1e-9);
    }
    hardware_problem const problem(base, workload.of, dimensions, goals, most_area);
    search_identity identity{problem.purpose(), problem.space(), {}, a.batch};
    identity.options.seed = a.seed;
    identity.options.objectives_count = goals.size();
    if (auto const start = problem.base_point(); start && problem.is_allowed(*start)) {
        identity.options.suggested.push_back(*start);
    }
    for (auto const& file : {a.result, a.html, a.machine_out, a.workload_out}) {
        check_writable(file);
    }

    auto const runs = run_methods(
        identity, [&](point const& p) { return problem.is_allowed(p); },
        one_by_one([&](point const& p) { return problem.evaluate(p); }), a, {},
        [&](double v) { return shown_value(goals[0], v); });
    findings const f = judge(problem, runs.front());
    outcome_tables const tables = tables_of(problem, a, f, runs);

    std::string text =
        workload.name + ", " + effort_text(runs.front().result) + "\n\n" + tables.machines.text();
    if (f.best) {
        text += "\n" + verdict(a, f) + "\n\n" + tables.changes.text() + "\n" + tables.busy.text() +
                "\n" + notes + "\n";
        write_text(a.machine_out, problem.machine_file(f.best->at).dump(2) + "\n");
        write_text(a.workload_out, problem.workload_file(f.best->at).dump(2) + "\n");
    } else {
        text += "\nno machine of the space could be evaluated\n";
    }
    write_text(a.result, result_of(identity, problem, f, runs).dump(2) + "\n");
    if (!a.html.empty()) {
        write_text(a.html, page_of(problem, a, f, tables, runs));
    }
    std::fputs(text.c_str(), stdout);
    return 0;
}

} // namespace sofattn::dse
