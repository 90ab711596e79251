// SPDX-License-Identifier: MIT
// The report as text: what its tables say, and that nothing in a cell can break them.
#include "paper/document.hpp"

#include "support/generators.hpp"
#include "support/tool.hpp"

#include <doctest/doctest.h>

#include <cstddef>
#include <set>
#include <sstream>
#include <string>
#include <vector>

using namespace sofattn;
using hw::status;
using hw::table_row;
using test::holds;

namespace {

/// Cells of a Markdown row: bars that are not escaped, less one.
std::size_t cells_in(std::string const& line) {
    std::size_t bars = 0;
    for (std::size_t at = 0; at < line.size(); ++at) {
        bars += line[at] == '|' && (at == 0 || line[at - 1] != '\\') ? 1 : 0;
    }
    return bars - 1;
}

/// Every table has a header, a rule and rows of as many cells; returns how many tables there are.
std::size_t well_formed_tables(std::string const& markdown) {
    std::istringstream lines(markdown);
    std::size_t tables = 0;
    std::size_t row = 0;
    std::size_t cells = 0;
    for (std::string line; std::getline(lines, line);) {
        if (!line.starts_with("|")) {
            CHECK(row != 1); // a header alone
            row = 0;
            continue;
        }
        CAPTURE(line);
        CHECK(line.ends_with("|"));
        if (row == 0) {
            ++tables;
            cells = cells_in(line);
        }
        CHECK(cells_in(line) == cells);
        if (row == 1) {
            CHECK(line.find_first_not_of("|-: ") == std::string::npos);
        }
        ++row;
    }
    return tables;
}

paper::report report_of(std::vector<table_row> rows) {
    paper::section s;
    s.name = "some";
    s.title = "Some figure";
    s.data = "made up";
    s.commands = {"sofattn-none --at all"};
    s.found.rows = std::move(rows);
    return {.sections = {s}};
}

table_row row_of(double printed, double ours, status how = status::reproduced,
                 std::string reason = {}) {
    return {"Fig. 99", "something", printed, ours, "x", how, std::move(reason)};
}

} // namespace

TEST_CASE("paper.document: the deviation is ours over the paper's, less one") {
    SOFATTN_GENERATOR(random);
    for (int n = 0; n < 100; ++n) {
        auto const printed = static_cast<double>(random.integer(1, 10000));
        auto const percent = static_cast<double>(random.integer(-99, 900));
        if (percent == 0) {
            continue;
        }
        auto const row = row_of(printed, printed * (1 + percent / 100));
        CHECK(row.deviation_percent() == doctest::Approx(percent));
        auto const cells = hw::to_cells(row);
        REQUIRE(cells.size() == 6);
        CHECK(std::stod(cells[4]) == doctest::Approx(percent).epsilon(1e-4));
        CHECK(cells[4].ends_with(" %"));
    }
    CHECK(hw::to_cells(row_of(7, 7))[4] == "0.00 %");
    CHECK(hw::to_cells(row_of(1000, 999.99))[4] == "0.00 %"); // not -0.00
    CHECK(hw::to_cells(row_of(7, 0)) ==
          std::vector<std::string>{"Fig. 99: something", "7", "-", "x", "-", "reproduced"});
    CHECK(hw::to_cells(row_of(0, 7))[1] == "-");
    CHECK(hw::to_cells(row_of(0, 7))[4] == "-");
}

TEST_CASE("paper.document: rows are counted by status, and so they stand in the index") {
    auto const r = report_of({row_of(1, 1), row_of(1, 1), row_of(1, 1, status::calibrated),
                              row_of(1, 1, status::input), row_of(1, 2, status::contradicted)});
    auto const counts = paper::counts_of(r);
    REQUIRE(counts.size() == 4);
    CHECK(counts[0] == std::pair(std::string("reproduced"), std::size_t{2}));
    CHECK(counts[1] == std::pair(std::string("by calibration"), std::size_t{1}));
    CHECK(counts[2] == std::pair(std::string("input"), std::size_t{1}));
    CHECK(counts[3] == std::pair(std::string("cannot be reproduced"), std::size_t{1}));
    CHECK(holds(paper::to_markdown(r),
                "2 reproduced, 1 by calibration, 1 input, 1 cannot be reproduced"));
}

TEST_CASE("paper.document: equal notes are one, numbered in the order of their use") {
    auto const text = paper::to_markdown(report_of(
        {row_of(1, 1, status::input, "second thought"), row_of(1, 1),
         row_of(2, 2, status::input, "b"), row_of(3, 3, status::input, "second thought")}));
    CHECK(holds(text, "\n1. second thought\n2. b\n"));
    CHECK_FALSE(holds(text, "\n3. "));
}

TEST_CASE("paper.document: no text breaks a Markdown table or the page") {
    SOFATTN_GENERATOR(random);
    static constexpr std::string_view letters = "a|\\\n\r<&\"`*% \t";
    auto const text = [&] {
        std::string any;
        for (int n = random.integer(0, 12); n > 0; --n) {
            any += letters[static_cast<std::size_t>(
                random.integer(0, static_cast<int>(letters.size()) - 1))];
        }
        return any + "z";
    };
    for (int n = 0; n < 200; ++n) {
        std::vector<table_row> rows;
        for (int row = random.integer(1, 5); row > 0; --row) {
            rows.push_back({text(), text(), 1, 1, text(), status::reproduced, text()});
        }
        auto r = report_of(rows);
        io::table table({text(), text()});
        table.add({text(), text()});
        r.sections[0].found.tables.push_back({"caption", table});
        CHECK(well_formed_tables(paper::to_markdown(r)) == 3); // index, rows, table
        std::string const page = paper::to_html(r);
        CHECK(page.ends_with("</html>\n"));
        CHECK_FALSE(holds(page, "<&"));
    }
}

TEST_CASE("paper.document: a fault stands in both, beside what was computed") {
    auto r = report_of({row_of(1, 1)});
    paper::section bad;
    bad.name = "bad";
    bad.title = "Bad figure";
    bad.fault = "sofattn-none is exit status 3 (no <data>), must be run without a fault";
    r.sections.push_back(bad);
    std::string const text = paper::to_markdown(r);
    CHECK(holds(text, "**Not computed:** sofattn-none is exit status 3 (no <data>)"));
    CHECK(holds(text, "- bad: sofattn-none"));
    CHECK(holds(text, "Fig. 99: something"));
    CHECK(
        holds(paper::to_html(r), "Not computed: sofattn-none is exit status 3 (no &lt;data&gt;)"));
    CHECK_FALSE(holds(paper::to_markdown(report_of({row_of(1, 1)})), "Not computed"));
    r.sections.erase(r.sections.begin()); // nothing but the fault
    CHECK(holds(paper::to_html(r), "exit status 3"));
}

TEST_CASE("paper.document: time and machine stand in it if told, and nowhere else") {
    auto r = report_of({row_of(1, 1)});
    std::string const without = paper::to_markdown(r);
    CHECK(without == paper::to_markdown(r));
    CHECK_FALSE(holds(without, "Made on"));
    r.stamp = "2026-11-27, 2 cores";
    std::string const with = paper::to_markdown(r);
    CHECK(holds(with, "Made on: 2026-11-27, 2 cores\n"));
    std::string const line = "Made on: " + r.stamp + "\n\n";
    std::string cut = with;
    cut.erase(cut.find(line), line.size());
    CHECK(cut == without);
}
