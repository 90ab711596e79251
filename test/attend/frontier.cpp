// SPDX-License-Identifier: MIT
#include "attend/frontier.hpp"

#include <doctest/doctest.h>

#include <string>
#include <utility>
#include <vector>

using namespace sofattn::attend;

namespace {

frontier_series series_of(std::vector<std::pair<double, double>> const& kept_and_error) {
    frontier_series series{"s", "ratio", {}};
    for (auto const& [kept, error] : kept_and_error) {
        mean_quality q;
        q.kept_share = kept;
        q.output_error_relative = error;
        series.points.push_back({kept, q});
    }
    return series;
}

} // namespace

TEST_CASE(
    "attend.frontier: between points the error is linear in logarithms, beyond them unknown") {
    // In no order, as a study's settings may come.
    auto const series = series_of({{0.4, 0.01}, {0.1, 0.16}, {0.025, 0.64}});
    CHECK(error_at(series, 0.1) == doctest::Approx(0.16));
    CHECK(error_at(series, 0.2) == doctest::Approx(0.04));
    CHECK(error_at(series, 0.05) == doctest::Approx(0.32));
    CHECK(error_at(series, 0.4) == doctest::Approx(0.01));
    CHECK(error_at(series, 0.401) == doctest::Approx(0.01)); // the share asked for, nearly
    CHECK(error_at(series, 0.5) < 0);
    CHECK(error_at(series, 0.02) < 0);
    CHECK(error_at(series_of({}), 0.1) < 0);
    CHECK(error_at(series_of({{0.1, 0.3}, {0.2, 0.0}}), 0.15) == 0.0); // no logarithm of 0
}

TEST_CASE("attend.frontier: shares that a series does not reach are left blank") {
    frontier const one{"m", "1", {series_of({{0.05, 0.3}, {0.2, 0.1}})}};
    std::string const text = to_text(std::vector{one});
    CHECK(text.find("m, layers 1") != std::string::npos);
    CHECK(text.find("| s ") != std::string::npos);
    CHECK(text.find("0.3000") != std::string::npos);
    CHECK(text.find("-1") == std::string::npos);
}

TEST_CASE("attend.frontier: the picture has a panel per model, escapes names and needs no spread") {
    frontier const flat{"a <b> & c", "1", {series_of({{0.1, 0.2}})}};
    frontier const zero{"d", "2", {series_of({{0.1, 0.0}, {0.2, 0.0}})}};
    std::string const svg = to_svg({flat, zero, zero});
    CHECK(svg.find("a &lt;b&gt; &amp; c") != std::string::npos);
    CHECK(svg.find(">d</text>") != std::string::npos);
    CHECK(svg.find(">d</text>") == svg.rfind(">d</text>"));
    CHECK(svg.find("nan") == std::string::npos);
    CHECK(svg.find("inf") == std::string::npos);
    CHECK(to_svg({}).ends_with("</svg>\n"));
}
