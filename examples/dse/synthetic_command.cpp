// SPDX-License-Identifier: MIT
#include "attend/progress.hpp"
#include "dse/arguments.hpp"
#include "dse/pictures.hpp"
#include "dse/rival_dlib.hpp"
#include <sofattn/dse/search.hpp>
#include <sofattn/dse/synthetic.hpp>
#include <sofattn/io/html_report.hpp>
#include <sofattn/io/table.hpp>

#include <algorithm>
#include <cstdio>
#include <ctime>
#include <functional>
#include <limits>

namespace sofattn::dse {

namespace {

/// Gaps to the least value after 1, 2, ... evaluations, and time.
struct gap_run {
    std::vector<double> gaps;
    double seconds = 0; ///< of the processor, which others may use too; the objective takes none
};

/// Mean over seeds, and the largest gap at the end.
struct gap_means {
    std::string name;
    std::vector<double> gaps;
    double worst = 0;
    double seconds = 0;
};

double seconds_since(std::clock_t start) {
    return static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
}

gap_run run_search(method by, sofa_like const& objective, arguments const& a, std::uint64_t seed) {
    double const least = objective(objective.best());
    search_options options;
    options.by = by;
    options.seed = seed;
    std::clock_t const start = std::clock();
    search run(sofa_like::space(), options);
    gap_run found;
    double best = std::numeric_limits<double>::infinity();
    while (std::ssize(run.trials()) < a.evaluations) {
        for (trial const& t :
             run.ask(std::min(a.batch, a.evaluations - std::ssize(run.trials())))) {
            double const value = objective(t.at);
            best = std::min(best, value);
            found.gaps.push_back(best - least);
            run.tell(t.id, {trial_status::done, {value}, {}, {}});
        }
    }
    found.seconds = seconds_since(start);
    return found;
}

gap_run run_dlib(sofa_like const& objective, arguments const& a, std::uint64_t seed) {
    double const least = objective(objective.best());
    std::clock_t const start = std::clock();
    gap_run found;
    found.gaps = dlib_best(sofa_like::space(), objective, a.evaluations, seed);
    for (double& value : found.gaps) {
        value -= least;
    }
    found.seconds = seconds_since(start);
    return found;
}

} // namespace

int synthetic_command(arguments const& a) {
    check_writable(a.result);
    check_writable(a.html);
    using runner = std::function<gap_run(sofa_like const&, std::uint64_t)>;
    std::vector<std::pair<std::string, runner>> methods;
    for (method const by : {method::bayesian, method::one_plus_one, method::random}) {
        methods.emplace_back(name_of(by), [&, by](sofa_like const& f, std::uint64_t seed) {
            return run_search(by, f, a, seed);
        });
    }
    if (has_dlib()) {
        methods.emplace_back(
            "dlib", [&](sofa_like const& f, std::uint64_t seed) { return run_dlib(f, a, seed); });
    }
    std::vector<gap_means> means;
    attend::progress_bar bar(!a.quiet);
    auto const runs = static_cast<double>(a.seeds) * static_cast<double>(methods.size());
    double done = 0;
    for (auto const& [name, run] : methods) {
        gap_means mean{name, std::vector<double>(static_cast<std::size_t>(a.evaluations)), 0, 0};
        for (index_t s = 0; s < a.seeds; ++s) {
            auto const seed = a.seed + static_cast<std::uint64_t>(s);
            gap_run const one = run(sofa_like(seed % 5), seed);
            for (std::size_t n = 0; n < mean.gaps.size(); ++n) {
                mean.gaps[n] += one.gaps[n] / static_cast<double>(a.seeds);
            }
            mean.worst = std::max(mean.worst, one.gaps.back());
            mean.seconds += one.seconds / static_cast<double>(a.seeds);
            bar.update(++done / runs, name);
        }
        means.push_back(std::move(mean));
    }
    bar.clear();

    io::table table({"method", "gap at " + std::to_string((a.evaluations + 1) / 2),
                     "gap at " + std::to_string(a.evaluations), "worst", "CPU s a run"});
    json methods_json = json::object();
    std::vector<named_curve> curves;
    for (gap_means const& m : means) {
        auto const half = static_cast<std::size_t>((a.evaluations + 1) / 2 - 1);
        table.add({m.name, number("%.4f", m.gaps[half]), number("%.4f", m.gaps.back()),
                   number("%.4f", m.worst), number("%.3f", m.seconds)});
        methods_json[m.name] = {{"mean_gaps", m.gaps},
                                {"worst_gap", m.worst},
                                {"processor_seconds_per_run", m.seconds}};
        curves.push_back({m.name, m.gaps});
    }
    std::string const what =
        "Gap to the least value of a made-up objective on the paper's space (12 tile counts, one "
        "keep ratio), mean over " +
        std::to_string(a.seeds) + " seeds and 5 instances" +
        (has_dlib() ? "" : "; dlib is not installed");
    write_text(a.result, json{{"command", "synthetic"},
                              {"seeds_count", a.seeds},
                              {"first_seed", a.seed},
                              {"evaluations_count", a.evaluations},
                              {"batch_count", a.batch},
                              {"methods", methods_json}}
                                 .dump(2) +
                             "\n");
    if (!a.html.empty()) {
        io::html_report page("Searches compared", what);
        static constexpr double least = 1e-4; // the axis is logarithmic, and a gap may be 0
        page.add(draw_convergence("Mean gap, 0.0001 and below as 0.0001", "gap", curves,
                                  [](double gap) { return std::max(gap, least); }));
        page.table("Mean gaps", table);
        write_text(a.html, page.text());
    }
    std::fputs((what + "\n\n" + table.text()).c_str(), stdout);
    return 0;
}

} // namespace sofattn::dse
