// SPDX-License-Identifier: MIT
#include "dse/drive.hpp"

#include "support/temporary_folder.hpp"
#include <sofattn/core/error.hpp>

#include <doctest/doctest.h>

#include <cmath>
#include <filesystem>
#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

using namespace sofattn;
using namespace sofattn::dse;
using test::read_bytes;
using test::temporary_folder;
using test::write_bytes;

namespace {

search_identity identity_of(index_t batch = 1) {
    search_identity identity{
        {{"what", "bowl"}},
        search_space(
            {{"a", 0, 18, 2, {}}, {"b", -3, 12, 1, {}}, {"c", 0, 5, 1, condition{0, 4, 18}}}),
        {},
        batch};
    identity.options.seed = 5;
    identity.options.violations_count = 1;
    return identity;
}

/// Fails at some points.
evaluation bowl(point const& p) {
    if ((p[0] + p[1]) % 7 == 0) {
        throw std::runtime_error("a seventh");
    }
    double const a = static_cast<double>(p[0]) / 3.0 - 1.0;
    double const b = static_cast<double>(p[1]) / 3.0 - 3.0;
    return {{trial_status::done,
             {a * a + b * b + 0.1 * static_cast<double>(p[2])},
             {0.1 - static_cast<double>(p[1])},
             {}},
            {{"a", a}}};
}

drive_options quiet(std::filesystem::path const& state = {}, index_t evaluations = 24) {
    drive_options o;
    o.evaluations = evaluations;
    o.state = state;
    o.show_progress = false;
    return o;
}

drive_result driven(search_identity const& identity, drive_options const& options,
                    objective_function const& objective = bowl) {
    return drive(identity, {}, one_by_one(objective), options);
}

void refused(std::filesystem::path const& file, search_identity const& identity,
             std::string const& part) {
    std::string const before = read_bytes(file);
    int evaluations = 0;
    try {
        auto options = quiet(file);
        options.on_details = [&](json const&) { ++evaluations; };
        static_cast<void>(driven(identity, options));
        FAIL("accepted");
    } catch (error const& e) {
        CAPTURE(e.what());
        CHECK(std::string(e.what()).find(part) != std::string::npos);
        CHECK(std::string(e.what()).find(file.string()) != std::string::npos);
    }
    CHECK(evaluations == 0);
    CHECK(read_bytes(file) == before);
}

} // namespace

TEST_CASE("dse.drive: the number of workers changes nothing") {
    auto const one = driven(identity_of(4), quiet());
    auto options = quiet();
    options.workers.count = 4;
    auto const four = driven(identity_of(4), options);
    CHECK(one.state.trials == four.state.trials);
    CHECK(one.state.details == four.state.details);
    CHECK(one.state.trials.size() == 24);
    CHECK(one.evaluated_here == 24);
}

TEST_CASE("dse.drive: a state file has every bit, and more evaluations go on from it") {
    temporary_folder const folder;
    auto const file = folder / "state.json";
    auto const identity = identity_of(3);
    auto const whole = driven(identity, quiet());
    auto const part = driven(identity, quiet(file, 9));
    auto const stored = read_state(file, identity);
    REQUIRE(stored);
    CHECK(stored->trials == part.state.trials);
    CHECK(stored->details == part.state.details);
    std::vector<json> heard;
    auto options = quiet(file);
    options.on_details = [&](json const& d) { heard.push_back(d); };
    auto const rest = driven(identity, options);
    CHECK(rest.state.trials == whole.state.trials);
    CHECK(rest.evaluated_here == 15);
    CHECK(heard.size() == 24);
    auto const again = driven(identity, quiet(file));
    CHECK(again.evaluated_here == 0);
    CHECK(again.state.trials == whole.state.trials);
}

TEST_CASE("dse.drive: stopped at any outcome, it ends as if it had not been") {
    temporary_folder const folder;
    auto const identity = identity_of(4);
    auto const whole = driven(identity, quiet({}, 16));
    for (int stop = 0; stop < 16; stop += 3) {
        auto const file = folder / ("state" + std::to_string(stop) + ".json");
        auto options = quiet(file, 16);
        int left = stop;
        options.on_details = [&](json const&) { // before the outcome is stored
            if (left-- == 0) {
                throw std::runtime_error("stopped");
            }
        };
        CHECK_THROWS_AS(static_cast<void>(driven(identity, options)), std::runtime_error);
        auto const rest = driven(identity, quiet(file, 16));
        CHECK(rest.state.trials == whole.state.trials);
        CHECK(rest.evaluated_here >= 16 - stop);
    }
}

