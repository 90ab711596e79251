// SPDX-License-Identifier: MIT
#include "dse/workers.hpp"

#include <doctest/doctest.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <limits>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

using namespace sofattn;
using namespace sofattn::dse;

namespace {

std::vector<trial> trials_at(std::vector<index_t> const& levels) {
    std::vector<trial> all;
    for (index_t const level : levels) {
        all.push_back({std::ssize(all), {level}, outcome{trial_status::pending, {}, {}, {}}});
    }
    return all;
}

std::map<index_t, evaluation> evaluated(std::vector<trial> const& trials,
                                        objective_function const& objective,
                                        worker_options const& options) {
    std::map<index_t, evaluation> found;
    evaluate_all(trials, objective, options, [&](trial const& t, evaluation e) {
        CHECK_FALSE(found.contains(t.id));
        found[t.id] = std::move(e);
    });
    return found;
}

} // namespace

TEST_CASE("dse.workers: any number of processes gives every outcome once, to the last bit") {
    for (index_t const count : {1, 2, 7}) {
        worker_options options;
        options.count = count;
        auto const found = evaluated(
            trials_at({3, 1, 4, 1, 5, 9, 2, 6}),
            [](point const& p) {
                double const x = 0.1 * static_cast<double>(p[0]);
                return evaluation{{trial_status::done, {x / 3.0, 1e-300 * x}, {-x}, {}},
                                  {{"level", p[0]}}};
            },
            options);
        REQUIRE(found.size() == 8);
        CHECK(found.at(5).result.objectives ==
              std::vector<double>{0.1 * 9.0 / 3.0, 1e-300 * (0.1 * 9.0)});
        CHECK(found.at(5).result.violations == std::vector<double>{-(0.1 * 9.0)});
        CHECK(found.at(5).details.at("level") == 9);
    }
}

TEST_CASE("dse.workers: throwing, crashing, leaving, hanging and NaN harm one trial only") {
    worker_options options;
    options.count = 3;
    options.most_seconds = 0.3;
    auto const start = std::chrono::steady_clock::now();
    auto const found = evaluated(
        trials_at({0, 1, 2, 3, 4, 5, 6}),
        [](point const& p) -> evaluation {
            switch (p[0]) {
            case 0: throw std::runtime_error("broken \xff thing");
            case 1: throw 7;
            case 2: ::raise(SIGKILL); break;
            case 3: _exit(3);
            case 4:
                for (;;) {
                    ::pause();
                }
            case 5:
                return {{trial_status::done, {std::numeric_limits<double>::infinity()}, {}, {}},
                        {}};
            default: break;
            }
            return {{trial_status::done, {1.5}, {}, {}}, {}};
        },
        options);
    REQUIRE(found.size() == 7);
    auto const note = [&](index_t id) { return found.at(id).result.note; };
    for (index_t const id : {0, 1, 2, 3, 5}) {
        CHECK(found.at(id).result.status == trial_status::failed);
    }
    CHECK(note(0).starts_with("broken "));
    CHECK(note(1) == "an unknown exception");
    CHECK(note(2) == "ended by signal 9");
    CHECK(note(3) == "exit code 3 without an answer");
    CHECK(note(5) == "a value is not finite");
    CHECK(found.at(4).result.status == trial_status::timed_out);
    CHECK(note(4) == "longer than 0.3 seconds");
    CHECK(found.at(6).result.objectives == std::vector<double>{1.5});
    CHECK(std::chrono::steady_clock::now() - start < std::chrono::seconds(20));
}

TEST_CASE("dse.workers: answers longer than a pipe holds arrive whole") {
    auto const found = evaluated(
        trials_at({0, 1}),
        [](point const&) {
            return evaluation{{trial_status::done, {1.0}, {}, {}}, std::string(1000000, 'x')};
        },
        {2, 0, 0});
    CHECK(found.at(1).details.get<std::string>().size() == 1000000);
}

TEST_CASE("dse.workers: where a listener throws, no process is left") {
    CHECK_THROWS_AS(evaluate_all(
                        trials_at({0, 1, 2}),
                        [](point const& p) -> evaluation {
                            while (p[0] > 0) {
                                ::pause();
                            }
                            return {{trial_status::done, {1.0}, {}, {}}, {}};
                        },
                        {3, 0, 0}, [](trial const&, evaluation const&) { throw 1; }),
                    int);
}
