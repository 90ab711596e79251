// SPDX-License-Identifier: MIT
// sofattn-lm as its users run it.
#include "lm/tiny_model.hpp"
#include "support/tool.hpp"
#include "tune/sizes.hpp"

#include <doctest/doctest.h>

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

using namespace sofattn::test;
using sofattn::index_t;

namespace {

/// A model, a text, and where results go.
struct setting {
    tiny_model model;
    std::string folder = model.folder.path().string();
    std::string text = (model.folder / "text.txt").string();
    std::string result = (model.folder / "result.json").string();

    explicit setting(tiny_shape const& shape = {}) : model(shape) {
        std::string words;
        for (int i = 0; i < 40; ++i) {
            words += "word " + std::to_string(i * i) + "\n";
        }
        write_bytes(text, words);
    }
    [[nodiscard]] json read() const { return json::parse(read_bytes(result)); }
};

} // namespace

TEST_CASE("lm: perplexity shows dense and the usual methods side by side") {
    setting const s;
    outcome const run = accepted({"perplexity", s.folder, s.text, "--context", "64", "--first", "8",
                                  "--windows", "2", "--layers", "--json", s.result});
    for (char const* part : {"| dense ", "| error:0.004 ", "| error:0.01 ", "| mass:0.95 ",
                             "| mass:0.95/dropped ", "| pages ", "| pages/bf16 ", "| paper:0.1 ",
                             "2 of ", "windows of 64 tokens", "112 judged", "kept by layer"}) {
        CAPTURE(part);
        CHECK(holds(run.out, part));
    }
    json const report = s.read();
    CHECK(report.at("judged_tokens") == 112);
    CHECK(report.at("methods").size() == 8);
    for (auto const& m : report.at("methods")) {
        CHECK(m.at("perplexity") > 1.0);
        CHECK(m.at("kept_share") <= 1.0);
        CHECK(m.at("layer_kept_share").size() == 2);
        CHECK(m.at("attention_time_seconds") <= m.at("total_time_seconds"));
        CHECK(m.at("tokens_per_second") > 0.0);
    }
    CHECK(report.at("methods")[0].at("mean_kl_nats") == 0.0);
    CHECK(report.at("methods")[0].at("same_top_share") == 1.0);
}

TEST_CASE("lm: tokens of a file are taken as they are, and threads change nothing") {
    setting const s;
    std::vector<std::int32_t> ids;
    for (char const c : read_bytes(s.text)) {
        ids.push_back(c); // bytes are tokens here, and these are ASCII
    }
    auto const file = s.model.folder / "ids.npy";
    sofattn::io::write_npy(
        file, sofattn::view<std::int32_t const, sofattn::axis::key>(ids.data(), {std::ssize(ids)}));
    words const options{"--context",   "64",       "--first", "8",
                        "--attention", "mass:0.9", "--json",  s.result};
    auto const numbers = [&](std::string const& text, char const* threads) {
        static_cast<void>(
            accepted(words{"perplexity", s.folder, text} + options, {{}, {}, threads}));
        json report = s.read();
        json kept = json::array();
        for (auto const& m : report.at("methods")) {
            kept.push_back({m.at("perplexity"), m.at("mean_kl_nats"), m.at("kept_share")});
        }
        return kept;
    };
    auto const from_text = numbers(s.text, "1");
    CHECK(numbers(file.string(), "1") == from_text);
    CHECK(numbers(s.text, "3") == from_text);
}

TEST_CASE("lm: sparse methods are dense below the number of keys that is given") {
    setting const s;
    static_cast<void>(
        accepted({"perplexity", s.folder, s.text, "--context", "64", "--first", "8", "--attention",
                  "mass:0.5", "--dense-below", "65", "--json", s.result}));
    json const report = s.read();
    CHECK(report.at("methods")[1].at("kept_share") == 1.0);
    CHECK(report.at("methods")[1].at("perplexity") == report.at("methods")[0].at("perplexity"));
}

TEST_CASE(
    "lm: dense attention takes the sizes that sofattn-tune has written, of this machine only") {
    namespace tune = sofattn::tune;
    setting const s;
    auto const file = s.model.folder / "tiles.json";
    words const judge{"perplexity", s.folder,      "--context", "64",     "--first",
                      "8",          "--windows",   "1",         s.text,   "--attention",
                      "dense/int8", "--attention", "mass:0.9",  "--json", s.result};
    words const tiled{"--tiles", file.string(), "--threads", "2"};
    refused(s.model.folder, judge + tiled, {"tiles.json", "not there", "sofattn-tune"});
    tune::tuned_sizes all{tune::this_machine(8, 2), {}, {}};
    all.found.int8 = {96, 700};
    all.found.decode = {64};
    tune::write_sizes(file, all);
    static_cast<void>(accepted(judge));
    json const usual = s.read().at("methods");
    static_cast<void>(accepted(judge + tiled));
    json const found = s.read().at("methods");
    CHECK(found[0].at("description") == usual[0].at("description"));
    CHECK(found[1].at("description") ==
          "all keys, int8 products, tiles of 96 keys, blocks of 700 rows");
    CHECK(found[2].at("mean_kl_nats") == usual[2].at("mean_kl_nats"));
    words const write{"generate", s.folder, "abc", "--tokens", "9"};
    CHECK(accepted(write + tiled).out == accepted(write).out);
    refused(s.model.folder, judge + words{"--tiles", file.string(), "--threads", "3"},
            {"tiles.json: threads is 2, must be 3"});
    all.of = tune::this_machine(128, 2);
    tune::write_sizes(file, all);
    refused(s.model.folder, write + tiled, {"tiles.json: dim is 128, must be 8"});
}

