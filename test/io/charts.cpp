// SPDX-License-Identifier: MIT
#include <sofattn/io/charts.hpp>
#include <sofattn/io/figure.hpp>
#include <sofattn/io/svg.hpp>

#include <doctest/doctest.h>
#include <io/markup.hpp>
#include <support/generators.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <string>
#include <vector>

using namespace sofattn;
using test::element;
using test::generator;

namespace {

/// Names from anywhere: markup, quotes, control characters, long ones.
std::string hostile_name(generator& random) {
    std::string name;
    for (int n = random.integer(1, 30); n > 0; --n) {
        name += random.chance(0.3) ? "<>&\"'\n\t\x01/="[random.integer<std::size_t>(0, 9)]
                                   : static_cast<char>(random.integer('a', 'z'));
    }
    return name;
}

/// Well formed, named, and nothing outside of the page (letters aside, whose width is a guess).
std::vector<element> check_figure(io::figure const& of) {
    auto const all = test::elements_of(io::to_svg(of));
    CHECK(all.front().name == "svg");
    CHECK(all.front().attributes.at("role") == "img");
    CHECK(all[1].name == "title");
    CHECK(all[1].text == io::svg_escaped(of.title));
    CHECK(all[2].name == "desc");
    CHECK(of.height > 0.0);
    bool inside = true;
    for (element const& e : all) {
        double const w = of.width + 0.1;
        double const h = of.height + 0.1;
        if (e.name == "rect" && e.attributes.at("width") != "100%") {
            inside = inside && e.number("x") >= 0 && e.number("y") >= 0 &&
                     e.number("x") + e.number("width") <= w &&
                     e.number("y") + e.number("height") <= h;
        } else if (e.name == "line") {
            for (char const* x : {"x1", "x2"}) {
                inside = inside && e.number(x) >= 0 && e.number(x) <= w;
            }
            for (char const* y : {"y1", "y2"}) {
                inside = inside && e.number(y) >= 0 && e.number(y) <= h;
            }
        } else if (e.name == "circle") {
            inside = inside && e.number("cx") >= 0 && e.number("cx") <= w && e.number("cy") >= 0 &&
                     e.number("cy") <= h;
        } else if (e.name == "text") {
            inside = inside && e.number("x") >= 0 && e.number("x") <= w && e.number("y") >= 0 &&
                     e.number("y") <= h;
        }
    }
    CHECK(inside);
    return all;
}

std::size_t count(std::vector<element> const& all, std::string const& name,
                  std::string const& css) {
    return static_cast<std::size_t>(std::ranges::count_if(all, [&](element const& e) {
        auto const at = e.attributes.find("class");
        return e.name == name && at != e.attributes.end() &&
               at->second.find(css) != std::string::npos;
    }));
}

} // namespace

TEST_CASE("io.charts: bars are as long as their parts") {
    SOFATTN_GENERATOR(random);
    for (int n = 0; n < 200; ++n) {
        io::stacked_bars chart{.title = hostile_name(random),
                               .unit = "pJ",
                               .parts = {},
                               .as_shares = random.chance(0.5)};
        for (int p = random.integer(1, 10); p > 0; --p) {
            chart.parts.push_back(hostile_name(random));
        }
        double most = 0.0;
        std::vector<double> expected;
        for (int b = random.integer(0, 6); b > 0; --b) {
            io::bar one{hostile_name(random), {}};
            double sum = 0.0;
            for (std::size_t p = 0; p < chart.parts.size(); ++p) {
                one.parts.push_back(random.chance(0.3) ? 0.0 : random.uniform(0.1, 1e6));
                sum += one.parts.back();
            }
            most = std::max(most, sum);
            expected.push_back(sum);
            chart.bars.push_back(one);
        }
        auto const figure = io::draw(chart);
        auto const all = check_figure(figure);
        std::vector<double> lengths;
        double at = -1.0;
        for (element const& e : all) {
            if (e.name == "rect" && e.attributes.contains("class") &&
                e.attributes.at("class").starts_with("edge")) {
                if (e.number("y") > at) {
                    lengths.push_back(0.0);
                    at = e.number("y");
                }
                lengths.back() += e.number("width");
            }
        }
        std::erase(expected, 0.0); // no part, no rectangle
        REQUIRE(lengths.size() == expected.size());
        for (std::size_t b = 0; b < expected.size(); ++b) {
            double const share = chart.as_shares ? 1.0 : expected[b] / most;
            CHECK(std::abs(lengths[b] - (figure.width - 24.0) * share) <
                  0.06); // ten parts, two digits each
        }
    }
}

