// SPDX-License-Identifier: MIT
// sofattn-speed as its users run it.
#include "support/tool.hpp"

#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>
#include <string>

using namespace sofattn::test;

namespace {

/// What the benchmarks write, with one row per length.
std::string benchmark_file(std::string const& over_f32) {
    std::string rows;
    for (char const* tokens : {"512", "8192"}) {
        rows += std::string(rows.empty() ? "" : ",") +
                R"({"name": "attention/prefill/simd/data:random/method:keys_reused/tokens:)" +
                tokens +
                R"(/dim:128/kept_percent:5/threads:1/manual_time", "run_type": "iteration",
                "real_time": 10, "time_unit": "ms", "kept": 0.05, "error": 0.01, "index_ms": 1,
                "bf16_error": 0.004, "over_int8": 0.3,
                "over_bf16": 0.5, "over_f32": )" +
                over_f32 + "}";
    }
    return "{\"context\": {}, \"benchmarks\": [" + rows + "]}";
}

void write(fs::path const& path, std::string const& text) {
    std::ofstream(path, std::ios::binary) << text;
}

} // namespace

TEST_CASE("speed: files become tables and a picture; repetitions are taken by their median") {
    temporary_folder const folder;
    words files;
    for (char const* over : {"9", "1.25", "2"}) {
        files.push_back((folder / (std::string(over) + ".json")).string());
        write(files.back(), benchmark_file(over));
    }
    fs::path const svg = folder / "speed.svg";
    outcome const run = accepted(files + words{"--svg", svg.string()});
    CHECK(holds(run.out, "2.00"));
    CHECK_FALSE(holds(run.out, "9.00"));
    CHECK(holds(read_bytes(svg), "</svg>"));
    CHECK(holds(accepted({"--help"}).out, "--tokens"));
}

TEST_CASE("speed: bad input is refused in one line and leaves no picture") {
    temporary_folder const folder;
    std::string const good = (folder / "good.json").string();
    std::string const bad = (folder / "bad.json").string();
    std::string const svg = (folder / "speed.svg").string();
    write(good, benchmark_file("2"));
    write(bad, "{\"layers\": []}");
    refused(folder, {}, {"FILE"});
    refused(folder, {"/none", "--svg", svg}, {"/none", "missing"});
    refused(folder, {folder.path().string(), "--svg", svg}, {"a folder", "regular file"});
    refused(folder, {bad, "--svg", svg}, {"bad.json: benchmarks", "missing", "a list"});
    refused(folder, {good, bad, "--svg", svg}, {"bad.json: benchmarks"});
    refused(folder, {good, "--tokens", "4096", "--svg", svg},
            {"--tokens is 4096", "one of 512, 8192", "good.json"});
    refused(folder, {good, "--kept", "many", "--svg", svg}, {"--kept", "many"});
    refused(folder, {good, "--threads", "2"}, {"--threads is 2", "must be 1"});
    refused(folder, {good, "--svg", (folder / "none" / "s.svg").string()},
            {"s.svg", "not writable"});
}