TEST_CASE("lm: generate goes on from a prompt, and says so in JSON") {
    setting const s;
    words const given{"generate", s.folder, "abc", "--tokens", "9", "--json", s.result};
    outcome const run = accepted(given);
    json const report = s.read();
    CHECK(report.at("prompt_tokens") == 4);
    CHECK(report.at("tokens").size() <= 9);
    std::string expected;
    for (auto const& id : report.at("tokens")) {
        int const token = id;
        expected += token < 256 ? std::string(1, static_cast<char>(token)) : std::string("<s>");
    }
    CHECK(run.out == expected + "\n");
    CHECK(accepted(given).out == run.out);
    CHECK(accepted(given + words{"--keep", "100"}).out == run.out);
    CHECK(accepted(given + words{"--attention", "mass:1"}).out.size() > 1);
    static_cast<void>(accepted(given + words{"--no-bos"}));
    CHECK(s.read().at("prompt_tokens") == 3);

    auto const drawn = [&](char const* seed) {
        return accepted({"generate", s.folder, "abc", "--temperature", "2", "--seed", seed}).out;
    };
    CHECK(drawn("1") == drawn("1"));
    CHECK(drawn("1") != drawn("2"));
}

TEST_CASE("lm: what record writes, attend reads; a table of budgets must fit the model") {
    setting const s;
    fs::path const folder = s.model.folder / "recorded";
    words const given{"record",    s.folder, s.text,   folder.string(),
                      "--context", "32",     "--skip", "5"};
    CHECK(holds(accepted(given).out, "32 tokens recorded in "));
    auto const data = sofattn::io::read_npy(folder / "L01_q.npy");
    CHECK(data.shape() == std::vector<index_t>{4, 32, 8});
    CHECK(json::parse(read_bytes(folder / "manifest.json")).at("model") ==
          s.model.folder.path().filename().string());
    refused(s.model.folder, given, {"manifest.json", "there"});
    refused(s.model.folder,
            {"record", s.folder, s.text, (s.model.folder / "b").string(), "--context", "9999"},
            {"tokens", "at least --skip and --context"});
    refused(s.model.folder,
            {"record", s.folder, s.text, (s.model.folder / "b").string(), "--layers", "7",
             "--context", "32"},
            {"--layers", "7", "from 0 to 1"});

    auto const budgets = (s.model.folder / "budgets.json").string();
    auto const write_budgets = [&](std::string const& model, int heads, int layers) {
        json table = {{"format", "sofattn-budgets-1"},
                      {"policy", "rotated_int8/adaptive/sufa_reusing/segment_means"},
                      {"layers", json::array()}};
        for (int l = 0; l < layers; ++l) {
            json list = json::array();
            for (int h = 0; h < heads; ++h) {
                list.push_back({{"query_head", h}, {"output_error_spreads", 0.1}});
            }
            table["layers"].push_back({{"model", model}, {"layer", l}, {"heads", list}});
        }
        write_bytes(budgets, table.dump());
    };
    std::string const name = s.model.folder.path().filename().string();
    words const judge{"perplexity", s.folder,  s.text, "--context", "64",   "--windows",
                      "1",          "--first", "8",    "--budgets", budgets};
    write_budgets(name, 4, 2);
    auto const run = accepted(judge + words{"--attention", "error:0.1", "--json", s.result});
    CHECK(holds(run.out, "| budgets:" + budgets));
    json const methods = s.read().at("methods");
    REQUIRE(methods.size() == 3);
    CHECK(methods[1].at("mean_kl_nats") == methods[2].at("mean_kl_nats"));
    write_budgets(name, 1, 1);
    refused(s.model.folder, judge, {"budgets.json", "layer 0, query head 1", "missing"});
    refused(s.model.folder, {"generate", s.folder, "a", "--attention", "budgets:" + budgets},
            {"budgets.json", "query head 1"});
    write_budgets("llama", 4, 2);
    refused(s.model.folder, judge, {"budgets.json", "model", "\"llama\"", name});
    write_budgets(name, 4, 3);
    refused(s.model.folder, judge, {"budgets.json", "layer is 2", "from 0 to", "1"});
    write_budgets(name, 6, 2);
    refused(s.model.folder, judge, {"budgets.json", "layer 0, query head is 4", "3"});
}

