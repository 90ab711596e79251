// SPDX-License-Identifier: MIT
// sofattn-speed: a picture of what sparse prefill gains, from the benchmarks' JSON.
#include "attend/command.hpp"
#include "speed/speed.hpp"
#include <sofattn/io/file.hpp>

#include <CLI/CLI.hpp>

#include <cstdio>
#include <filesystem>
#include <string>
#include <vector>

namespace sofattn::speed {
namespace {

struct arguments {
    std::vector<std::filesystem::path> files;
    choice of;
    std::filesystem::path svg;
};

constexpr char const* introduction =
    "Tables, and a picture, of how many times as fast as dense attention sparse prefill is, over "
    "the\n"
    "error of its output and over the context length. Reads what --benchmark_out of the "
    "benchmarks\n"
    "(attention/prefill) wrote; several files are taken as one, repetitions by their median.\n";

constexpr char const* reading =
    "\nExamples:\n"
    "  ./dev bench attention --benchmark_filter=attention/prefill --benchmark_out=prefill.json\n"
    "  sofattn-speed prefill.json --svg speed.svg\n"
    "  sofattn-speed prefill.json --tokens 2048 --lost 10 --threads 2 --methods pages_bf16\n"
    "\n"
    "Exit codes: 0 done, 2 bad input (one line on standard error).";

void declare(CLI::App& app, arguments& a) {
    app.add_option("FILE", a.files, "JSON of Google Benchmark, one file or more")->required();
    app.add_option("--methods", a.of.methods,
                   "keys_reused, keys_computed (keys chosen one by one), pages_f32, pages_bf16")
        ->delimiter(',')
        ->capture_default_str();
    app.add_option("--dim", a.of.dim, "Head dimension")->capture_default_str();
    app.add_option("--threads", a.of.threads, "Threads")->capture_default_str();
    app.add_option("--tokens", a.of.tokens, "Length, for the curves over errors")
        ->capture_default_str();
    app.add_option("--kept", a.of.kept_percent, "Percent of keys, for curves over lengths")
        ->capture_default_str();
    app.add_option("--lost", a.of.lost_permille,
                   "Per mille of the mass lost with pages, for curves over lengths")
        ->capture_default_str();
    app.add_option("--svg", a.svg, "Draw the picture into this file");
}

int run(CLI::App const&, arguments const& a) {
    curves const all = curves_of(read(a.files), a.of);
    if (!a.svg.empty()) {
        io::atomic_file out(a.svg);
        out.write(to_svg(all));
        out.commit();
    }
    std::fputs(to_text(all).c_str(), stdout);
    return 0;
}

} // namespace
} // namespace sofattn::speed

int main(int argc, char** argv) {
    using namespace sofattn::speed;
    return sofattn::attend::command<arguments>{"sofattn-speed", introduction, reading, declare,
                                               run}(argc, argv);
}
