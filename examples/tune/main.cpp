// SPDX-License-Identifier: MIT
// sofattn-tune: finds the sizes of tiles that take the least time on this processor.
#include "attend/command.hpp"
#include "attend/progress.hpp"
#include "tune/kernels.hpp"
#include "tune/sizes.hpp"
#include "tune/tuner.hpp"
#include <sofattn/core/types.hpp>
#include <sofattn/io/file.hpp>
#include <sofattn/io/table.hpp>

#include <CLI/CLI.hpp>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace sofattn::tune {
namespace {

constexpr char const* introduction =
    "Finds the sizes of tiles with which dense attention and decode take the least time on this\n"
    "processor, and keeps them in a file.\n";

constexpr char const* reading =
    "\nTime is that of one thread's processor, measured in turns with the library's defaults. "
    "Sizes\n"
    "are taken only where they are faster at 99 % confidence when measured anew; else the "
    "defaults\n"
    "stay. Results are the same but for rounding, whatever the sizes.\n"
    "\n"
    "Examples:\n"
    "  sofattn-tune                       under a minute; the second time from the file\n"
    "  sofattn-tune --again --dim 64      for heads of 64 dimensions\n"
    "  sofattn-tune --out tiles.json\n"
    "\n"
    "Exit codes: 0 done, 2 bad input (one line on standard error).";

struct arguments {
    std::filesystem::path out;
    bool again = false;
    index_t dim = 128;
    index_t threads = std::max<index_t>(1, std::thread::hardware_concurrency());
    index_t evaluations = tune_options{}.evaluations;
    double seconds = 40;
    std::uint64_t seed = 1;
    bool quiet = false;
};

void declare(CLI::App& app, arguments& a) {
    app.add_option("--out", a.out,
                   "File of sizes (default: sofattn/tiles.json in $XDG_CACHE_HOME or ~/.cache)");
    app.add_flag("--again", a.again, "Measure even if the file is there, and replace it");
    app.add_option("--dim", a.dim, "Dimensions of a head")
        ->check(CLI::Range(index_t{1}, max_head_dim))
        ->capture_default_str();
    app.add_option("--threads", a.threads, "That a step of decode is cut for; time is that of one")
        ->check(CLI::Range(index_t{1}, index_t{4096}))
        ->capture_default_str();
    app.add_option("--evaluations", a.evaluations, "Sizes to try, per kernel, at most")
        ->check(CLI::Range(index_t{1}, index_t{10000}))
        ->capture_default_str();
    app.add_option("--seconds", a.seconds, "Of searching, in all; verdicts take some more")
        ->check(CLI::Range(0.1, 3600.0))
        ->capture_default_str();
    app.add_option("--seed", a.seed, "Another one, another search");
    app.add_flag("--quiet", a.quiet, "No progress bar");
}

std::string number(char const* format, double value) {
    std::array<char, 64> text{};
    std::snprintf(text.data(), text.size(), format, value);
    return text.data();
}

std::string range_text(dse::time_ratio const& r) {
    return number("%.3f", r.median) + " (" + number("%.3f", r.lowest) + " to " +
           number("%.3f", r.highest) + ")";
}

io::table sizes_table(sizes const& s) {
    io::table t({"kernel", "keys of a tile or part", "rows of a block"});
    auto const add = [&](char const* name, sufa::block_tiles tiles) {
        t.add({name, std::to_string(tiles.keys), std::to_string(tiles.rows)});
    };
    add("dense_f32", s.f32);
    add("dense_bf16", s.bf16);
    add("dense_int8", s.int8);
    t.add({"dense_decode", std::to_string(s.decode.keys_least), "-"});
    return t;
}

tuned_sizes measure(arguments const& a, machine of) {
    tuned_sizes all{std::move(of), {}, {}};
    auto const list = kernels(a.dim, a.threads);
    attend::progress_bar bar(!a.quiet);
    for (std::size_t k = 0; k < list.size(); ++k) {
        tune_options options;
        options.seed = a.seed;
        options.evaluations = a.evaluations;
        options.most_seconds = a.seconds / static_cast<double>(list.size());
        options.progress = [&](double share) {
            bar.update((static_cast<double>(k) + share) / static_cast<double>(list.size()),
                       list[k].of.name);
        };
        tuned const found = tune(list[k].of, options, machine_clocks());
        list[k].set(found.best, all.found);
        all.kernels.push_back(
            {list[k].of.name, found.is_default, found.ratio, found.noise, found.evaluations});
    }
    return all;
}

int run(CLI::App const&, arguments const& a) {
    std::filesystem::path const file = a.out.empty() ? default_file() : a.out;
    machine const here = this_machine(a.dim, a.threads);
    std::string const head = here.processor + "; " + here.instructions + "; heads of " +
                             std::to_string(here.dim) + " dimensions; " +
                             std::to_string(here.threads) + " threads\n";
    if (!a.again) {
        if (auto const known = read_sizes(file, here)) {
            std::fputs((head + "from " + io::shown(file) + " (--again measures anew)\n\n" +
                        sizes_table(known->found).text())
                           .c_str(),
                       stdout);
            return 0;
        }
    }
    make_folder_of(file); // what cannot be written is known before any work
    tuned_sizes const all = measure(a, here);
    write_sizes(file, all);

    io::table t(
        {"kernel", "time over the default's", "the default's over itself", "evaluations", "taken"});
    bool any = false;
    for (measured const& m : all.kernels) {
        t.add({m.kernel, m.is_default ? "-" : range_text(m.ratio), range_text(m.noise),
               std::to_string(m.evaluations), m.is_default ? "default" : "found"});
        any = any || !m.is_default;
    }
    std::fputs((head + "\n" + t.text() + "\n" + sizes_table(all.found).text() + "\n" +
                (any ? "" : "Nothing is faster than the defaults beyond noise: they stay.\n") +
                "written to " + io::shown(file) + "\n")
                   .c_str(),
               stdout);
    return 0;
}

} // namespace
} // namespace sofattn::tune

int main(int argc, char** argv) {
    using namespace sofattn::tune;
    return sofattn::attend::command<arguments>{"sofattn-tune", introduction, reading, declare,
                                               run}(argc, argv);
}
