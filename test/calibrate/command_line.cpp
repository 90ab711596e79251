// SPDX-License-Identifier: MIT
// sofattn-calibrate as its users run it, and its table as sofattn-attend reads it.
#include "attend/budgets.hpp"
#include "support/tool.hpp"
#include <sofattn/core/error.hpp>

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include <filesystem>
#include <string>

using namespace sofattn::test;

TEST_CASE("calibrate: writes a budget for every head of every layer, and attend reads it") {
    recorded_folder const recorded;
    fs::path const table = recorded.folder / "budgets.json";
    outcome const run = accepted(recorded.given({"--kept", "1", "--out", table.string()}));
    CHECK(holds(run.out, "| tiny 3 "));
    CHECK(holds(run.out, "| all "));
    json const content = json::parse(read_bytes(table));
    CHECK(content.at("format") == "sofattn-budgets-1");
    CHECK(content.at("policy") == "rotated_int8/adaptive/sufa_reusing/segment_means");
    CHECK(content.at("layers").size() == 2);
    for (auto const& layer : content.at("layers")) {
        CHECK(layer.at("heads").size() == 4);
        for (auto const& head : layer.at("heads")) {
            CHECK(head.at("output_error_spreads") > 0.0);
        }
    }
    auto const read = sofattn::attend::read_budgets(table);
    CHECK(sofattn::attend::to_json_text(read).size() > 100);
    sofattn::attend::layer_info info;
    info.model = "tiny";
    info.layer = 5;
    info.q_heads = {0, 1, 2, 3};
    auto const budgets = sofattn::attend::budgets_of(read, table, info, {});
    CHECK(budgets.size() == 4);
    CHECK(*budgets[2].output_error == read.layers[1].heads[2].output_error_spreads);
    info.layer = 4;
    CHECK_THROWS_AS(static_cast<void>(sofattn::attend::budgets_of(read, table, info, {})),
                    sofattn::error);
}

TEST_CASE("calibrate: bad input is refused in one line and leaves no file") {
    recorded_folder const recorded;
    std::string const out = (recorded.folder / "budgets.json").string();
    auto const says = [&](words const& options, words const& parts) {
        refused(recorded.folder, recorded.given(options), parts);
    };
    says({"--out", out}, {"--kept or --error", "missing"});
    says({"--kept", "0.1"}, {"--out"});
    says({"--kept", "0", "--out", out}, {"--kept", "\"0\"", "in (0, 1]"});
    says({"--kept", "nan", "--out", out}, {"--kept", "in (0, 1]"});
    says({"--error", "-1", "--out", out}, {"--error", "above 0"});
    says({"--kept", "0.1", "--error", "0.1", "--out", out}, {"--kept", "--error"});
    says({"--kept", "0.001", "--out", out}, {"--kept", "0.001", "within reach"});
    says({"--kept", "0.1", "--layers", "7", "--out", out}, {"--layers", "7"});
    says({"--kept", "0.1", "--policy", "paper", "--out", out}, {"--policy", "adaptive"});
    says({"--kept", "0.1", "--policy", "nothing", "--out", out}, {"policy", "nothing"});
    says({"--kept", "0.1", "--out", (recorded.folder / "none" / "b.json").string()},
         {"b.json", "not writable"});
    refused(recorded.folder, {"--kept", "0.1", "--out", out}, {"FOLDER"});
    refused(recorded.folder, {"/none", "--kept", "0.1", "--out", out}, {"/none", "missing"});
}

TEST_CASE("calibrate: a table that is none is told from one") {
    temporary_folder const folder;
    fs::path const file = folder / "b.json";
    auto const says = [&](std::string const& text, words const& parts) {
        write_bytes(file, text);
        try {
            static_cast<void>(sofattn::attend::read_budgets(file));
            FAIL("read ", text);
        } catch (sofattn::error const& e) {
            for (auto const& part : words{file.string()} + parts) {
                CAPTURE(part);
                CHECK(holds(e.what(), part));
            }
        }
    };
    says("", {"not JSON"});
    says("[]", {"format", "missing", "sofattn-budgets-1"});
    says(R"({"format": "other"})", {"format", "other", "sofattn-budgets-1"});
    says(R"({"format": "sofattn-budgets-1", "policy": "p"})", {"layers", "missing"});
    says(R"({"format": "sofattn-budgets-1", "policy": "p", "layers": [{"model": "m"}]})",
         {"layers[0]: layer", "missing"});
    says(R"({"format": "sofattn-budgets-1", "policy": "p", "layers":
         [{"model": "m", "layer": 1, "heads": [{"query_head": 0, "output_error_spreads": 0}]}]})",
         {"layers[0].heads[0]: output_error_spreads", "0", "above 0"});
    says(R"({"format": "sofattn-budgets-1", "policy": "p", "layers":
         [{"model": "m", "layer": 1, "heads": [{"query_head": "x"}]}]})",
         {"heads[0]: query_head", "x", "whole number"});
}

TEST_CASE("calibrate: help teaches") {
    std::string const help = accepted({"--help"}).out;
    CHECK(holds(help, "sofattn-calibrate DIR --kept 0.1 --out budgets.json"));
    CHECK(holds(help, "Exit codes"));
}
