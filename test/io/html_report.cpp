// SPDX-License-Identifier: MIT
#include <sofattn/hw/pipeline.hpp>
#include <sofattn/io/charts.hpp>
#include <sofattn/io/html_report.hpp>
#include <sofattn/io/pipeline_figures.hpp>

#include <doctest/doctest.h>
#include <hw/pipeline_oracle.hpp>
#include <io/markup.hpp>
#include <support/generators.hpp>

#include <algorithm>
#include <cstddef>
#include <string>
#include <vector>

using namespace sofattn;
using test::element;
using test::generator;

namespace {

std::size_t count(std::vector<element> const& all, std::string const& name) {
    return static_cast<std::size_t>(std::ranges::count(all, name, &element::name));
}

} // namespace

TEST_CASE("io.html_report: one well-formed page that fetches nothing") {
    io::html_report report("a < b & \"c\"", "summary </p><script>");
    report.numbers({{"time", "1 ms"}, {"<energy>", "2 & 3 pJ"}});
    report.heading("First");
    report.paragraph("words <b>");
    auto const small = io::draw(
        io::stacked_bars{.title = "bars", .unit = "", .parts = {"p"}, .bars = {{"b", {1.0}}}});
    auto const wide = io::draw(
        io::timeline_chart{.title = "time", .unit = "cycles", .kinds = {"busy"}, .tracks = {}});
    report.add(small, "caption <i>");
    report.add(small);
    report.add(wide, "wide");
    report.add(small);
    report.table("table &", {"name", "n"}, {{"<td>", "1"}, {"b", "2"}});
    report.add(small);
    std::string const text = report.text();
    auto const all = test::elements_of(text);
    CHECK(count(all, "svg") == 5);
    CHECK(count(all, "figure") == 5);
    CHECK(count(all, "figcaption") == 2);
    CHECK(count(all, "table") == 1);
    CHECK(count(all, "script") == 0);
    CHECK(count(all, "style") == 1); // figures in the page share one
    CHECK(std::ranges::count_if(all, [](element const& e) {
              auto const at = e.attributes.find("class");
              return at != e.attributes.end() && at->second == "figures";
          }) == 3);
    for (char const* fetching : {"src=", "href=", "url(", "@import"}) {
        CHECK(text.find(fetching) == std::string::npos);
    }
    CHECK(text.find("width=device-width") != std::string::npos);
    CHECK(text.find("prefers-color-scheme: dark") != std::string::npos);
    CHECK(text.starts_with("<!doctype html>\n<html lang=\"en\">"));
    // The text is a snapshot: asking for it changes nothing.
    CHECK(report.text() == text);
}

TEST_CASE("io.html_report: folds close, words wrap, lists list") {
    io::html_report report("title", "summary");
    report.end_fold(); // none is open
    report.begin_fold("more <b>");
    report.list({"a & b", "<i>"});
    io::table plain({"name", "n"});
    plain.add({"x<y", "3"});
    report.table("plain", plain);
    report.table("with words", {"name", "n", "source"}, {{"x", "1", "some <words>"}}, 1);
    auto const open = test::elements_of(report.text()); // an open one is closed
    CHECK(count(open, "details") == 1);
    report.end_fold();
    CHECK(test::elements_of(report.text()).size() == open.size());
    CHECK(count(open, "li") == 2);
    std::size_t words = 0;
    for (element const& e : open) {
        bool const is_words = e.attributes.contains("class") && e.attributes.at("class") == "words";
        words += is_words ? 1 : 0;
        CHECK((!is_words || e.text == "source" || e.text == "some &lt;words&gt;"));
    }
    CHECK(words == 2);
    CHECK(std::ranges::any_of(open, [](element const& e) { return e.text == "x&lt;y"; }));
}

TEST_CASE("io.pipeline_figures: shares of the cycles, and a timeline of the first items") {
    SOFATTN_GENERATOR(random);
    for (int n = 0; n < 40; ++n) {
        auto const graph = test::random_graph(random, 5, false);
        auto const stream = test::random_stream(random, graph, 1, 6);
        io::timeline_recorder recorder(graph);
        auto const timing = hw::simulate(graph, stream, {.listener = &recorder, .heard_items = 10});
        auto const shares = test::elements_of(io::to_svg(io::utilisation_figure(timing)));
        double busy = 0.0;
        for (element const& e : shares) {
            if (e.name == "rect" && e.attributes.contains("class") &&
                e.attributes.at("class") == "edge f0") {
                busy += e.number("width");
            }
        }
        double expected = 0.0;
        for (auto const& e : timing.engines) {
            expected += timing.total.count() > 0 ? static_cast<double>(e.busy.count()) /
                                                       static_cast<double>(timing.total.count())
                                                 : 0.0;
        }
        CHECK(busy == doctest::Approx((io::figure{}.width - 24.0) * expected).epsilon(0.01));
        auto const drawn = test::elements_of(io::to_svg(recorder.drawn("First items")));
        for (auto const& e : graph.engines) {
            CHECK(std::ranges::any_of(drawn, [&](element const& one) {
                return one.name == "text" && one.text == e.name;
            }));
        }
    }
}

TEST_CASE("io.html_report: names in tables break between their words only") {
    io::html_report report("t", "s");
    report.table("c", {"name"},
                 {{"attention.exp_units"}, {"Fig. 5: work"}, {"TinyLlama-1.1B"}, {"end."}});
    std::string const text = report.text();
    for (char const* name :
         {">attention.<wbr/>exp_<wbr/>units<", ">Fig. 5: work<", ">TinyLlama-1.1B<", ">end.<"}) {
        CAPTURE(name);
        CHECK(text.find(name) != std::string::npos);
    }
}
