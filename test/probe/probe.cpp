// SPDX-License-Identifier: MIT
#include <sofattn/probe/probe.hpp>

#include <doctest/doctest.h>

#include <cstdint>
#include <type_traits>

using namespace sofattn;

namespace {

struct deaf_to_tiles {
    static constexpr bool enabled = true;
    void operator()(probe::stage, probe::event, std::uint64_t) const {}
};
struct without_switch {
    void operator()(probe::stage, probe::event, std::uint64_t) const {}
    void begin_tile(probe::tile_id) const {}
};
struct printing : without_switch { // a user's own
    static constexpr bool enabled = true;
};

} // namespace

TEST_CASE("probe.probe: a listener takes events and tiles, and says whether it listens") {
    static_assert(probe::listener<probe::silent>);
    static_assert(probe::listener<printing>);
    static_assert(!probe::listener<deaf_to_tiles>);
    static_assert(!probe::listener<without_switch>);
    CHECK_FALSE(probe::listener<int>);
}

TEST_CASE("probe.probe: silent is empty and stays as it is") {
    static_assert(!probe::silent::enabled && std::is_empty_v<probe::silent>);
    probe::silent s;
    s(probe::stage::selection, probe::event::compare, 7);
    s.begin_tile({1, 2, 3});
    CHECK(s == probe::silent{});
}

TEST_CASE("probe.probe: tiles differ by head, query and key") {
    probe::tile_id const id{1, 2, 3};
    CHECK(id == probe::tile_id{1, 2, 3});
    CHECK(id != probe::tile_id{0, 2, 3});
    CHECK(id != probe::tile_id{1, 0, 3});
    CHECK(id != probe::tile_id{1, 2, 0});
}
