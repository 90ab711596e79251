// SPDX-License-Identifier: MIT
// sofattn-paper: tables and figures of the SOFA paper computed again, as one report.
#include "attend/command.hpp"
#include "attend/progress.hpp"
#include "paper/document.hpp"
#include "paper/part.hpp"
#include "paper/tools.hpp"
#include <sofattn/core/error.hpp>
#include <sofattn/io/file.hpp>
#include <sofattn/io/svg.hpp>

#include <CLI/CLI.hpp>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <string>
#include <system_error>
#include <vector>

namespace sofattn::paper {
namespace {

namespace fs = std::filesystem;

struct arguments {
    std::vector<std::string> only;
    fs::path sample = "examples/data";
    fs::path recorded;
    fs::path programs;
    fs::path results = "build/paper";
    fs::path markdown;
    fs::path html;
    std::string stamp;
    double most_seconds = 3600; // minutes on an idle machine
    bool quiet = false;
    bool list = false;
};

constexpr char const* introduction =
    "Computes the tables and figures of the SOFA paper (MICRO 2024) that can be, with the "
    "programs\n"
    "beside this one, and writes the paper's values, ours, deviations and reasons as Markdown and "
    "HTML.\n";

constexpr char const* reading =
    "\nThe same input gives the same Markdown, byte for byte. A part that fails is in the report "
    "with its\n"
    "fault, the others go on. Files appear when all is computed, or not at all.\n"
    "\n"
    "Examples:\n"
    "  sofattn-paper --markdown bench/PAPER.md --html build/paper.html\n"
    "  sofattn-paper --only fig15 --only fig7\n"
    "  sofattn-paper --recorded ../shared/data/qkv --html page.html\n"
    "\n"
    "Exit codes: 0 done, 1 a part could not be computed, 2 bad input (one line on standard error).";

void declare(CLI::App& app, arguments& a) {
    app.add_option("--only", a.only, "This part only; repeatable (--list names them)")
        ->allow_extra_args(false)
        ->take_all();
    app.add_option("--sample", a.sample, "Folder of the two sample layers");
    app.add_option("--recorded", a.recorded,
                   "Folder of more recorded layers, for statistics of rows (default: the sample)");
    app.add_option("--tools", a.programs, "Folder of the other programs (default: this one's)");
    app.add_option("--results", a.results, "Folder for the JSON files of the other programs");
    app.add_option("--markdown", a.markdown, "Write the report to this file");
    app.add_option("--html", a.html, "Write the report, with figures, to this page");
    app.add_option("--stamp", a.stamp, "Date and machine, to stand in the report");
    app.add_option("--timeout", a.most_seconds, "Seconds that one program may take")
        ->check(CLI::Range(0.1, 1e6));
    app.add_flag("--quiet", a.quiet, "No line per part");
    app.add_flag("--list", a.list, "Names of the parts, then stop");
}

std::vector<part> chosen_parts(arguments const& a) {
    std::vector<part> chosen;
    std::string names;
    std::vector<std::string> unknown = a.only;
    for (part& p : all_parts()) {
        names += (names.empty() ? "" : ", ") + p.name;
        std::erase(unknown, p.name);
        if (a.only.empty() || std::ranges::find(a.only, p.name) != a.only.end()) {
            chosen.push_back(std::move(p));
        }
    }
    if (!unknown.empty()) {
        throw error("--only", io::quoted(unknown.front()), "one of " + names);
    }
    return chosen;
}

fs::path own_folder() {
    std::error_code code;
    fs::path const self = fs::read_symlink("/proc/self/exe", code);
    return code ? fs::path(".") : self.parent_path();
}

/// Tried before the work, but not held during it: whoever stops the run leaves no file.
void require_writable(fs::path const& file) {
    if (!file.empty()) {
        io::atomic_file const tried(file);
    }
}
void write(fs::path const& file, std::string const& content) {
    if (!file.empty()) {
        io::atomic_file out(file);
        out.write(content);
        out.commit();
    }
}

section compute(part const& p, inputs const& in, tools& run) {
    section s;
    s.name = p.name;
    s.title = p.title;
    s.data = p.data(in);
    run.forget();
    try {
        s.found = p.compute(in, run);
    } catch (std::exception const& e) { // of a part: the others do not depend on it
        s.fault = e.what();
    }
    s.commands = run.commands();
    return s;
}

std::string summary(section const& s) {
    if (!s.fault.empty()) {
        return "NOT COMPUTED: " + s.fault;
    }
    std::string text;
    for (auto const& [name, count] : counts_of({.sections = {s}})) {
        if (count > 0) {
            text += (text.empty() ? "" : ", ") + std::to_string(count) + " " + name;
        }
    }
    return text;
}

int run(CLI::App const&, arguments const& a) {
    std::vector<part> const parts = chosen_parts(a);
    if (a.list) {
        for (part const& p : parts) {
            std::printf("%-11s %s\n", p.name.c_str(), p.title.c_str());
        }
        return 0;
    }
    inputs const in{a.sample, a.recorded.empty() ? a.sample : a.recorded};
    for (fs::path const& folder : {in.sample, in.recorded}) {
        if (std::error_code code; !fs::is_directory(folder, code)) {
            throw error(io::shown(folder), "missing", "a folder of recorded layers");
        }
    }
    require_writable(a.markdown);
    require_writable(a.html);

    tools programs(a.programs.empty() ? own_folder() : a.programs, a.results, a.most_seconds);
    report whole;
    whole.stamp = a.stamp;
    whole.is_whole = a.only.empty();
    whole.recorded_note =
        in.recorded == in.sample
            ? "Recorded data: the sample of the repository alone, two layers."
            : "Recorded data: the sample of the repository, two layers, and for statistics of "
              "rows all layers of " +
                  io::shown(in.recorded) + ", which is not in the repository.";
    bool is_complete = true;
    using clock = std::chrono::steady_clock;
    auto const start = clock::now();
    auto const seconds_since = [](clock::time_point from) {
        return io::formatted("%6.1f s  ",
                             std::chrono::duration<double>(clock::now() - from).count());
    };
    attend::progress_bar bar(!a.quiet);
    for (std::size_t n = 0; n < parts.size(); ++n) {
        bar.update(static_cast<double>(n) / static_cast<double>(parts.size()), parts[n].name);
        auto const begun = clock::now();
        whole.sections.push_back(compute(parts[n], in, programs));
        section const& s = whole.sections.back();
        is_complete = is_complete && s.fault.empty();
        bar.clear();
        if (!a.quiet || !s.fault.empty()) {
            std::printf("%s%-11s %s\n", seconds_since(begun).c_str(), s.name.c_str(),
                        summary(s).c_str());
            std::fflush(stdout);
        }
    }
    write(a.markdown, to_markdown(whole));
    write(a.html, to_html(whole));
    std::string written;
    for (fs::path const& file : {a.markdown, a.html}) {
        written += file.empty() ? "" : (written.empty() ? "; " : ", ") + io::shown(file);
    }
    std::printf("%sin all%s\n", seconds_since(start).c_str(), written.c_str());
    return is_complete ? 0 : 1;
}

} // namespace
} // namespace sofattn::paper

int main(int argc, char** argv) {
    using namespace sofattn::paper;
    return sofattn::attend::command<arguments>{"sofattn-paper", introduction, reading, declare,
                                               run}(argc, argv);
}
