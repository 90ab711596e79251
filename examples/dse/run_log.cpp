// SPDX-License-Identifier: MIT
#include "dse/run_log.hpp"

#include "attend/progress.hpp"
#include "dse/ranks.hpp"
#include "hw/json_file.hpp"
#include <sofattn/core/error.hpp>
#include <sofattn/io/file.hpp>

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <system_error>
#include <utility>

namespace sofattn::dse {

namespace {

constexpr char const* format_name = "sofattn-dse runs 1";
/// A run takes some hundred bytes.
constexpr std::uintmax_t max_bytes = std::uintmax_t{1} << 28;

} // namespace

run_log::run_log(std::filesystem::path file, json purpose)
    : file_(std::move(file)), purpose_(std::move(purpose)) {
    std::error_code code;
    if (file_.empty() || !std::filesystem::exists(std::filesystem::status(file_, code))) {
        return;
    }
    json found = hw::read_json<json>(file_, max_bytes);
    std::string const where = io::shown(file_) + ": ";
    json const wanted = {{"format", format_name}, {"purpose", purpose_}};
    json runs;
    if (found.is_object() && found.contains("runs")) {
        runs = found["runs"];
        found.erase("runs");
    }
    check_same(found, json::parse(wanted.dump()), where);
    if (!runs.is_object()) {
        throw error(where + "runs", runs.is_null() ? "missing" : "no object",
                    "an object of runs by name");
    }
    runs_ = std::move(runs);
}

void run_log::share(ranks const& all) {
    runs_ = json::parse(all.broadcast(all.is_root() ? runs_.dump() : std::string()));
}

void run_log::save() const {
    if (!file_.empty()) {
        json const content = {{"format", format_name}, {"purpose", purpose_}, {"runs", runs_}};
        io::atomic_file out(file_);
        out.write(content.dump() + "\n");
        out.commit();
    }
}

std::vector<json> run_log::figures(std::vector<named_run> const& runs, run_options const& options,
                                   std::string const& what) {
    std::vector<trial> missing;
    for (std::size_t i = 0; i < runs.size(); ++i) {
        if (!runs_.contains(runs[i].name)) {
            missing.push_back({std::ssize(missing), {static_cast<index_t>(i)}, {}});
        }
    }
    attend::progress_bar bar(options.show_progress);
    auto const started = std::chrono::steady_clock::now();
    double done = 0;
    evaluate_all(
        missing,
        [&](point const& p) {
            return evaluation{{}, runs[static_cast<std::size_t>(p.front())].make()};
        },
        options.workers,
        [&](trial const& t, evaluation e) {
            named_run const& run = runs[static_cast<std::size_t>(t.at.front())];
            if (e.result.status != trial_status::done) {
                throw error("run " + run.name, e.result.note, "possible");
            }
            runs_[run.name] = std::move(e.details);
            ++made_here_;
            save();
            ++done;
            double const each =
                std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count() /
                done;
            std::array<char, 64> text{};
            std::snprintf(text.data(), text.size(), ", %.0f s left",
                          each * (static_cast<double>(missing.size()) - done));
            bar.update(done / static_cast<double>(missing.size()), what + text.data());
        });
    std::vector<json> all;
    all.reserve(runs.size());
    for (named_run const& run : runs) {
        all.push_back(runs_.at(run.name));
    }
    return all;
}

} // namespace sofattn::dse