TEST_CASE("io.charts: lines and rooflines have every point, within the axes") {
    SOFATTN_GENERATOR(random);
    for (int n = 0; n < 200; ++n) {
        io::line_chart chart{.title = hostile_name(random),
                             .x_name = hostile_name(random),
                             .y_name = hostile_name(random),
                             .lines = {},
                             .log_x = random.chance(0.5),
                             .log_y = random.chance(0.5)};
        std::size_t points = 0;
        double const scale = std::pow(10.0, random.uniform(-8.0, 12.0));
        for (int l = random.integer(1, 9); l > 0; --l) {
            io::chart_line line{hostile_name(random), {}};
            for (int p = random.integer(1, 12); p > 0; --p) {
                line.points.push_back({scale * random.uniform(0.01, 100.0),
                                       random.uniform(0.001, 1.0), random.chance(0.2)});
                ++points;
            }
            chart.lines.push_back(line);
        }
        auto const all = check_figure(io::draw(chart));
        CHECK(count(all, "circle", "edge") == points);
        CHECK(count(all, "path", "curve") == chart.lines.size());

        io::roofline roof{.title = hostile_name(random),
                          .peaks = {{"a", scale}, {"b", scale * random.uniform(0.01, 1.0)}},
                          .bandwidths = {{"c", scale * random.uniform(1e-4, 10.0)}},
                          .points = {}};
        for (int p = random.integer(0, 9); p > 0; --p) {
            roof.points.push_back({hostile_name(random), random.uniform(0.01, 1000.0),
                                   scale * random.uniform(0.001, 1.2)});
        }
        CHECK(count(check_figure(io::draw(roof)), "circle", "edge") == roof.points.size());
    }
}

TEST_CASE("io.charts: a timeline's spans lie where they were") {
    SOFATTN_GENERATOR(random);
    for (int n = 0; n < 100; ++n) {
        io::timeline_chart chart{
            .title = "t", .unit = "cycles", .kinds = {"busy", "wait"}, .tracks = {}};
        double until = 0.0;
        std::vector<double> lengths;
        for (int t = random.integer(1, 8); t > 0; --t) {
            io::timeline_track track{"track " + std::to_string(t), {}};
            double at = 0.0;
            for (int s = random.integer(1, 20); s > 0; --s) {
                double const from = at + random.uniform(0.0, 10.0);
                at = from + random.uniform(0.0, 50.0);
                track.spans.push_back(
                    {from, at, random.integer<std::size_t>(0, 1), hostile_name(random)});
                lengths.push_back(at - from);
                until = std::max(until, at);
            }
            chart.tracks.push_back(track);
        }
        double pixels_per_unit = 0.0;
        std::size_t seen = 0;
        for (element const& e : check_figure(io::draw(chart))) {
            if (e.name == "rect" && e.attributes.contains("class") &&
                e.attributes.at("class").starts_with("edge")) {
                if (lengths[seen] > until / 10) {
                    double const scale = e.number("width") / lengths[seen];
                    CHECK((pixels_per_unit == 0.0 ||
                           scale == doctest::Approx(pixels_per_unit).epsilon(0.01)));
                    pixels_per_unit = scale;
                }
                ++seen;
            }
        }
        CHECK(seen == lengths.size());
    }
}

TEST_CASE("io.charts: what cannot be drawn is named") {
    double const nan = std::numeric_limits<double>::quiet_NaN();
    CHECK_THROWS_WITH_AS((void)io::draw(io::stacked_bars{
                             .title = "t", .unit = "", .parts = {"a"}, .bars = {{"b", {1, 2}}}}),
                         "chart: parts of bar b is 2, must be as many as names, 1", error);
    CHECK_THROWS_WITH_AS(
        (void)io::draw(
            io::stacked_bars{.title = "t", .unit = "", .parts = {"a"}, .bars = {{"b", {-1}}}}),
        "chart: length of a part of bar b is -1.000000, must be finite and at least 0", error);
    io::line_chart lines{.title = "t", .x_name = "x", .y_name = "y", .log_x = true};
    CHECK_THROWS_WITH_AS((void)io::draw(lines), "chart: points of t is 0, must be at least 1",
                         error);
    lines.lines = {{"l", {{0.0, 1.0}}}};
    CHECK_THROWS_WITH_AS(
        (void)io::draw(lines),
        "chart: x of l is 0.000000, must be finite and positive on a logarithmic axis", error);
    lines.lines = {{"l", {{1.0, nan}}}};
    CHECK_THROWS_AS((void)io::draw(lines), error);
    CHECK_THROWS_AS((void)io::draw(io::roofline{.title = "t", .peaks = {}, .bandwidths = {}}),
                    error);
    CHECK_THROWS_WITH_AS(
        (void)io::draw(io::timeline_chart{
            .title = "t", .unit = "u", .kinds = {"busy"}, .tracks = {{"a", {{0, 1, 1, ""}}}}}),
        "chart: kind of a span of a is 1, must be below the number of kinds, 1", error);
}