TEST_CASE("dse.drive: files that are no state of this search are refused, and kept as they are") {
    temporary_folder const folder;
    auto const file = folder / "state.json";
    auto const identity = identity_of();
    for (auto const& [text, part] : std::vector<std::pair<std::string, std::string>>{
             {"", "valid JSON"},
             {"{\"format\": ", "valid JSON"},
             {"[1]", "format is missing"},
             {"{}", "format is missing"},
             {"{\"format\": 3}", "format is 3"},
             {"{\"format\": \"another\"}", "format is \"another\""},
             {"{\"format\": \"sofattn-dse search 1\"}", "trials is missing"}}) {
        write_bytes(file, text);
        refused(file, identity, part);
    }
    std::filesystem::remove(file);
    static_cast<void>(driven(identity, quiet(file, 5)));
    auto const changed = [&](auto change, std::string const& part) {
        auto other = identity;
        change(other);
        refused(file, other, part);
    };
    changed([](auto& o) { o.options.seed = 6; }, "options.seed is 5, must be 6");
    changed([](auto& o) { o.batch = 2; }, "options.batch is 1, must be 2");
    changed([](auto& o) { o.purpose["what"] = "hat"; },
            "purpose.what is \"bowl\", must be \"hat\"");
    changed([](auto& o) { o.purpose["more"] = 1; }, "purpose.more is missing");
    changed([](auto& o) { o.purpose = json::object(); },
            "purpose.what is \"bowl\", must be left out");
    changed([](auto& o) { o.space = search_space({{"a", 0, 18, 2, {}}}); }, "space is [{");

    // Right in form, wrong in content.
    auto const state = json::parse(read_bytes(file));
    auto const edited = [&](auto edit, std::string const& part) {
        json other = state;
        edit(other["trials"]);
        write_bytes(file, other.dump());
        try {
            static_cast<void>(driven(identity, quiet(file)));
            FAIL("accepted");
        } catch (error const& e) {
            CAPTURE(e.what());
            CHECK(std::string(e.what()).find(part) != std::string::npos);
        }
        CHECK(read_bytes(file) == other.dump());
    };
    edited([](json& t) { t[1]["id"] = 7; }, "trial 1: id is 7, must be 1");
    edited([](json& t) { t[1]["levels"] = {0, 0}; }, "trial 1 is not in the space");
    edited([](json& t) { t[1]["levels"] = {0, 0, "x"}; }, "trial 1: levels");
    edited([](json& t) { t[0]["levels"][1] = 99; }, "trial 0 is not in the space");
    edited([](json& t) { t[2]["status"] = "fine"; }, "trial 2: status is \"fine\"");
    edited([](json& t) { t[2] = 4; }, "trial 2: id is missing");
    edited(
        [](json& t) {
            t[2] = {{"id", 2}, {"levels", {0, 0, 0}}, {"status", "done"}};
        },
        "trial 2: objectives is missing");
    edited(
        [](json& t) {
            t[2] = {{"id", 2},
                    {"levels", {0, 0, 0}},
                    {"status", "done"},
                    {"objectives", {1, 2}},
                    {"violations", {1}}};
        },
        "trial 2: number of objectives is 2");
}

TEST_CASE("dse.drive: what is best so far counts feasible trials only") {
    std::vector<trial> const trials{{0, {}, {trial_status::done, {5.0}, {1.0}, {}}},
                                    {1, {}, {trial_status::done, {7.0}, {-1.0}, {}}},
                                    {2, {}, outcome::failure("no")},
                                    {3, {}, {trial_status::done, {6.0}, {0.0}, {}}},
                                    {4, {}, {trial_status::done, {6.5}, {0.0}, {}}}};
    auto const best = best_so_far(trials);
    CHECK(std::isinf(best[0]));
    CHECK(std::vector<double>(best.begin() + 1, best.end()) ==
          std::vector<double>{7.0, 7.0, 6.0, 6.0});
}
