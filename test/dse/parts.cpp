// SPDX-License-Identifier: MIT
#include "dse/parts.hpp"

#include "support/generators.hpp"

#include <doctest/doctest.h>
#include <unistd.h>

#include <csignal>
#include <limits>
#include <map>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

using namespace sofattn;
using namespace sofattn::dse;

namespace {

/// A point is the sum of its parts, each of which is known once it was run.
struct sums {
    std::map<point, double> known{};
    index_t kept = 0; ///< how often

    parted_objective objective(objective_function run) {
        return {[this](point const& p) {
                    std::vector<point> parts;
                    for (index_t const level : p) {
                        if (!known.contains({level})) {
                            parts.push_back({level});
                        }
                    }
                    return parts;
                },
                std::move(run),
                [this](point const& part, evaluation const& e) {
                    known[part] = e.result.objectives.at(0);
                    ++kept;
                },
                [this](point const& p) {
                    double sum = 0;
                    for (index_t const level : p) {
                        sum += known.at({level});
                    }
                    return evaluation{{trial_status::done, {sum}, {}, {}}, {{"size", p.size()}}};
                }};
    }
};

double third_of(index_t level) { return static_cast<double>(level) / 3.0; }

evaluation third(point const& part) {
    return {{trial_status::done, {third_of(part.at(0))}, {}, {}}, {}};
}

std::map<index_t, evaluation> evaluated(std::vector<trial> const& trials,
                                        parted_objective const& objective,
                                        worker_options const& options) {
    std::map<index_t, evaluation> found;
    evaluate_parts(trials, objective, options, [&](trial const& t, evaluation e) {
        CHECK_FALSE(found.contains(t.id));
        found[t.id] = std::move(e);
    });
    return found;
}

} // namespace

TEST_CASE("dse.parts: any batch and number of processes: each part once, each sum to the bit") {
    SOFATTN_GENERATOR(random);
    for (int round = 0; round < 12; ++round) {
        std::vector<trial> trials;
        std::set<index_t> levels;
        auto const count = random.integer<index_t>(0, 12);
        for (index_t t = 0; t < count; ++t) {
            std::set<index_t> distinct;
            for (auto n = random.integer<index_t>(0, 4); n > 0; --n) {
                distinct.insert(random.integer<index_t>(0, 30));
            }
            levels.insert(distinct.begin(), distinct.end());
            trials.push_back({100 + t, point(distinct.begin(), distinct.end()), {}});
        }
        worker_options options;
        options.count = random.integer<index_t>(1, 5);
        sums all;
        auto const found = evaluated(trials, all.objective(third), options);
        CHECK(found.size() == trials.size());
        CHECK(all.kept == std::ssize(levels));
        for (trial const& t : trials) {
            double sum = 0;
            for (index_t const level : t.at) {
                sum += third_of(level);
            }
            CHECK(found.at(t.id).result.objectives == std::vector<double>{sum});
        }
        // All known: nothing is run.
        auto const again = evaluated(trials, all.objective([](point const&) -> evaluation {
            ::raise(SIGKILL);
            return {};
        }),
                                     options);
        CHECK(again.size() == trials.size());
        CHECK(all.kept == std::ssize(levels));
    }
}

TEST_CASE("dse.parts: a part that throws, crashes, hangs or is not finite ends who needs it only") {
    objective_function const run = [](point const& part) -> evaluation {
        switch (part.at(0)) {
        case 20: throw std::runtime_error("broken");
        case 21: ::raise(SIGKILL); break;
        case 22:
            return {{trial_status::done, {std::numeric_limits<double>::quiet_NaN()}, {}, {}}, {}};
        case 23: throw 7;
        case 24:
            for (;;) {
                ::pause();
            }
        default: break;
        }
        return third(part);
    };
    for (index_t const count : {1, 2, 7}) {
        for (bool const has_limit : {false, true}) {
            CAPTURE(count);
            CAPTURE(has_limit);
            std::vector<trial> trials;
            for (index_t bad = 20; bad < (has_limit ? 25 : 24); ++bad) {
                trials.push_back({std::ssize(trials), {bad - 20, bad, bad - 10}, {}});
            }
            trials.push_back({5, {0, 1, 2, 3, 4, 10, 11, 12}, {}});
            trials.push_back({6, {13, 20, 21}, {}});
            worker_options options;
            options.count = count;
            options.most_seconds = has_limit ? 0.3 : 0;
            sums all;
            auto const found = evaluated(trials, all.objective(run), options);
            REQUIRE(found.size() == trials.size());
            auto const note = [&](index_t id) { return found.at(id).result.note; };
            CHECK(note(0) == "broken");
            CHECK(note(1) == "ended by signal 9");
            CHECK(note(2) == "a value is not finite");
            CHECK(note(3) == "an unknown exception");
            if (has_limit) {
                CHECK(found.at(4).result.status == trial_status::timed_out);
            }
            CHECK(found.at(5).result.status == trial_status::done);
            CHECK(note(6) == "broken"); // not that of 21, even where that ends before
            CHECK(all.known.contains({13}));
        }
    }
}
