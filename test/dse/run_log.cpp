// SPDX-License-Identifier: MIT
#include "dse/run_log.hpp"

#include "support/temporary_folder.hpp"
#include <sofattn/core/error.hpp>

#include <doctest/doctest.h>

#include <stdexcept>
#include <string>
#include <vector>

using namespace sofattn;
using namespace sofattn::dse;
using namespace sofattn::test;

namespace {

/// Figures that say which process made them in which run of the program.
std::vector<named_run> runs_of(std::vector<std::string> const& names, double value) {
    std::vector<named_run> runs;
    for (auto const& name : names) {
        runs.push_back({name, [name, value] {
                            return json{{"name", name}, {"value", value / 3}};
                        }});
    }
    return runs;
}

std::string message_of(std::filesystem::path const& file, json const& purpose) {
    try {
        run_log const log(file, purpose);
    } catch (error const& e) {
        return e.what();
    }
    return "";
}

} // namespace

TEST_CASE("dse.run_log: a run is made once, and its figures stay to the last bit") {
    temporary_folder const folder;
    auto const file = folder / "runs.json";
    json const purpose = {{"model", "m"}, {"kl", 0.1}};
    run_options const quiet{{2, 0, 1}, false};
    {
        run_log log(file, purpose);
        auto const made = log.figures(runs_of({"a", "b", "c"}, 1), quiet, "");
        REQUIRE(made.size() == 3);
        CHECK(made[1] == json{{"name", "b"}, {"value", 1.0 / 3}});
        CHECK(log.made_here() == 3);
    }
    run_log log(file, purpose);
    CHECK(log.size() == 3);
    auto const mixed = log.figures(runs_of({"c", "d", "a"}, 2), quiet, "");
    CHECK(mixed[0].at("value") == 1.0 / 3);
    CHECK(mixed[1].at("value") == 2.0 / 3);
    CHECK(mixed[2].at("name") == "a");
    CHECK(log.made_here() == 1);
    run_log nowhere({}, purpose);
    CHECK(nowhere.figures(runs_of({"a"}, 5), quiet, "")[0].at("value") == 5.0 / 3);
}

TEST_CASE("dse.run_log: what fails ends the command, what was made is kept") {
    temporary_folder const folder;
    auto const file = folder / "runs.json";
    auto runs = runs_of({"a"}, 1);
    runs.push_back({"bad", []() -> json { throw std::runtime_error("no such layer"); }});
    run_options const quiet{{1, 0, 1}, false};
    run_log log(file, {});
    try {
        static_cast<void>(log.figures(runs, quiet, ""));
        FAIL("nothing was thrown");
    } catch (error const& e) {
        CHECK(std::string(e.what()).find("run bad is no such layer") != std::string::npos);
    }
    CHECK(run_log(file, {}).size() == 1);
}

TEST_CASE("dse.run_log: files of others are refused, and left as they are") {
    temporary_folder const folder;
    auto const file = folder / "runs.json";
    json const purpose = {{"model", "m"}};
    auto const says = [&](std::string const& text, std::vector<std::string> const& parts) {
        write_bytes(file, text);
        auto const message = message_of(file, purpose);
        CAPTURE(message);
        CHECK(message.find("runs.json") != std::string::npos);
        for (auto const& part : parts) {
            CAPTURE(part);
            CHECK(message.find(part) != std::string::npos);
        }
        CHECK(read_bytes(file) == text);
    };
    says("{", {"line 1", "valid JSON"});
    says("[]", {"as in this run"});
    says("{}", {"format", "missing"});
    says(R"({"format": "sofattn-dse search 1", "purpose": {"model": "m"}, "runs": {}})",
         {"format", "sofattn-dse search 1"});
    says(R"({"format": "sofattn-dse runs 1", "purpose": {"model": "n"}, "runs": {}})",
         {"purpose.model", "\"n\"", "\"m\""});
    says(R"({"format": "sofattn-dse runs 1", "purpose": {"model": "m"}})", {"runs", "missing"});
    says(R"({"format": "sofattn-dse runs 1", "purpose": {"model": "m"}, "runs": 3})",
         {"runs", "an object"});
}
