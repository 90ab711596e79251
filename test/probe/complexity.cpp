// SPDX-License-Identifier: MIT
#include <sofattn/probe/complexity.hpp>

#include <doctest/doctest.h>

#include <cstddef>
#include <set>
#include <string>

using namespace sofattn;
using namespace sofattn::probe;

TEST_CASE("probe.complexity: is the weighted sum, by stage and in all") {
    ledger counts;
    counts(stage::attention, event::exp, 3);
    counts(stage::attention, event::multiply, 5);
    counts(stage::selection, event::compare, 7);
    CHECK(complexity(counts, stage::attention, sofa_weights) == 3 * 34 + 5 * 4);
    CHECK(complexity(counts, stage::selection, sofa_weights) == 7);
    CHECK(complexity(counts, stage::score_prediction, sofa_weights) == 0);
    CHECK(complexity(counts, sofa_weights) == 3 * 34 + 5 * 4 + 7);
}

TEST_CASE("probe.complexity: scaling one weight moves exactly its share") {
    ledger counts;
    counts(stage::attention, event::exp, 3);
    counts(stage::attention, event::add, 11);
    auto weights = unit_weights;
    double const before = complexity(counts, weights);
    weights.with(event::exp, 2 * unit_weights.of(event::exp));
    CHECK(complexity(counts, weights) - before == 3);
}

TEST_CASE("probe.complexity: every table weighs every operation, no traffic, and has a source") {
    std::set<std::string> names;
    for (auto const& weights : complexity_tables) {
        CAPTURE(weights.name);
        CHECK(names.insert(std::string(weights.name)).second);
        CHECK_FALSE(weights.unit.empty());
        CHECK_FALSE(weights.source.empty());
        for (std::size_t e = 0; e < event_count; ++e) {
            auto const which = static_cast<event>(e);
            CAPTURE(name(which));
            // Skipped, clipped and updated say what happened; the work itself is counted apart.
            bool const is_work = !is_bytes(which) && which != event::skipped_zero &&
                                 which != event::clipped && which != event::max_update;
            CHECK((weights.of(which) > 0) == is_work);
        }
    }
}

TEST_CASE("probe.complexity: wider operands never weigh less") {
    for (auto const& weights : complexity_tables) {
        CAPTURE(weights.name);
        CHECK(weights.of(event::shift_add_8) <= weights.of(event::shift_add_16));
        CHECK(weights.of(event::multiply_add_4) <= weights.of(event::multiply_add_8));
        CHECK(weights.of(event::multiply_add_8) <= weights.of(event::multiply_add_16));
    }
}
