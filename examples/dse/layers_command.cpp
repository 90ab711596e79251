// SPDX-License-Identifier: MIT
#include "attend/dataset.hpp"
#include "attend/progress.hpp"
#include "dse/arguments.hpp"
#include "dse/layers.hpp"
#include "dse/pictures.hpp"
#include <sofattn/core/error.hpp>
#include <sofattn/io/file.hpp>
#include <sofattn/io/html_report.hpp>
#include <sofattn/io/table.hpp>

#include <algorithm>
#include <cstdio>
#include <utility>

namespace sofattn::dse {

namespace {

/// The paper's preset: Bc = 128 at 2048 tokens, 10 % kept.
constexpr layer_setting usual{16, 10};

layer_goal find_goal(std::string const& name) {
    if (name == "printed") {
        return layer_goal::printed;
    }
    if (name == "balanced") {
        return layer_goal::balanced;
    }
    if (name == "operations") {
        return layer_goal::operations;
    }
    throw error("--objective", io::quoted(name), "printed, balanced or operations");
}

probe::complexity_weights find_weights(std::string const& name) {
    std::string names;
    for (auto const& table : probe::complexity_tables) {
        if (name == table.name) {
            return table;
        }
        names += (names.empty() ? "" : " or ") + std::string(table.name);
    }
    throw error("--weights", io::quoted(name), names);
}

std::vector<attend::layer> load_layers(arguments const& a) {
    auto const data = attend::dataset::of_folder(a.folder);
    std::vector<attend::layer> layers;
    for (std::size_t i = 0; i < data.layers().size(); ++i) {
        auto const& info = data.layers()[i];
        bool const is_wanted =
            a.layers.empty() || std::count(a.layers.begin(), a.layers.end(), info.layer) > 0;
        if (is_wanted && info.model.find(a.model) != std::string::npos) {
            layers.push_back(data.load(i));
        }
    }
    if (layers.empty()) {
        throw error(io::shown(a.folder) + ": layers that --layers and --model choose", "none",
                    "at least one");
    }
    return layers;
}

/// One way to set all layers, and what it comes to.
struct judged {
    std::string name;
    std::vector<layer_setting> settings;
    layer_figures figures;
};

/// Where several processes share the work: in parts small enough that all of them end at about the same
/// time, and without threads of their own.
batch_evaluator evaluator_of(layer_problem& problem) {
    return [&problem](std::vector<trial> const& trials, worker_options const& workers,
                      outcome_listener const& on_done) {
        evaluate_parts(trials, problem.in_parts(workers.threads_each == 1), workers, on_done);
    };
}

/// Runs a point outside of any search, as a worker would.
void measure(layer_problem& problem, std::vector<point> const& points, arguments const& a,
             char const* what) {
    std::vector<trial> trials;
    for (point const& p : points) {
        if (!problem.known(problem.settings_of(p))) {
            trials.push_back({std::ssize(trials), p, {}});
        }
    }
    attend::progress_bar bar(!a.quiet);
    double done = 0;
    worker_options workers = workers_of(a);
    workers.most_seconds = 0; // what all else is compared with
    evaluator_of(problem)(trials, workers, [&](trial const&, evaluation const& e) {
        if (e.result.status != trial_status::done) {
            throw error(what, e.result.note, "possible to run");
        }
        problem.remember(e.details);
        bar.update(++done / static_cast<double>(trials.size()), what);
    });
}

judged uniform_run(layer_problem const& problem, std::string const& name, layer_setting const& s) {
    std::vector<layer_setting> const settings(problem.layers().size(), s);
    return {name, settings, problem.known(settings).value()};
}

/// The uniform setting with the fewest operations among those that err at most so much.
std::optional<judged> best_uniform(layer_problem const& problem, double most_error) {
    std::optional<judged> best;
    for (layer_setting const& s : problem.all_settings()) {
        judged one = uniform_run(problem, "best uniform", s);
        if (one.figures.error <= most_error &&
            (!best || one.figures.operations < best->figures.operations)) {
            best = std::move(one);
        }
    }
    return best;
}

std::string setting_text(std::vector<layer_setting> const& settings) {
    bool const alike = std::all_of(settings.begin(), settings.end(),
                                   [&](auto const& s) { return s == settings.front(); });
    return alike ? "Tc " + std::to_string(settings.front().tiles) + ", k " +
                       std::to_string(settings.front().kept_percent) + " %"
                 : "per layer";
}

json to_json(judged const& j, layer_problem const& problem) {
    json layers = json::array();
    for (std::size_t l = 0; l < j.settings.size(); ++l) {
        auto const f = problem.known(l, j.settings[l]).value();
        auto const& info = problem.layers()[l].info;
        layers.push_back({{"model", info.model},
                          {"layer", info.layer},
                          {"tiles_count", j.settings[l].tiles},
                          {"tile_keys_count", ceil_div(info.keys, j.settings[l].tiles)},
                          {"kept_share", static_cast<double>(j.settings[l].kept_percent) / 100},
                          {"output_error_relative", f.error},
                          {"operations", f.operations}});
    }
    return {{"name", j.name},
            {"output_error_relative", j.figures.error},
            {"operations", j.figures.operations},
            {"layers", layers}};
}

struct layer_tables {
    io::table settings{{"setting", "Tc and k", "error", "Moperations", "less than best uniform"}};
    io::table layers{{"layer", "found Tc", "found k %", "error", "Moperations"}};
};

layer_tables tables_of(layer_problem const& problem, std::vector<judged> const& all,
                       judged const& found, std::optional<judged> const& uniform) {
    layer_tables t;
    for (judged const& j : all) {
        t.settings.add({j.name, setting_text(j.settings), number("%.4f", j.figures.error),
                        number("%.2f", j.figures.operations / 1e6),
                        uniform ? number("%.1f %%", 100 * (1 - j.figures.operations /
                                                                   uniform->figures.operations))
                                : "-"});
    }
    for (std::size_t l = 0; l < found.settings.size(); ++l) {
        auto const& info = problem.layers()[l].info;
        auto const f = problem.known(l, found.settings[l]).value();
        t.layers.add({info.model.substr(0, info.model.find(' ')) + " " + std::to_string(info.layer),
                      std::to_string(found.settings[l].tiles),
                      std::to_string(found.settings[l].kept_percent), number("%.4f", f.error),
                      number("%.2f", f.operations / 1e6)});
    }
    return t;
}

} // namespace

int layers_command(arguments const& a) {
    layer_options options;
    options.policy = a.policy;
    options.queries = a.queries;
    options.weights = find_weights(a.weights);
    options.goal = find_goal(a.goal);
    options.eq2 = find_paper_weights(a.eq2_model);
    options.one_ratio = a.one_ratio;
    options.most_error = a.most_error;
    // Eq. 2 does not count what is kept: without Algorithm 1's limit it would keep all.
    options.kept_percent_most = a.most_kept_percent.value_or(
        options.goal == layer_goal::operations ? index_t{100} : most_kept_percent);
    layer_problem problem(load_layers(a), options);
    check_writable(a.result);
    check_writable(a.html);
    if (options.goal == layer_goal::operations && !a.most_error) {
        measure(problem, {problem.uniform(usual)}, a, "usual setting");
        problem.set_most_error(uniform_run(problem, "", usual).figures.error);
    }

    search_identity identity{problem.purpose(), problem.space(), {}, a.batch};
    identity.options.seed = a.seed;
    identity.options.violations_count = problem.violations_count();
    identity.options.suggested = {problem.uniform(usual)};
    bool const counts_operations = options.goal == layer_goal::operations;
    auto const shown = [&](double v) { return counts_operations ? v / 1e6 : v; };
    auto const runs = run_methods(
        identity, {}, evaluator_of(problem), a,
        [&](json const& details) { problem.remember(details); }, shown);

    std::vector<judged> all;
    std::optional<judged> found;
    for (method_run const& r : runs) {
        for (std::size_t const i : pareto_front(r.result.state.trials)) {
            auto const settings = problem.settings_of(r.result.state.trials[i].at);
            all.push_back({std::string(name_of(r.by)), settings, problem.known(settings).value()});
            if (r.by == method::bayesian) {
                found = all.back();
            }
        }
    }
    if (counts_operations && !options.one_ratio) { // which would mix layers' ratios
        if (auto const settings = problem.recombined(runs.front().result.state.details,
                                                     *problem.options().most_error)) {
            all.push_back({"bayesian, recombined", *settings, problem.known(*settings).value()});
            found = all.back();
        }
    }
    if (!found) {
        throw error("error of every setting tried", "above the target",
                    "at most " + number("%g", problem.options().most_error.value_or(0)) +
                        " somewhere: more evaluations, or a larger --error");
    }
    // The rival may err as much as the target, or as what was found where Eq. 2 has no target.
    double const most_error = problem.options().most_error.value_or(found->figures.error);
    std::vector<point> uniform_points;
    for (layer_setting const& s : problem.all_settings()) {
        uniform_points.push_back(problem.uniform(s));
    }
    measure(problem, uniform_points, a, "uniform settings");
    auto const uniform = best_uniform(problem, most_error);
    if (uniform) {
        all.insert(all.begin(), *uniform);
    }
    if (auto const best = problem.best_known(most_error)) {
        all.push_back({"best of all", *best, problem.known(*best).value()});
    }
    layer_tables const tables = tables_of(problem, all, *found, uniform);

    std::string const what = std::to_string(problem.layers().size()) + " layers, policy " +
                             a.policy + ", last " +
                             (a.queries == 0 ? "of all" : std::to_string(a.queries)) +
                             " queries, weights " + a.weights + ", objective " + a.goal +
                             (counts_operations ? " at error <= " + number("%.4f", most_error)
                                                : ", weights of Eq. 2 " + a.eq2_model);
    std::string const notes =
        "Error: relative output error, mean over heads and layers. Best uniform: fewest operations "
        "among all " +
        std::to_string(uniform_points.size()) +
        " settings that a layer may have, for all layers alike, that err at most as much. "
        "Recombined: every layer at one of the settings that the search measured it at. Best of "
        "all: of every choice per layer, found from all settings measured; no search can be "
        "better.";
    json result = effort_json(identity, runs.front().result);
    json& settings = result["settings"] = json::array();
    for (judged const& j : all) {
        settings.push_back(to_json(j, problem));
    }
    json& methods = result["methods"] = json::object();
    for (named_curve const& curve : curves_of(runs)) { // null before any setting is allowed
        methods[curve.name] = {{"best_objectives", curve.best}};
    }
    result["saved_share"] =
        uniform ? json(1 - found->figures.operations / uniform->figures.operations) : json();
    write_text(a.result, result.dump(2) + "\n");
    if (!a.html.empty()) {
        io::html_report page("Search for tile counts and keep ratios",
                             what + "; " + effort_text(runs.front().result));
        page.add(draw_convergence("Best setting so far",
                                  counts_operations ? "weighted Moperations" : "objective",
                                  curves_of(runs), shown));
        page.table("Settings", tables.settings);
        page.table("What was found", tables.layers);
        page.paragraph(notes);
        write_text(a.html, page.text());
    }
    std::fputs((what + "\n" + effort_text(runs.front().result) + "\n\n" + tables.settings.text() +
                "\n" + tables.layers.text() + "\n" + notes + "\n")
                   .c_str(),
               stdout);
    return 0;
}

} // namespace sofattn::dse
