// SPDX-License-Identifier: MIT
#include "attend/budgets.hpp"
#include "attend/progress.hpp"
#include "dse/arguments.hpp"
#include "dse/model_search.hpp"
#include "dse/pictures.hpp"
#include "lm/model_folder.hpp"
#include <sofattn/core/error.hpp>
#include <sofattn/io/file.hpp>
#include <sofattn/io/html_report.hpp>
#include <sofattn/io/table.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdio>
#include <utility>

namespace sofattn::dse {

namespace {

/// A row of the table: a way to attend, judged.
struct judged {
    std::string name;
    model_level level;
};

attend::budget_table table_of(head_allocation const& a, std::string const& model) {
    attend::budget_table table;
    table.policy = lm::budget_policy;
    table.kept_share = a.kept_share;
    double count = 0;
    for (std::size_t l = 0; l < a.heads.size(); ++l) {
        attend::layer_budgets layer{model, static_cast<int>(l), {}};
        for (std::size_t h = 0; h < a.heads[l].size(); ++h) {
            head_sample const& s = a.heads[l][h];
            layer.heads.push_back({static_cast<int>(h), s.spreads, s.kept_share, s.error_relative});
            table.output_error_relative += s.error_relative;
            ++count;
        }
        table.layers.push_back(std::move(layer));
    }
    table.output_error_relative /= count;
    return table;
}

double saved_share(model_level const& found, model_level const& rival) {
    return 1 - found.figures.kept_share / rival.figures.kept_share;
}

io::table judged_table(std::vector<judged> const& all, double dense_loss) {
    io::table t({"attention", "kept", "less than it", "mean KL", "same top", "perplexity"});
    t.add({"dense", "100.0 %", "-", "0.00000", "100.00 %", number("%.3f", std::exp(dense_loss))});
    model_level const& found = all.back().level;
    for (judged const& j : all) {
        model_figures const& f = j.level.figures;
        bool const is_found = &j == &all.back();
        t.add({j.name, number("%.2f %%", 100 * f.kept_share),
               is_found ? "-" : number("%.1f %%", 100 * saved_share(found, j.level)),
               number("%.5f", f.kl), number("%.2f %%", 100 * f.same_top_share),
               number("%.3f", std::exp(f.loss))});
    }
    return t;
}

io::table layer_table(head_allocation const& a, std::vector<double> const& weights) {
    io::table t({"layer", "weight", "output error budgets", "kept, alone"});
    for (std::size_t l = 0; l < a.heads.size(); ++l) {
        auto const [least, most] =
            std::minmax_element(a.heads[l].begin(), a.heads[l].end(),
                                [](auto const& x, auto const& y) { return x.spreads < y.spreads; });
        double kept = 0;
        for (head_sample const& s : a.heads[l]) {
            kept += s.kept_share / static_cast<double>(a.heads[l].size());
        }
        t.add({std::to_string(l), number("%.2f", weights[l]),
               number("%.4f", least->spreads) + " to " + number("%.4f", most->spreads),
               number("%.1f %%", 100 * kept)});
    }
    return t;
}

json to_json(judged const& j) {
    json object = {{"name", j.name}, {"method", j.level.name}};
    object.update(to_json(j.level.figures));
    json& windows = object["windows_kl_nats"] = json::array();
    for (model_figures const& f : j.level.windows) {
        windows.push_back(f.kl);
    }
    return object;
}

constexpr char const* notes =
    "Judged on windows that nothing was chosen by. Both uniform budgets, and the heads' without a "
    "search, were made as large as they can be for the found ones' KL on these very windows, which "
    "favours them. Less than it: kept keys saved by what was found.";

} // namespace

int model_command(arguments const& a) {
    for (auto const& file : {a.result, a.html, a.budgets_out}) {
        check_writable(file);
    }
    lm::model_folder const folder(a.folder);
    model_options options = a.model_windows;
    options.begins_with_bos = !a.no_bos;
    model_problem problem(folder.model, folder.tokens_of(a.text), options);
    {
        attend::progress_bar bar(!a.quiet);
        problem.run_dense(a.workers > 1 ? a.workers : exec::openmp().threads(),
                          [&](double share) { bar.update(share, "dense windows"); });
    }
    json purpose = problem.purpose();
    purpose["command"] = "model";
    purpose["most_kl_nats"] = a.most_kl;
    search_identity identity{purpose, model_search::space_of(problem.model().layers), {}, a.batch};
    identity.options.seed = a.seed;
    std::filesystem::path runs_file = a.state;
    if (!runs_file.empty()) {
        runs_file += ".runs";
    }
    run_log log(runs_file, purpose);
    if (a.across != nullptr) {
        log.share(*a.across);
    }
    worker_options workers = workers_of(a);
    workers.most_seconds = 0; // what all else is compared with
    model_search search(problem, log, {workers, !a.quiet}, workers.threads_each);
    identity.options.suggested = {search.even()};
    if (!a.state.empty()) {
        static_cast<void>(read_state(a.state, identity)); // a foreign one is known at once
    }

    search.measure(a.most_kl);
    auto const runs =
        run_methods(identity, {}, one_by_one([&](point const& p) { return search.evaluate(p); }), a,
                    {}, [](double kept) { return 100 * kept; });
    auto const& trials = runs.front().result.state.trials;
    auto const front = pareto_front(trials);
    if (front.empty()) {
        throw error("evaluations that were possible", "none", "at least one");
    }
    point const best = trials[front.front()].at;

    auto const settled = search.heads(part::settle, best, search.settle_kl(best, a.most_kl));
    model_level found = search.judge(settled);
    double const kl = found.figures.kl;
    std::vector<judged> all{
        {"uniform mass", search.uniform(part::judge, uniform_budget::mass, kl)},
        {"uniform output error", search.uniform(part::judge, uniform_budget::output_error, kl)},
        {"heads, not searched", search.heads(part::judge, search.even(), kl)}};
    all.push_back({"found", std::move(found)});
    auto const& chosen = all.back().level;

    write_text(a.budgets_out,
               attend::to_json_text(table_of(chosen.heads, lm::model_name(a.folder))));
    json result = effort_json(identity, runs.front().result);
    result["runs_count"] = log.size();
    result["settled_kl_nats"] = settled.figures.kl;
    json& settings = result["settings"] = json::array();
    for (judged const& j : all) {
        settings.push_back(to_json(j));
    }
    result["weights"] = search.weights_of(best);
    result["saved_share_of_uniform_mass"] = saved_share(chosen, all[0].level);
    result["saved_share_of_uniform_output_error"] = saved_share(chosen, all[1].level);
    json& methods = result["methods"] = json::object();
    for (method_run const& r : runs) {
        methods[std::string(name_of(r.by))] = best_so_far(r.result.state.trials);
    }
    write_text(a.result, result.dump(2) + "\n");

    auto const judge_table = judged_table(all, problem.dense_loss(part::judge));
    auto const layers = layer_table(chosen.heads, search.weights_of(best));
    std::string const what = lm::model_name(a.folder) + ", windows of " +
                             std::to_string(options.context) +
                             " tokens: " + std::to_string(options.search_windows) + " searched, " +
                             std::to_string(options.settle_windows) + " settled, " +
                             std::to_string(options.judge_windows) + " judged; mean KL at most " +
                             number("%g", a.most_kl);
    std::string effort =
        effort_text(runs.front().result) + "; " + std::to_string(log.size()) + " runs";
    for (method_run const& r : runs) {
        effort += "; " + std::string(name_of(r.by)) +
                  number(" %.3f %%", 100 * best_so_far(r.result.state.trials).back());
    }
    std::string const outcome =
        (kl <= a.most_kl ? "The KL was reached" : "The KL was not reached") + std::string(": ") +
        number("%.5f", kl) +
        number(", with %.1f %% fewer keys than the best uniform mass",
               100 * saved_share(chosen, all[0].level));
    if (!a.html.empty()) {
        io::html_report page("Search for budgets of heads", what + "; " + effort);
        page.add(draw_convergence("Best weights so far", "kept, % of keys", curves_of(runs),
                                  [](double kept) { return 100 * kept; }));
        page.table("Judged", judge_table);
        page.table("What was found", layers);
        page.paragraph(outcome);
        page.paragraph(notes);
        write_text(a.html, page.text());
    }
    std::fputs((what + "\n" + effort + "\n\n" + judge_table.text() + "\n" + layers.text() + "\n" +
                outcome + "\n" + notes + "\n")
                   .c_str(),
               stdout);
    return 0;
}

} // namespace sofattn::dse