TEST_CASE("io.charts: one part needs no legend, points need no line") {
    io::stacked_bars bars{.title = "t", .unit = "u", .parts = {"only"}, .bars = {{"b", {2.0}}}};
    auto const one = check_figure(io::draw(bars));
    CHECK(count(one, "text", "on") == 0);
    CHECK(std::ranges::none_of(one, [](element const& e) { return e.text == "only"; }));
    bars.parts = {"first", "second"};
    bars.bars = {{"b", {2.0, 1.0}}};
    auto const two = check_figure(io::draw(bars));
    CHECK(count(two, "text", "on") == 2);
    CHECK(std::ranges::any_of(two, [](element const& e) { return e.text == "second"; }));
    io::line_chart const points{.title = "t",
                                .x_name = "x",
                                .y_name = "y",
                                .lines = {{"l", {{1.0, 1.0}, {2.0, 3.0}}, false}}};
    auto const drawn = check_figure(io::draw(points));
    CHECK(count(drawn, "path", "curve") == 0);
    CHECK(count(drawn, "circle", "edge") == 2);
}

TEST_CASE("io.figure: short logarithmic axes have marks, too") {
    SOFATTN_GENERATOR(random);
    for (int n = 0; n < 1000; ++n) {
        double const low = std::pow(10.0, random.uniform(-6.0, 12.0));
        double const high = low * random.uniform(1.0, 4.0);
        io::detail::chart_axis const axis(true, low, high, 0.0, 100.0);
        auto const marks = axis.ticks();
        CAPTURE(low);
        CAPTURE(high);
        CHECK(marks.size() >= 2);
        CHECK(marks.size() <= 10);
        CHECK(std::ranges::is_sorted(marks));
        for (double const mark : marks) {
            CHECK(axis.at(mark) >= -0.1);
            CHECK(axis.at(mark) <= 100.1);
        }
    }
}

TEST_CASE("io.figure: short numbers") {
    for (auto const& [value, text] : {std::pair{0.0, "0"},
                                      {0.05, "0.05"},
                                      {1.0, "1"},
                                      {999.4, "999"},
                                      {999.6, "1 k"},
                                      {12'345.0, "12.3 k"},
                                      {4e9, "4 G"},
                                      {24'423e9, "24.4 T"},
                                      {-1500.0, "-1.5 k"}}) {
        CHECK(io::short_number(value) == text);
    }
}

TEST_CASE("io.charts: a logarithmic axis is marked all along, whatever its range") {
    SOFATTN_GENERATOR(random);
    for (int n = 0; n < 500; ++n) {
        double const low = std::pow(10.0, random.integer(-400, 400) / 100.0);
        double const high = low * std::pow(10.0, random.integer(50, 800) / 100.0);
        io::detail::chart_axis const axis(true, low, high, 0.0, 240.0);
        auto const marks = axis.ticks();
        REQUIRE(marks.size() >= 3);
        CHECK(marks.size() <= 16);
        constexpr double most = 0.6 * 240.0; // without a mark
        CHECK(axis.at(marks.front()) <= most);
        double free = axis.at(marks.front());
        for (double const mark : marks) {
            CHECK(axis.at(mark) - free <= most);
            free = axis.at(mark);
        }
        CHECK(240.0 - free <= most);
    }
}

TEST_CASE("io.svg: ticks lie on the axis, ascending, not too many") {
    SOFATTN_GENERATOR(random);
    for (int n = 0; n < 500; ++n) {
        double const low = std::pow(10.0, random.uniform(-9.0, 9.0));
        double const high = low * std::pow(10.0, random.uniform(0.4, 12.0));
        io::log_axis const log{low, high, 10.0, 200.0};
        CHECK(log.at(low) == doctest::Approx(10.0));
        CHECK(log.at(high) == doctest::Approx(200.0));
        auto const few = log.ticks(7);
        CHECK(few.size() <= 7);
        for (auto const& ticks : {log.ticks(), few}) {
            CHECK(!ticks.empty());
            CHECK(std::ranges::is_sorted(ticks));
            CHECK(ticks.front() >= low * 0.998);
            CHECK(ticks.back() <= high * 1.002);
        }
        io::linear_axis const linear{high, 10.0, 200.0};
        auto const ticks = linear.ticks();
        CHECK(ticks.size() >= 4);
        CHECK(ticks.size() <= 9);
        CHECK(linear.at(0.0) == 10.0);
        CHECK(linear.at(high) == doctest::Approx(200.0));
    }
}
