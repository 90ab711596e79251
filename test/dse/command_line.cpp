// SPDX-License-Identifier: MIT
// sofattn-dse as its users run it.
#include "dse/state_lock.hpp"
#ifdef SOFATTN_HAS_LM
#include "dse/tiny_language.hpp"
#include "lm/method.hpp"
#endif
#include "support/tool.hpp"

#include <doctest/doctest.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstddef>
#include <string>
#include <thread>

using namespace sofattn::test;

namespace {

words small_search(words const& more = {}) {
    return words{"hardware",
                 "--evaluations",
                 "14",
                 "--batch",
                 "2",
                 "--vary",
                 "generation.array_columns_count=2,4,6,8",
                 "--vary",
                 "attention.exp_units_count=1,4,128",
                 "--vary",
                 "selection.cores_count=16,128"} +
           more;
}

/// The times a run took are not its result.
json without_times(json result) {
    result.erase("search_seconds");
    result.erase("evaluation_seconds");
    return result;
}

/// Runs the tool, kills it as soon as its state file has `trials` trials that are not pending.
void run_and_kill(words const& arguments, fs::path const& state, std::size_t trials) {
    pid_t const child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        words line{std::string(SOFATTN_BIN_DIR "/") + tool};
        line = line + arguments;
        std::vector<char*> pointers;
        for (auto& word : line) {
            pointers.push_back(word.data());
        }
        pointers.push_back(nullptr);
        execv(pointers.front(), pointers.data());
        _exit(127);
    }
    for (int wait = 0; wait < 3000; ++wait) {
        std::this_thread::sleep_for(std::chrono::milliseconds(2));
        if (!fs::exists(state)) {
            continue;
        }
        json const now = json::parse(read_bytes(state), nullptr, false);
        std::size_t told = 0;
        for (auto const& t : now.value("trials", json::array())) {
            told += t.at("status") == "pending" ? 0u : 1u;
        }
        if (told >= trials) {
            break;
        }
    }
    kill(child, SIGKILL);
    int status = 0;
    REQUIRE(waitpid(child, &status, 0) == child);
}

} // namespace

TEST_CASE("dse: a machine is found, explained, and read by sofattn-hw's files") {
    temporary_folder const folder;
    auto const file = [&](char const* name) { return (folder / name).string(); };
    auto const run =
        accepted(small_search({"--quiet", "--json", file("r.json"), "--html", file("r.html"),
                               "--machine-out", file("m.json"), "--workload-out", file("w.json")}));
    for (char const* part : {"times the throughput of sofa_28nm", "generation.array_columns_count",
                             "one_plus_one", "random", "kv_generation"}) {
        CHECK(holds(run.out, part));
    }
    json const result = json::parse(read_bytes(file("r.json")));
    CHECK(result.at("evaluations_count") == 14);
    double const base = result.at("base").at("effective_gops");
    double const found = result.at("found").at("effective_gops");
    CHECK(found > 1.3 * base);
    CHECK(result.at("found").at("square_millimetres").get<double>() <=
          result.at("base").at("square_millimetres").get<double>() * 1.000001);
    CHECK(holds(read_bytes(file("r.html")), "</html>"));
    CHECK(holds(read_bytes(file("r.html")), "Best machine so far"));
    // Its own output is a machine to begin with: nothing is left to gain.
    auto const again =
        accepted({"hardware", "--machine", file("m.json"), "--workload", file("w.json"), "--vary",
                  "generation.array_columns_count=" + result.at("found")
                                                          .at("settings")
                                                          .at("generation.array_columns_count")
                                                          .get<std::string>(),
                  "--no-baselines", "--quiet", "--json", file("again.json")});
    json const same = json::parse(read_bytes(file("again.json")));
    CHECK(same.at("base").at("effective_gops") == found);
    CHECK(same.at("found").at("effective_gops") == found);
}

TEST_CASE("dse: several objectives give a front") {
    temporary_folder const folder;
    auto const file = (folder / "r.json").string();
    auto const run =
        accepted(small_search({"--quiet", "--any-area", "--objective", "latency", "--objective",
                               "area", "--json", file, "--html", (folder / "r.html").string()}));
    json const front = json::parse(read_bytes(file)).at("methods").at("bayesian").at("front");
    REQUIRE(front.size() >= 3);
    for (auto const& a : front) {
        for (auto const& b : front) {
            CHECK_FALSE((a.at("seconds") < b.at("seconds") &&
                         a.at("square_millimetres") < b.at("square_millimetres")));
        }
    }
    CHECK(holds(read_bytes(folder / "r.html"), "Pareto fronts"));
}

