// SPDX-License-Identifier: MIT
#include "paper/part.hpp"
#include "support/temporary_folder.hpp"
#include "support/tool.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <set>
#include <string>
#include <vector>

using namespace sofattn;

namespace {

/// No program is there to run.
paper::tools no_tools(test::temporary_folder const& folder) {
    return {folder.path(), folder / "results", 1.0};
}

} // namespace

TEST_CASE("paper.parts: names are distinct, and every part is in the report's order") {
    std::set<std::string> names;
    auto const all = paper::all_parts();
    for (paper::part const& p : all) {
        CHECK(names.insert(p.name).second);
        CHECK_FALSE(p.title.empty());
    }
    CHECK(all.size() == paper::machine_parts().size() + paper::measured_parts().size());
    CHECK(all.front().name == "table2");
    CHECK(all.back().name == "rest");
}

TEST_CASE("paper.parts: no row that sofattn-hw tables computes is left out or shown twice") {
    test::temporary_folder const folder;
    paper::tools run = no_tools(folder);
    std::multiset<std::string> shown;
    for (paper::part const& p : paper::machine_parts()) {
        for (hw::table_row const& r : p.compute({}, run).rows) {
            shown.insert(r.table + ": " + r.what);
        }
    }
    // Of the measured parts' figures the rows without data stand before the measured ones.
    std::set<std::string> const elsewhere{"Fig. 5", "Fig. 18", "Sec. III-C"};
    for (hw::table_row const& r : hw::paper_rows()) {
        std::string const name = r.table + ": " + r.what;
        CAPTURE(name);
        CHECK(shown.count(name) == (elsewhere.contains(r.table) ? 0 : 1));
    }
}

TEST_CASE("paper.parts: what a machine computes needs no program and comes with its command") {
    test::temporary_folder const folder;
    for (paper::part const& p : paper::machine_parts()) {
        CAPTURE(p.name);
        paper::tools run = no_tools(folder);
        auto const found = p.compute({}, run);
        CHECK_FALSE(found.rows.empty());
        CHECK(run.commands().empty() == (p.name == "rest"));
        for (auto const& f : found.figures) {
            CHECK(io::detail::text_width(f.of.title, 15) < f.of.width - 2 * io::detail::margin);
        }
        for (hw::table_row const& r : found.rows) {
            CAPTURE(r.what);
            if (r.how == hw::status::contradicted) { // says why
                CHECK_FALSE(r.reason.empty());
            }
        }
    }
    CHECK(folder.entries() == 0);
}

TEST_CASE("paper.parts: Fig. 7's example is computed, not copied") {
    test::temporary_folder const folder;
    paper::tools run = no_tools(folder);
    auto const parts = paper::machine_parts();
    auto const fig7 = std::ranges::find(parts, "fig7", &paper::part::name);
    REQUIRE(fig7 != parts.end());
    for (hw::table_row const& r : fig7->compute({}, run).rows) {
        CHECK(r.ours == r.paper);
    }
}

TEST_CASE("paper.parts: rows come in the order of the tables asked for, then their own") {
    auto const row = [](char const* table, char const* what) {
        return hw::table_row{table, what, 1, 1, ""};
    };
    auto const some = paper::rows_of(
        {row("B", "1"), row("A", "1"), row("C", "1"), row("A", "2"), row("B", "2")}, {"A", "B"});
    std::string order;
    for (auto const& r : some) {
        order += r.table + r.what;
    }
    CHECK(order == "A1A2B1B2");
}
