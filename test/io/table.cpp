// SPDX-License-Identifier: MIT
#include <sofattn/io/table.hpp>

#include <doctest/doctest.h>

using namespace sofattn;

TEST_CASE("io.table: names to the left, numbers to the right, no trailing blanks") {
    io::table table({"name", "n"});
    table.add({"a", "10"});
    table.add({"longer", "7"});
    CHECK(table.text() == "name     n\na       10\nlonger   7\n");
    CHECK(table.text(2) == "  name     n\n  a       10\n  longer   7\n");
    CHECK(table.markdown() ==
          "| name   |  n |\n| --- | ---: |\n| a      | 10 |\n| longer |  7 |\n");
}

TEST_CASE("io.table: CSV quotes what needs it") {
    io::table table({"name", "n"});
    table.add({"a, \"b\"", "1"});
    CHECK(table.csv() == "name,n\r\n\"a, \"\"b\"\"\",1\r\n");
}

TEST_CASE("io.table: a row of another length is refused") {
    io::table table({"name", "n"});
    CHECK_THROWS_WITH_AS(table.add({"a"}),
                         "table: cells in a row is 1, must be those of the header, 2", error);
}
