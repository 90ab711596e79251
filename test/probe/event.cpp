// SPDX-License-Identifier: MIT
#include <sofattn/probe/event.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <set>
#include <string_view>

using namespace sofattn;

namespace {

template <class Enum>
void check_names(std::size_t count) {
    std::set<std::string_view> names;
    for (std::size_t i = 0; i < count; ++i) {
        std::string_view const name = probe::name(static_cast<Enum>(i));
        CAPTURE(i);
        CHECK_FALSE(name.empty());
        CHECK(name.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789_") == name.npos);
        names.insert(name);
    }
    CHECK(names.size() == count);
}

} // namespace

TEST_CASE("probe.event: every stage and every event has a name of its own") {
    check_names<probe::stage>(probe::stage_count);
    check_names<probe::event>(probe::event_count);
}

TEST_CASE("probe.event: names are those of the enumerators") {
    // The first, the last and one of each kind: a name left out would shift those behind it.
    CHECK(probe::name(probe::stage::key_prediction) == "key_prediction");
    CHECK(probe::name(probe::stage::score_prediction) == "score_prediction");
    CHECK(probe::name(probe::stage::selection) == "selection");
    CHECK(probe::name(probe::stage::kv_generation) == "kv_generation");
    CHECK(probe::name(probe::stage::attention) == "attention");
    CHECK(probe::name(probe::stage::schedule) == "schedule");
    CHECK(probe::name(probe::event::lz_encode) == "lz_encode");
    CHECK(probe::name(probe::event::shift_add_16) == "shift_add_16");
    CHECK(probe::name(probe::event::skipped_zero) == "skipped_zero");
    CHECK(probe::name(probe::event::multiply_add_16) == "multiply_add_16");
    CHECK(probe::name(probe::event::compare) == "compare");
    CHECK(probe::name(probe::event::clipped) == "clipped");
    CHECK(probe::name(probe::event::divide) == "divide");
    CHECK(probe::name(probe::event::max_update) == "max_update");
    CHECK(probe::name(probe::event::token_bytes) == "token_bytes");
    CHECK(probe::name(probe::event::output_bytes) == "output_bytes");
    static_assert(probe::name(probe::event::exp) == "exp");
}

TEST_CASE("probe.event: traffic is what is named after bytes") {
    for (std::size_t i = 0; i < probe::event_count; ++i) {
        auto const e = static_cast<probe::event>(i);
        CHECK(probe::is_bytes(e) == probe::name(e).ends_with("_bytes"));
    }
}
