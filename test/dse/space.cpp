// SPDX-License-Identifier: MIT
#include "support/generators.hpp"
#include <sofattn/core/error.hpp>
#include <sofattn/dse/space.hpp>

#include <doctest/doctest.h>

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <vector>

namespace {

using namespace sofattn;
using namespace sofattn::dse;

/// A mode; what counts in mode 1 only; what counts where that is 4 or 6; and one that always counts.
search_space conditional() {
    return search_space({{"mode", 0, 2, 1, {}},
                         {"width", 2, 8, 2, condition{0, 1, 1}},
                         {"depth", 1, 3, 1, condition{1, 4, 6}},
                         {"always", -1, 0, 1, {}}});
}

void refused(std::vector<dimension> dimensions, std::string const& part) {
    try {
        search_space const made(std::move(dimensions));
        FAIL("accepted");
    } catch (error const& e) {
        CAPTURE(e.what());
        CHECK(std::string(e.what()).find(part) != std::string::npos);
    }
}

} // namespace

TEST_CASE("dse.space: descriptions that make no sense are refused by name") {
    refused({}, "number of dimensions is 0");
    refused({{"", 0, 1, 1, {}}}, "name is empty");
    refused({{"a", 0, 1, 1, {}}, {"a", 0, 2, 1, {}}}, "(a): name is there twice");
    refused({{"a", 0, 1, 0, {}}}, "step is 0");
    refused({{"a", 2, 1, 1, {}}}, "range is 2 to 1");
    refused({{"a", 0, 5, 2, {}}}, "a multiple of its step, 2");
    refused({{"a", 0, index_t{1} << 40, 1, {}}}, "within 31 bits");
    refused({{"a", 0, 1, 1, condition{0, 0, 0}}}, "condition on dimension is 0");
}

TEST_CASE("dse.space: a dimension counts where its condition holds, through a chain of them") {
    auto const s = conditional();
    CHECK(s.canonical({0, 2, 2, 1}) == point{0, 0, 0, 1});
    CHECK(s.canonical({1, 2, 2, 1}) == point{1, 2, 2, 1}); // width 6
    CHECK(s.canonical({1, 3, 2, 0}) == point{1, 3, 0, 0}); // width 8: no depth
    CHECK_FALSE(s.contains({0, 1, 0, 0}));
    CHECK_FALSE(s.contains({1, 0, 0}));
    CHECK_FALSE(s.contains({3, 0, 0, 0}));
    CHECK_FALSE(s.contains({-1, 0, 0, 0}));
    CHECK(s.contains({1, 1, 2, 0}));
    CHECK(s.value({1, 2, 1, 0}, 1) == 6);
    CHECK(s.value({1, 2, 1, 0}, 3) == -1);
}

TEST_CASE("dse.space: going through all points meets each once, in order, and no other") {
    auto const s = conditional();
    std::set<point> all;
    std::optional<point> before;
    for (std::optional<point> p = point(s.size(), 0); p; p = s.after(*p)) {
        CHECK(s.contains(*p));
        CHECK((!before || *before < *p));
        all.insert(*p);
        before = p;
    }
    // Modes 0 and 2: 2 each. Mode 1: widths 2 and 8 one depth, 4 and 6 three, times 2.
    CHECK(all.size() == 4 + 2 * (1 + 3 + 3 + 1));
    SOFATTN_GENERATOR(random);
    std::set<point> drawn;
    random_stream stream(random.next(), 1);
    for (int n = 0; n < 2000; ++n) {
        point const p = s.random_point(stream);
        CHECK(all.contains(p));
        CHECK(s.canonical(p) == p);
        drawn.insert(p);
    }
    CHECK(drawn == all);
    CHECK(s.most_points() == 3.0 * 4.0 * 3.0 * 2.0);
}

TEST_CASE("dse.space: places span the unit cube, with the middle where nothing counts") {
    auto const s = conditional();
    std::vector<double> at(4);
    s.place({0, 0, 0, 0}, at);
    CHECK(at == std::vector<double>{0.0, 0.5, 0.5, 0.0});
    s.place({1, 2, 2, 1}, at);
    CHECK(at == std::vector<double>{0.5, 2.0 / 3.0, 1.0, 1.0});
    search_space const one({{"fixed", 3, 3, 1, {}}});
    at.resize(1);
    one.place({0}, at);
    CHECK(at[0] == 0.5);
}