TEST_CASE("dse: killed at any time and started again, it ends with the same result") {
    temporary_folder const folder;
    auto const whole = (folder / "whole.json").string();
    static_cast<void>(accepted(small_search({"--quiet", "--no-baselines", "--json", whole})));
    for (std::size_t const trials : {1u, 6u, 11u}) {
        CAPTURE(trials);
        auto const state = folder / ("state" + std::to_string(trials) + ".json");
        auto const resumed = (folder / "resumed.json").string();
        words const arguments = small_search({"--quiet", "--no-baselines", "--state",
                                              state.string(), "--json", resumed, "--workers", "2"});
        run_and_kill(arguments, state, trials);
        static_cast<void>(accepted(arguments));
        CHECK(without_times(json::parse(read_bytes(resumed))) ==
              without_times(json::parse(read_bytes(whole))));
    }
}

TEST_CASE("dse: a state file that another run has is refused, and that process named") {
    temporary_folder const folder;
    auto const state = folder / "state.json";
    words const arguments = small_search({"--quiet", "--no-baselines", "--state", state.string()});
    {
        sofattn::dse::state_lock const here(state);
        refused(folder, arguments,
                {"state.json", "in use by process " + std::to_string(getpid()), "another file"});
        CHECK_FALSE(fs::exists(state));
    }
    accepted(arguments);
    auto const before = read_bytes(state);
    sofattn::dse::state_lock const here(state);
    refused(folder, arguments, {"in use by process"});
    CHECK(read_bytes(state) == before);
}

TEST_CASE("dse: an evaluation that takes too long is recorded, and the search goes on") {
    temporary_folder const folder;
    auto const file = (folder / "r.json").string();
    // A million tokens take half a second each.
    static_cast<void>(accepted(
        {"hardware", "--workload", "one_million_causal", "--vary", "tile_keys_count=128,1024,64",
         "--vary", "pipeline.buffered_tiles_count=2,3", "--evaluations", "6", "--timeout", "0.001",
         "--quiet", "--no-baselines", "--json", file}));
    json const result = json::parse(read_bytes(file));
    CHECK(result.at("evaluations_count") == 6);
    CHECK(result.at("timed_out_count").get<int>() >= 1);
}

TEST_CASE("dse: recorded layers") {
    recorded_folder const recorded;
    auto const file = (recorded.folder / "r.json").string();
    for (char const* goal : {"operations", "printed", "balanced"}) {
        CAPTURE(goal);
        words const arguments{"layers",
                              recorded.folder.path().string(),
                              "--evaluations",
                              "12",
                              "--quiet",
                              "--objective",
                              goal,
                              "--json",
                              file,
                              "--html",
                              (recorded.folder / "r.html").string()};
        auto const run = accepted(arguments);
        CHECK(holds(run.out, "best uniform"));
        json const result = json::parse(read_bytes(file));
        json const& settings = result.at("settings");
        double const most = result.at("purpose").at("most_error").is_null()
                                ? 1e300
                                : result.at("purpose").at("most_error").get<double>();
        double best_of_all = 0;
        for (auto const& s : settings) {
            if (s.at("name") == "best of all") {
                best_of_all = s.at("operations");
            }
        }
        REQUIRE(best_of_all > 0);
        for (auto const& s : settings) {
            CHECK(s.at("layers").size() == 2);
            if (goal == std::string("operations")) {
                CHECK(s.at("output_error_relative").get<double>() <= most * (1 + 1e-12));
                CHECK(s.at("operations").get<double>() >= best_of_all * (1 - 1e-12));
            }
        }
    }
}

#ifdef SOFATTN_HAS_LM

TEST_CASE("dse: budgets of a language model are found, judged and read by sofattn-lm") {
    tiny_language const l;
    auto const run = accepted(l.search(
        {"--out", l.file("b.json"), "--json", l.file("r.json"), "--html", l.file("r.html")}));
    for (char const* part :
         {"uniform mass", "uniform output error", "found", "dense", "fewer keys", "one_plus_one"}) {
        CAPTURE(part);
        CHECK(holds(run.out, part));
    }
    CHECK(holds(read_bytes(l.file("r.html")), "Best weights so far"));
    json const result = json::parse(read_bytes(l.file("r.json")));
    json const& settings = result.at("settings");
    REQUIRE(settings.size() == 4);
    json const& found = settings[3];
    CHECK(found.at("name") == "found");
    CHECK(found.at("windows_kl_nats").size() == 2);
    double const kl = found.at("mean_kl_nats");
    for (int i = 0; i < 3; ++i) { // rivals at the same KL
        CHECK(settings[static_cast<std::size_t>(i)].at("mean_kl_nats").get<double>() <= kl);
        CHECK(settings[static_cast<std::size_t>(i)].at("mean_kl_nats").get<double>() > 0.8 * kl);
    }
    double const kept = found.at("kept_share");
    double const rival = settings[0].at("kept_share");
    CHECK(result.at("saved_share_of_uniform_mass") == doctest::Approx(1 - kept / rival));
    CHECK(result.at("methods").at("bayesian").size() == 12);

    auto const method = sofattn::lm::find_method("budgets:" + l.file("b.json"), 0);
    auto const name = sofattn::lm::model_name(l.model.folder.path());
    method.check({name, 2, 4});
    CHECK_THROWS_AS(method.check({name, 2, 8}), sofattn::error);
}

