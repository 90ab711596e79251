// SPDX-License-Identifier: MIT
// sofattn-dse: searches for machines, tile counts, keep ratios and budgets.
#include "attend/command.hpp"
#include "dse/arguments.hpp"
#include "dse/ranks.hpp"
#include "dse/state_lock.hpp"
#include <sofattn/core/error.hpp>

#include <CLI/CLI.hpp>

#include <cstdio>
#include <exception>
#include <limits>
#include <optional>
#include <string>

namespace sofattn::dse {
namespace {

constexpr char const* introduction = "Design-space exploration (SOFA, section III-D): a Bayesian "
                                     "search over integer settings, with\n"
                                     "random and (1+1) search beside it.\n";

constexpr char const* reading =
    "\nResults depend on --seed and --batch, never on --workers or ranks. With --state a search\n"
    "can be stopped at any time, kill -9 included, and goes on where it was when the same command\n"
    "is given again; one run at a time has the file.\n"
    "\n"
    "Examples:\n"
    "  sofattn-dse hardware --workload llama_7b_layer --html page.html\n"
    "  sofattn-dse hardware --objective latency --objective energy --max-area 8\n"
    "  sofattn-dse hardware --vary attention.exp_units_count=1,4,16 --vary tile_keys_count=64,128\n"
    "  sofattn-dse layers examples/data --model TinyLlama --workers 2 --batch 2 --state s.json\n"
    "  sofattn-dse model MODEL wiki.txt --kl 0.003 --out budgets.json --state s.json\n"
    "  mpirun -n 4 sofattn-dse layers examples/data --mpi --batch 8\n"
    "  sofattn-dse synthetic --seeds 20\n"
    "\n"
    "Exit codes: 0 done, 2 bad input (one line on standard error).";

void declare_search(CLI::App* command, arguments& a) {
    constexpr index_t most = 100000;
    command
        ->add_option("--evaluations", a.evaluations,
                     "Points to evaluate, per method; default 200, of a model 24")
        ->check(CLI::Range(index_t{1}, most));
    command->add_option("--batch", a.batch, "Points asked at a time; changes the result")
        ->check(CLI::Range(index_t{1}, index_t{1024}));
    command->add_option("--seed", a.seed, "Another one, another search");
    command->add_option("--json", a.result, "Write the result to this file");
    command->add_option("--html", a.html, "Write a page with a convergence plot to this file");
    command->add_flag("--quiet", a.quiet, "No progress bar");
}
void declare_workers(CLI::App* command, arguments& a) {
    command->add_option("--workers", a.workers, "Processes at a time, at most --batch")
        ->check(CLI::Range(index_t{1}, index_t{1024}));
    command
        ->add_option("--timeout", a.timeout_seconds,
                     "Seconds that an evaluation may take, or of layers a process's part of one")
        ->check(CLI::Range(0.001, 1e6));
    command->add_option("--state", a.state, "Keep the search in this file, go on from it");
    command->add_flag("--no-baselines", a.no_baselines, "No random and (1+1) search");
}

void declare_ranks(CLI::App* command, arguments& a) {
    command->add_flag("--mpi", a.uses_mpi,
                      "mpirun has started this: --workers processes of every rank share a batch");
}

void declare(CLI::App& app, arguments& a) {
    app.require_subcommand(1);
    auto* hardware = app.add_subcommand("hardware", "Fields of a machine, and of a workload");
    declare_search(hardware, a);
    declare_workers(hardware, a);
    declare_ranks(hardware, a);
    hardware->add_option("--machine", a.machine_name, "To begin with, name or file");
    hardware->add_option("--workload", a.workload_name, "Name or file, as for sofattn-hw");
    hardware->add_option("--set", a.assignments, "FIELD=VALUE of either; repeatable")
        ->allow_extra_args(false)
        ->take_all();
    hardware
        ->add_option("--vary", a.variations,
                     "FIELD[+FIELD]=VALUE,VALUE,...; repeatable (default: arrays, units, memories "
                     "and tile size)")
        ->allow_extra_args(false)
        ->take_all();
    hardware
        ->add_option("--objective", a.objectives,
                     "latency, energy or area; several give a Pareto front")
        ->allow_extra_args(false)
        ->take_all();
    auto* area = hardware->add_option("--max-area", a.most_area,
                                      "Square millimetres (default: as many as --machine has)");
    area->check(CLI::Range(0.001, 1e6));
    hardware->add_flag("--any-area", a.is_area_free, "No limit on the area")->excludes(area);
    hardware->add_option("--machine-out", a.machine_out, "Write what was found, for sofattn-hw");
    hardware->add_option("--workload-out", a.workload_out, "The same of the workload");

    auto* layers = app.add_subcommand("layers", "Tile count and keep ratio of recorded layers");
    declare_search(layers, a);
    declare_workers(layers, a);
    declare_ranks(layers, a);
    layers->add_option("FOLDER", a.folder, "Folder with manifest*.json, as for sofattn-attend")
        ->required();
    layers->add_option("--layers", a.layers, "Only these layer numbers, e.g. 5,16")
        ->delimiter(',')
        ->allow_extra_args(false);
    layers->add_option("--model", a.model, "Only models whose name has this in it");
    layers->add_option("--policy", a.policy, "One that keeps a ratio, as for sofattn-attend");
    layers->add_option("--queries", a.queries, "The last ones of every layer; 0: all")
        ->check(CLI::Range(index_t{0}, index_t{1} << 24));
    layers->add_option("--weights", a.weights, "Of counted operations");
    layers->add_option(
        "--objective", a.goal,
        "operations (fewest at --error), printed (Eq. 2) or balanced (Eq. 2 with its "
        "last term as a share)");
    layers->add_option("--eq2", a.eq2_model, "Whose alpha and beta, e.g. bert or llama_7b");
    layers
        ->add_option("--error", a.most_error,
                     "Relative output error allowed (default: that of Tc = 16, k = 10 %)")
        ->check(CLI::Range(1e-6, 10.0));
    layers
        ->add_option("--most-kept", a.most_kept_percent,
                     "Largest k in percent, of Tc = 2, 4, ..., 32 and k = 5, 10, ... (default: 100 "
                     "for operations, else 50 as in Algorithm 1)")
        ->check(CLI::Range(index_t{5}, index_t{100}));
    layers->add_flag("--one-ratio", a.one_ratio, "The same k in all layers, as in Algorithm 1");

#ifdef SOFATTN_HAS_LM
    auto* model = app.add_subcommand("model", "Budgets per layer and head of a language model, as "
                                              "sofattn-lm --budgets reads them");
    declare_search(model, a);
    declare_workers(model, a);
    declare_ranks(model, a);
    model->add_option("MODEL", a.folder, "Folder of the model, as for sofattn-lm")->required();
    model->add_option("TEXT", a.text, "Text file, or token ids in a .npy file")->required();
    model->add_option("--out", a.budgets_out, "Write the table of budgets to this file");
    model->add_option("--kl", a.most_kl, "Mean KL from the dense model to reach, nats")
        ->check(CLI::Range(1e-9, 10.0))
        ->capture_default_str();
    model_options& windows = a.model_windows;
    model->add_option("--context", windows.context, "Tokens of a window")
        ->check(CLI::Range(2, 1 << 30))
        ->capture_default_str();
    model->add_option("--first", windows.first, "Judge tokens of a window from here on")
        ->check(CLI::Range(1, 1 << 30))
        ->capture_default_str();
    auto const some = CLI::Range(1, 100000);
    model->add_option("--search-windows", windows.search_windows, "To measure heads and search on")
        ->check(some)
        ->capture_default_str();
    model
        ->add_option("--settle-windows", windows.settle_windows,
                     "Others, to choose all budgets' common size on")
        ->check(some)
        ->capture_default_str();
    model->add_option("--judge-windows", windows.judge_windows, "Others, for the result")
        ->check(some)
        ->capture_default_str();
    model->add_flag("--no-bos", a.no_bos, "Do not begin with the model's first token");
#endif

    auto* synthetic =
        app.add_subcommand("synthetic", "Searches compared on a function with a known least value");
    declare_search(synthetic, a);
    synthetic->add_option("--seeds", a.seeds, "Searches per method")
        ->check(CLI::Range(index_t{1}, index_t{10000}));
}

int run_command(CLI::App const& app, arguments const& a) {
    index_t const ranks_count = a.across == nullptr ? 1 : a.across->count();
    if (a.workers * ranks_count > a.batch) {
        throw error(ranks_count == 1 ? "--workers" : "--workers of all ranks",
                    std::to_string(a.workers * ranks_count),
                    "at most --batch, " + std::to_string(a.batch) +
                        ", since a batch is asked as a whole");
    }
    std::optional<state_lock> lock;
    if (!a.state.empty()) { // of ranks, the root's alone
        lock.emplace(a.state);
    }
#ifdef SOFATTN_HAS_LM
    if (auto const* model = app.get_subcommand("model"); model->parsed()) {
        arguments with_defaults = a;
        if (model->count("--evaluations") == 0) {
            with_defaults.evaluations = 24; // of seconds each
        }
        return model_command(with_defaults);
    }
#endif
    return app.got_subcommand("hardware") ? hardware_command(a)
           : app.got_subcommand("layers") ? layers_command(a)
                                          : synthetic_command(a);
}

/// Ranks but the root go through the same steps, in silence: their results are the root's.
void silence(arguments& a) {
    a.quiet = true;
    for (auto* const file :
         {&a.state, &a.result, &a.html, &a.machine_out, &a.workload_out, &a.budgets_out}) {
        file->clear();
    }
    if (std::freopen("/dev/null", "w", stdout) == nullptr) {
        throw error("/dev/null", "not there", "possible to write to");
    }
}

int run(CLI::App const& app, arguments const& given) {
    if (!given.uses_mpi) {
        return run_command(app, given);
    }
    auto const all = ranks::start();
    arguments a = given;
    a.across = all.get();
    try {
        if (!all->is_root()) {
            silence(a);
        }
        return run_command(app, a);
    } catch (std::exception const& e) { // others wait for this one
        std::fflush(stdout);
        std::fprintf(stderr, "sofattn-dse: %s\n", e.what());
        all->abort(2);
    }
}

} // namespace
} // namespace sofattn::dse

int main(int argc, char** argv) {
    using namespace sofattn::dse;
    return sofattn::attend::command<arguments>{"sofattn-dse", introduction, reading, declare,
                                               run}(argc, argv);
}
