// SPDX-License-Identifier: MIT
#include "dse/arguments.hpp"
#include "dse/ranks.hpp"
#include <sofattn/io/file.hpp>

#include <algorithm>
#include <array>
#include <cstdio>
#include <utility>

namespace sofattn::dse {

std::vector<method_run> run_methods(search_identity const& identity, allowed_points const& allowed,
                                    batch_evaluator const& evaluate, arguments const& a,
                                    std::function<void(json const&)> const& on_details,
                                    std::function<double(double)> const& shown) {
    std::vector<method> methods{method::bayesian};
    if (!a.no_baselines) {
        methods.push_back(method::random);
        if (identity.options.objectives_count == 1) {
            methods.push_back(method::one_plus_one);
        }
    }
    std::vector<method_run> runs;
    for (method const by : methods) {
        search_identity mine = identity;
        mine.options.by = by;
        drive_options options;
        options.evaluations = a.evaluations;
        options.workers = workers_of(a);
        options.state = by == method::bayesian ? a.state : std::filesystem::path();
        options.show_progress = !a.quiet;
        options.name = std::string(name_of(by));
        options.on_details = on_details;
        options.shown = shown;
        runs.push_back({by, drive(mine, allowed, evaluate, options)});
    }
    return runs;
}

worker_options workers_of(arguments const& a) {
    worker_options w;
    w.count = a.workers;
    w.most_seconds = a.timeout_seconds;
    w.across = a.across;
    bool const shares = a.workers > 1 || (a.across != nullptr && a.across->count() > 1);
    w.threads_each = shares ? 1 : 0; // else one evaluation has the machine
    return w;
}

void check_writable(std::filesystem::path const& file) {
    if (!file.empty()) {
        io::atomic_file const tried(file);
    }
}
void write_text(std::filesystem::path const& file, std::string const& text) {
    if (!file.empty()) {
        io::atomic_file out(file);
        out.write(text);
        out.commit();
    }
}

std::string number(char const* format, double value) {
    std::array<char, 64> text{};
    std::snprintf(text.data(), text.size(), format, value);
    return text.data();
}

namespace {

index_t count_of(drive_result const& of, trial_status status) {
    return std::count_if(of.state.trials.begin(), of.state.trials.end(),
                         [&](trial const& t) { return t.result.status == status; });
}

} // namespace

std::string effort_text(drive_result const& of) {
    index_t const failed = count_of(of, trial_status::failed);
    index_t const late = count_of(of, trial_status::timed_out);
    std::string text = std::to_string(of.state.trials.size()) + " evaluations";
    if (failed > 0 || late > 0) {
        text += " (" + std::to_string(failed) + " failed, " + std::to_string(late) + " timed out)";
    }
    if (of.evaluated_here < std::ssize(of.state.trials)) {
        text += ", " + std::to_string(of.evaluated_here) + " of them in this run";
    }
    return text + "; " + number("%.1f s choosing, ", of.search_seconds) +
           number("%.1f s evaluating", of.evaluation_seconds);
}

json effort_json(search_identity const& identity, drive_result const& of) {
    return {{"purpose", identity.purpose},
            {"seed", identity.options.seed},
            {"batch_count", identity.batch},
            {"evaluations_count", of.state.trials.size()},
            {"failed_count", count_of(of, trial_status::failed)},
            {"timed_out_count", count_of(of, trial_status::timed_out)},
            {"search_seconds", of.search_seconds},
            {"evaluation_seconds", of.evaluation_seconds}};
}

} // namespace sofattn::dse