TEST_CASE("lm: tasks are judged, or written as tokens") {
    setting const s;
    outcome const run = accepted({"tasks", s.folder, "--context", "900", "--samples", "1",
                                  "--attention", "mass:0.9", "--json", s.result});
    CHECK(holds(run.out, "| needle "));
    CHECK(holds(run.out, "| words "));
    CHECK(s.read().at("tasks").size() == 6);
    fs::path const folder = s.model.folder / "samples";
    words const given{"tasks", s.folder, "--context", "900",   "--samples",
                      "2",     "--task", "variables", "--out", folder.string()};
    CHECK(holds(accepted(given).out, "2 samples in "));
    json const list = json::parse(read_bytes(folder / "tasks.json"));
    REQUIRE(list.size() == 2);
    auto const tokens = sofattn::io::read_npy(folder / list[1].at("file"));
    CHECK(tokens.size() == list[1].at("tokens"));
    refused(s.model.folder, given, {"tasks.json", "there"});
    refused(s.model.folder, {"tasks", s.folder, "--task", "sums"}, {"task", "\"sums\"", "needle"});
    refused(s.model.folder, {"tasks", s.folder, "--context", "50"},
            {"context of task needle", "must be at least"});
    refused(s.model.folder, {"tasks", s.folder, "--context", "5000"}, {"--context", "4096"});
}

TEST_CASE("lm: bad input is refused in one line and leaves no file") {
    setting const s;
    auto const judge = [&](words const& options, words const& parts) {
        refused(s.model.folder,
                words{"perplexity", s.folder, s.text, "--json", s.result, "--context", "64",
                      "--first", "8"} +
                    options,
                parts);
    };
    judge({"--attention", "mass:2"}, {"attention method", "mass:2", "must be one of"});
    judge({"--attention", "paper:0.001", "--attention", "nothing"}, {"\"nothing\""});
    judge({"--threads", "0"}, {"--threads", "0"});
    judge({"--windows", "-1"}, {"--windows"});
    refused(s.model.folder, {}, {"subcommand"});
    refused(s.model.folder, {"perplexity", s.folder}, {"TEXT"});
    refused(s.model.folder, {"perplexity", s.folder, "/none"}, {"/none", "missing"});
    refused(s.model.folder, {"perplexity", "/none", s.text}, {"/none/config.json", "missing"});
    refused(s.model.folder, {"perplexity", s.folder, s.text, "--context", "5000"},
            {"--context", "5000", "4096"});
    refused(s.model.folder, {"perplexity", s.folder, s.text, "--context", "64", "--first", "64"},
            {"64 tokens", "--first"});
    refused(s.model.folder,
            {"perplexity", s.folder, s.text, "--json", (s.model.folder / "no" / "r.json").string()},
            {"r.json", "not writable"});
    refused(s.model.folder, {"generate", s.folder, "", "--no-bos"}, {"prompt", "empty"});
    refused(s.model.folder, {"generate", s.folder, "a", "--temperature", "-1"}, {"--temperature"});
    refused(s.model.folder, {"generate", s.folder, "a", "--keep", "0"}, {"--keep"});
    refused(s.model.folder, {"generate", s.folder, "a", "--attention", "best"}, {"\"best\""});

    std::vector<std::int32_t> const ids(100, 258);
    auto const file = s.model.folder / "ids.npy";
    sofattn::io::write_npy(
        file, sofattn::view<std::int32_t const, sofattn::axis::key>(ids.data(), {100}));
    refused(s.model.folder,
            {"perplexity", s.folder, file.string(), "--context", "64", "--first", "8"},
            {"token", "258", "vocabulary"});
    sofattn::io::write_npy(
        file, sofattn::view<std::int32_t const, sofattn::axis::key, sofattn::axis::dim>(ids.data(),
                                                                                        {50, 2}));
    refused(s.model.folder, {"perplexity", s.folder, file.string()}, {"(50, 2)", "list of tokens"});

    write_bytes(s.model.folder / "tokenizer.json", "{}");
    refused(s.model.folder, {"generate", s.folder, "a"}, {"tokenizer.json", "model", "missing"});
}

TEST_CASE("lm: a tokenizer with more tokens than the model is refused") {
    tiny_shape shape;
    shape.vocabulary = 257;
    setting s(shape);
    json config = s.model.config();
    config.erase("eos_token_id");
    write_bytes(s.model.folder / "config.json", config.dump());
    refused(s.model.folder, {"generate", s.folder, "a"},
            {"tokenizer.json", "largest id is 257", "257"});
}

TEST_CASE("lm: help teaches") {
    std::string const help = accepted({"--help"}).out;
    CHECK(holds(help, "sofattn-lm perplexity MODEL"));
    CHECK(holds(help, "Exit codes"));
    CHECK(holds(accepted({"perplexity", "--help"}).out, "--windows"));
    CHECK(holds(accepted({"generate", "--help"}).out, "--temperature"));
}