TEST_CASE("dse: a search of a model, killed and started again, ends with the same budgets") {
    tiny_language const l;
    static_cast<void>(accepted(l.search({"--no-baselines", "--out", l.file("whole.json")})));
    // Amid the search; and amid what is measured before it.
    for (std::size_t const trials : {0u, 3u}) {
        CAPTURE(trials);
        auto const state = l.model.folder / ("s" + std::to_string(trials) + ".json");
        words const arguments =
            l.search({"--no-baselines", "--state", state.string(), "--out", l.file("resumed.json"),
                      "--workers", "2", "--json", l.file("r.json")});
        run_and_kill(arguments, trials == 0 ? fs::path(state.string() + ".runs") : state, trials);
        static_cast<void>(accepted(arguments));
        CHECK(read_bytes(l.file("resumed.json")) == read_bytes(l.file("whole.json")));
    }
    // Of another search: refused at once, and left as it is.
    auto const state = l.file("s3.json");
    auto const before = read_bytes(state);
    refused(l.model.folder, l.search({"--state", state, "--seed", "2"}), {"s3.json", "seed"});
    refused(l.model.folder, l.search({"--state", state}, "0.01"), {"s3.json", "most_kl_nats"});
    CHECK(read_bytes(state) == before);
}

TEST_CASE("dse: a model, text or KL that cannot be is refused in one line") {
    tiny_language const l;
    refused(l.model.folder, l.search({}, "0.02", "9"), {"windows of 96 tokens", "7", "12"});
    refused(l.model.folder, l.search({}, "1e-9"), {"mean KL to reach", "1e-09", "at least"});
    refused(l.model.folder, l.search({}, "0"), {"--kl"});
    refused(l.model.folder, l.search({"--out", l.file("none/b.json")}), {"b.json", "not writable"});
    refused(l.model.folder, {"model", l.file("none"), l.text}, {"config.json"});
    refused(l.model.folder, {"model", l.model.folder.path().string(), l.file("none.txt")},
            {"none.txt"});
}
#endif

TEST_CASE("dse: searches are compared on a known function") {
    temporary_folder const folder;
    auto const file = (folder / "r.json").string();
    auto const run = accepted({"synthetic", "--seeds", "2", "--evaluations", "30", "--quiet",
                               "--json", file, "--html", (folder / "r.html").string()});
    CHECK(holds(run.out, "one_plus_one"));
    json const methods = json::parse(read_bytes(file)).at("methods");
    CHECK(methods.at("bayesian").at("mean_gaps").size() == 30);
    CHECK(methods.at("random").at("mean_gaps")[29] > 0.0);
}

TEST_CASE("dse: bad input is refused in one line") {
    temporary_folder const folder;
    recorded_folder const recorded;
    auto const state = folder / "state.json";
    write_bytes(state, "{}");
    auto const none = (folder / "none" / "r.json").string();
    refused(folder, {}, {"subcommand"});
    refused(folder, {"hardware", "--workers", "3"}, {"--workers is 3", "at most --batch, 1"});
    refused(folder, {"hardware", "--objective", "speed"}, {"\"speed\"", "latency, energy or area"});
    refused(folder, {"hardware", "--objective", "area", "--objective", "area"}, {"given twice"});
    refused(folder, {"hardware", "--vary", "a.b=1"}, {"\"a.b\""});
    refused(folder, {"hardware", "--machine", "abacus"}, {"\"abacus\""});
    refused(folder, {"hardware", "--state", state.string()}, {"state.json", "format is missing"});
    refused(folder, {"hardware", "--json", none}, {"r.json", "not writable"});
    refused(folder, {"hardware", "--max-area", "5", "--any-area"}, {"--any-area"});
    CHECK(read_bytes(state) == "{}");
    words const layers{"layers", recorded.folder.path().string()};
    refused(folder, layers + words{"--layers", "99"}, {"--layers and --model choose", "none"});
    refused(folder, layers + words{"--objective", "best"}, {"printed, balanced or operations"});
    refused(folder, layers + words{"--weights", "mine"}, {"sofa_inferred"});
    refused(folder, layers + words{"--policy", "recommended"}, {"keeps a ratio"});
    refused(folder, {"layers", (folder / "none").string()}, {"none"});
    refused(folder, {"synthetic", "--seeds", "0"}, {"--seeds"});
}
