// SPDX-License-Identifier: MIT
// The search for sizes, by a clock that is made up.
#include "tune/tuner.hpp"

#include "support/generators.hpp"
#include <sofattn/core/types.hpp>

#include <doctest/doctest.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

using namespace sofattn;
using namespace sofattn::test;
using namespace sofattn::tune;

namespace {

dse::search_space two_sizes() {
    return dse::search_space({{"keys", 48, 576, 48, {}}, {"rows", 96, 1536, 96, {}}});
}

/// Work that takes seconds(keys, rows), give or take some noise.
struct made_up {
    using cost = std::function<double(double keys, double rows)>;

    made_up(cost of, double noise_share, generator noise)
        : cost_(std::move(of)), noise_(noise_share), random_(noise) {}

    [[nodiscard]] tunable what() {
        dse::search_space const space = two_sizes();
        return {"made up", space, {3, 3}, [this, space](dse::point const& p) {
                    double const seconds = cost_(static_cast<double>(space.value(p, 0)),
                                                 static_cast<double>(space.value(p, 1)));
                    now_ += seconds * (1 + noise_ * std::abs(random_.normal()));
                }};
    }
    [[nodiscard]] clocks time() {
        return {[this] { return now_; }, [this] { return 2 * now_; }};
    }

private:
    cost cost_;
    double noise_;
    generator random_;
    double now_ = 0;
};

/// Least at 384 keys and 960 rows, where it is 9 % under that of the defaults, 192 and 384.
double bowl(double keys, double rows) {
    double const k = std::log2(keys / 384);
    double const r = std::log2(rows / 960);
    return 0.01 * (1 + 0.05 * k * k + 0.028 * r * r);
}

tune_options patient() {
    tune_options o;
    o.most_seconds = 1e9;
    return o;
}

} // namespace

TEST_CASE("tune.tuner: sizes that take less time are found and measured anew") {
    for (double const noise : {0.0, 0.01}) {
        CAPTURE(noise);
        made_up machine(bowl, noise, generator(7));
        tunable const what = machine.what();
        tuned const found = tune::tune(what, patient(), machine.time());
        CHECK_FALSE(found.is_default);
        CHECK(found.evaluations == 40);
        auto const cost = [&](dse::point const& p) {
            return bowl(static_cast<double>(what.space.value(p, 0)),
                        static_cast<double>(what.space.value(p, 1)));
        };
        double const truth = cost(found.best) / cost(what.defaults);
        CHECK(truth < 0.93); // 0.91 is the least
        CHECK(found.ratio.median == doctest::Approx(truth).epsilon(0.01));
        CHECK(found.ratio.highest < 1);
        CHECK(found.ratio.pairs == 31);
        CHECK(found.noise.median == doctest::Approx(1).epsilon(0.02));
        CHECK(found.promised <= found.ratio.median + 0.01);
    }
}

TEST_CASE("tune.tuner: the same clock gives the same sizes") {
    auto const once = [] {
        made_up machine(bowl, 0.05, generator(11));
        return tune::tune(machine.what(), patient(), machine.time());
    };
    tuned const a = once();
    tuned const b = once();
    CHECK(a.best == b.best);
    CHECK(a.ratio.median == b.ratio.median);
    CHECK(a.noise.highest == b.noise.highest);
}

TEST_CASE("tune.tuner: where nothing is better the defaults stay, whatever the noise promises") {
    SOFATTN_GENERATOR(random);
    int taken = 0;
    int promised = 0;
    for (int n = 0; n < 60; ++n) {
        made_up machine([](double, double) { return 0.01; }, 0.05, generator(random.next()));
        tunable const what = machine.what();
        tune_options options = patient();
        options.evaluations = 15;
        tuned const found = tune::tune(what, options, machine.time());
        promised += found.promised < 0.99 ? 1 : 0;
        taken += found.is_default ? 0 : 1;
        if (found.is_default) {
            CHECK(found.best == what.defaults);
            CHECK(found.ratio.median == found.noise.median);
        }
    }
    CHECK(promised > 30); // the search alone would have been taken in
    CHECK(taken <= 3);    // 1 % of 60 times 3 verdicts, half of them upwards
}

TEST_CASE("tune.tuner: defaults that are the best stay") {
    made_up machine(
        [](double keys, double rows) {
            return 0.01 *
                   (1 + std::pow(std::log2(keys / 192), 2) + std::pow(std::log2(rows / 384), 2));
        },
        0.01, generator(3));
    tunable const what = machine.what();
    tuned const found = tune::tune(what, patient(), machine.time());
    CHECK(found.is_default);
    CHECK(found.best == what.defaults);
    CHECK(found.ratio.highest >= 1);
}

TEST_CASE("tune.tuner: it stops when its time is over") {
    made_up machine(bowl, 0, generator(1));
    tune_options options;
    options.most_seconds = 2; // of 0.15 to 0.5 seconds each, and the wall clock runs twice as fast
    double reached = 0;
    options.progress = [&](double share) {
        CHECK(share >= reached);
        CHECK(share <= 1);
        reached = share;
    };
    tuned const found = tune::tune(machine.what(), options, machine.time());
    CHECK(found.evaluations >= 2);
    CHECK(found.evaluations <= 8);
    CHECK(reached == 1);
}

TEST_CASE("tune.tuner: a space without other points gives the defaults") {
    int runs = 0;
    double now = 0;
    tunable const what{
        "one", dse::search_space({{"only", 1, 1, 1, {}}}), {0}, [&](dse::point const&) {
            ++runs;
            now += 1;
        }};
    auto const clock = [&] { return now; };
    tuned const found = tune::tune(what, patient(), {clock, clock});
    CHECK(found.is_default);
    CHECK(found.evaluations == 1);
    CHECK(runs == 14); // 7 pairs
}

TEST_CASE("tune.tuner: this machine's clocks go on") {
    clocks const time = machine_clocks();
    double const wall = time.wall();
    double const processor = time.processor();
    double volatile sum = 0;
    for (int i = 0; i < 3000000; ++i) {
        sum = sum + 1;
    }
    CHECK(time.processor() > processor);
    CHECK(time.wall() - wall >= 0.5 * (time.processor() - processor));
}
