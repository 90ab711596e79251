// SPDX-License-Identifier: MIT
// sofattn-dse in several ranks, as mpirun starts them.
#ifdef SOFATTN_HAS_LM
#include "dse/tiny_language.hpp"
#endif
#include "support/tool.hpp"

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include <string>
#include <utility>

using namespace sofattn::test;

namespace {

words search(words const& more) {
    return words{"hardware",
                 "--quiet",
                 "--no-baselines",
                 "--evaluations",
                 "20",
                 "--batch",
                 "4",
                 "--vary",
                 "generation.array_columns_count=2,4,6,8",
                 "--vary",
                 "attention.exp_units_count=1,4,16,128",
                 "--vary",
                 "selection.cores_count=16,128"} +
           more;
}

#ifdef SOFATTN_HAS_MPI

/// More ranks than processors, and by whoever runs the tests: Open MPI wants to be told that it may.
surroundings ranks_of(char const* count) {
    surroundings where;
    where.launcher = {"env",
                      "OMPI_ALLOW_RUN_AS_ROOT=1",
                      "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1",
                      "OMPI_MCA_rmaps_base_oversubscribe=1",
                      SOFATTN_MPIEXEC,
                      "-n",
                      count};
    return where;
}

/// The times a run took are not its result.
json result_in(fs::path const& file) {
    json result = json::parse(read_bytes(file));
    result.erase("search_seconds");
    result.erase("evaluation_seconds");
    return result;
}

std::size_t lines_with(std::string const& text, std::string const& part) {
    std::size_t count = 0;
    for (auto at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) {
        ++count;
    }
    return count;
}

#endif

} // namespace

#ifdef SOFATTN_HAS_MPI

TEST_CASE("dse.ranks: one, two and four of them find what one program finds, and one speaks") {
    temporary_folder const folder;
    auto const file = [&](std::string const& name) { return (folder / name).string(); };
    static_cast<void>(accepted(search({"--json", file("alone.json")})));
    json const alone = result_in(file("alone.json"));
    for (char const* const count : {"1", "2", "4"}) {
        CAPTURE(count);
        auto const run = run_tool(search({"--mpi", "--json", file(count)}), ranks_of(count));
        CAPTURE(run.err);
        REQUIRE(run.code == 0);
        CHECK(lines_with(run.out, "times the throughput of sofa_28nm") == 1);
        CHECK(result_in(file(count)) == alone);
    }
}

TEST_CASE(
    "dse.ranks: recorded layers, run in parts: the same state to the byte, whoever shares them") {
    recorded_folder const recorded;
    auto const file = [&](std::string const& name) { return (recorded.folder / name).string(); };
    auto const layers = [&](std::string const& name, words const& more) {
        return words{"layers",        recorded.folder.path().string(),
                     "--quiet",       "--no-baselines",
                     "--evaluations", "24",
                     "--batch",       "8",
                     "--state",       file(name + ".state"),
                     "--json",        file(name + ".json")} +
               more;
    };
    static_cast<void>(accepted(layers("alone", {})));
    auto const state = read_bytes(file("alone.state"));
    auto const result = result_in(file("alone.json"));
    static_cast<void>(accepted(layers("workers", {"--workers", "3"})));
    CHECK(read_bytes(file("workers.state")) == state);
    CHECK(result_in(file("workers.json")) == result);
    for (auto const& [count, workers] : {std::pair("1", "1"), {"2", "1"}, {"2", "2"}, {"4", "1"}}) {
        CAPTURE(count);
        CAPTURE(workers);
        std::string const name = std::string(count) + "_" + workers;
        auto const run = run_tool(layers(name, {"--mpi", "--workers", workers}), ranks_of(count));
        CAPTURE(run.err);
        REQUIRE(run.code == 0);
        CHECK(read_bytes(file(name + ".state")) == state);
        CHECK(result_in(file(name + ".json")) == result);
    }
}

#ifdef SOFATTN_HAS_LM
TEST_CASE(
    "dse.ranks: a model's budgets are the same, and what the root's log has is not run again") {
    tiny_language const l;
    auto const given = [&](char const* out, words const& more) {
        return l.search(words{"--no-baselines", "--out", l.file(out)} + more);
    };
    static_cast<void>(accepted(given("alone.json", {})));
    auto const budgets = read_bytes(l.file("alone.json"));
    for (char const* const count : {"1", "2"}) {
        CAPTURE(count);
        auto const run = run_tool(
            given(count, {"--mpi", "--state", l.file("s.json"), "--json", l.file("r.json")}),
            ranks_of(count));
        CAPTURE(run.err);
        REQUIRE(run.code == 0);
        CHECK(lines_with(run.out, "fewer keys") == 1);
        CHECK(read_bytes(l.file(count)) == budgets);
        fs::remove(l.file("s.json")); // the search is made again, the log stays
        json log = json::parse(read_bytes(l.file("s.json.runs")));
        CHECK(log.at("runs").size() == result_in(l.file("r.json")).at("runs_count"));
    }
}
#endif

TEST_CASE("dse.ranks: the root's state file serves every number of ranks") {
    temporary_folder const folder;
    auto const file = [&](char const* name) { return (folder / name).string(); };
    auto const in_ranks = [&](char const* count, char const* result) {
        auto const run =
            run_tool(search({"--mpi", "--state", file("state.json"), "--json", file(result)}),
                     ranks_of(count));
        CAPTURE(run.err);
        REQUIRE(run.code == 0);
    };
    in_ranks("3", "first.json");
    auto state = nlohmann::ordered_json::parse(read_bytes(file("state.json")));
    // As if all had been killed in the middle of the third batch.
    state.at("trials").erase(state.at("trials").begin() + 12, state.at("trials").end());
    state.at("trials").back()["status"] = "pending";
    state.at("trials").back().erase("objectives");
    state.at("trials").back().erase("violations");
    state.at("trials").back().erase("details");
    write_bytes(file("state.json"), state.dump());
    in_ranks("2", "second.json");
    CHECK(result_in(file("second.json")) == result_in(file("first.json")));
    static_cast<void>(
        accepted(search({"--state", file("state.json"), "--json", file("third.json")})));
    CHECK(result_in(file("third.json")) == result_in(file("first.json")));
}

TEST_CASE("dse.ranks: what is wrong ends all of them") {
    auto const run = run_tool(search({"--mpi", "--workers", "2"}), ranks_of("3"));
    CHECK(run.code == 2);
    CHECK(holds(run.err, "sofattn-dse: --workers of all ranks is 6, must be at most --batch, 4"));
    CHECK(run.out.empty());
}

#else

TEST_CASE("dse.ranks: a build without MPI says so") {
    temporary_folder const folder;
    refused(folder, search({"--mpi"}), {"--mpi", "without MPI"});
}

#endif
