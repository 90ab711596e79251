// SPDX-License-Identifier: MIT
#include "dse/hardware.hpp"

#include <sofattn/core/error.hpp>
#include <sofattn/dse/search.hpp>
#include <sofattn/hw/benchmarks.hpp>
#include <sofattn/hw/run.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <string>
#include <vector>

using namespace sofattn;
using namespace sofattn::dse;

namespace {

hw::workload llama() { return hw::find_workload("llama_7b_layer").of; }

double base_area() { return hw::sum(hw::run(llama(), hw::sofa_28nm()).square_micrometres) * 1e-6; }

hardware_problem some_problem(std::vector<std::string> const& variations,
                              std::optional<double> most_area = {}) {
    std::vector<hardware_dimension> all;
    for (auto const& text : variations) {
        all.push_back(parse_dimension(text));
    }
    return {hw::sofa_28nm(), llama(), all, {hardware_goal::seconds}, most_area};
}

void refused(std::string const& variation, std::string const& part) {
    try {
        static_cast<void>(some_problem({variation}));
        FAIL("accepted");
    } catch (error const& e) {
        CAPTURE(e.what());
        CHECK(std::string(e.what()).find(part) != std::string::npos);
    }
}

} // namespace

TEST_CASE("dse.hardware: points are the machines that sofattn-hw makes of the same fields") {
    auto const problem = some_problem({"generation.array_columns_count=4,9",
                                       "attention.keys_per_row_count+schedule.keys_per_phase_count"
                                       "=2,1",
                                       "tile_keys_count=128,64"});
    CHECK(problem.base_point() == point{0, 0, 0});
    hw::machine m = hw::sofa_28nm();
    m.generation.array_columns_count = 9;
    m.attention.keys_per_row_count = 1;
    m.schedule.keys_per_phase_count = 1;
    hw::workload w = llama();
    w.tile_keys_count = 64;
    auto const truth = hw::run(w, m);
    auto const figures = problem.figures_of({1, 1, 1});
    CHECK(figures.seconds == truth.seconds());
    CHECK(figures.effective_gops == truth.effective_gops());
    CHECK(figures.joules == truth.picojoules() * 1e-12);
    CHECK(figures.square_millimetres == hw::sum(truth.square_micrometres) * 1e-6);
    CHECK(problem.base_figures().seconds == hw::run(llama(), hw::sofa_28nm()).seconds());
    CHECK(problem.evaluate({1, 1, 1}).result.objectives[0] ==
          doctest::Approx(std::log(truth.seconds())));
    CHECK(problem.settings_of({1, 0, 0}).at("generation.array_columns_count") == "9");
    CHECK(problem.machine_file({1, 0, 0}).at("generation").at("array_columns_count") == 9);
    CHECK(problem.workload_file({0, 0, 1}).at("tile_keys_count") == 64);

    auto const changes = problem.changes({1, 1, 0});
    REQUIRE(changes.size() == 2);
    CHECK(changes[0].path == "generation.array_columns_count");
    CHECK(changes[0].from == "4");
    CHECK(changes[0].to == "9");
    CHECK(changes[0].without.seconds == problem.figures_of({0, 1, 0}).seconds);
    CHECK(changes[1].without.seconds == problem.figures_of({1, 0, 0}).seconds);
}

TEST_CASE("dse.hardware: too large machines and parts that do not fit are known without a run") {
    auto const problem =
        some_problem({"generation.array_columns_count=4,5", "attention.exp_units_count=128,1",
                      "attention.keys_per_row_count=2,1"},
                     base_area());
    CHECK(problem.is_allowed({0, 1, 0}));
    CHECK_FALSE(problem.is_allowed({1, 0, 0})); // a column more
    CHECK_FALSE(problem.is_allowed({0, 0, 1})); // schedule.keys_per_phase_count stays 2
    CHECK_THROWS_AS(static_cast<void>(problem.evaluate({0, 0, 1})), error);
}

TEST_CASE("dse.hardware: time waits for ports, so that nothing asks for more than they deliver") {
    auto const problem = some_problem({"generation.array_columns_count=4,16,64"});
    double before = problem.base_figures().seconds;
    for (index_t const level : {1, 2}) {
        auto const figures = problem.figures_of({level});
        for (double const share : figures.port_shares) {
            CHECK(share <= 1.0 + 1e-9);
        }
        CHECK(figures.seconds <= before);
        before = figures.seconds;
    }
}

TEST_CASE("dse.hardware: wrong variations are refused before any search") {
    refused("nothing", "FIELD[+FIELD...]=VALUE");
    refused("=1", "FIELD[+FIELD...]=VALUE");
    refused("tile_keys_count=64,,128", "without gaps");
    refused("tile_keys_count=64,128,64", "\"64\" twice");
    refused("generation.rows=1", "generation.rows");
    refused("generation.array_columns_count=0", "array_columns_count is 0");
    refused("generation.array_columns_count=many", "array_columns_count");
}

// research on the paper's tables says that it must exist: exponentials, dividers and sorters are
// many times more than the arrays can feed, and exact K and V of nearly all keys take 90 % of the
// time on a tenth of the area.
TEST_CASE("dse.hardware: equal area has a machine with 1.3 times the honest throughput") {
    hardware_problem const problem(hw::sofa_28nm(), llama(), usual_dimensions(),
                                   {hardware_goal::seconds}, base_area() * (1 + 1e-9));
    REQUIRE(problem.base_point());
    search_options options;
    options.suggested = {*problem.base_point()};
    search run(problem.space(), options, [&](point const& p) { return problem.is_allowed(p); });
    for (int n = 0; n < 60; ++n) {
        trial const t = run.ask().front();
        run.tell(t.id, problem.evaluate(t.at).result);
    }
    REQUIRE(run.front().size() == 1);
    auto const found = problem.figures_of(run.front()[0].at);
    auto const base = problem.base_figures();
    CHECK(found.effective_gops >= 1.3 * base.effective_gops);
    CHECK(found.square_millimetres <= base.square_millimetres * (1 + 1e-9));
}
