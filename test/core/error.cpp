// SPDX-License-Identifier: MIT
#include <sofattn/core/error.hpp>

#include <doctest/doctest.h>

#include <stdexcept>
#include <string>
#include <type_traits>

using sofattn::error;

TEST_CASE("core.error: the message names what, value and limit") {
    error const e("attention: keys kept per row", "9", "at most 8");
    CHECK(std::string(e.what()) == "attention: keys kept per row is 9, must be at most 8");
    CHECK(e.subject() == "attention: keys kept per row");
    CHECK(e.value() == "9");
    CHECK(e.limit() == "at most 8");
}

TEST_CASE("core.error: is a std::runtime_error and copies without throwing") {
    static_assert(std::is_base_of_v<std::runtime_error, error>);
    static_assert(std::is_nothrow_move_constructible_v<error>);
    CHECK_THROWS_AS(throw error("a", "b", "c"), std::runtime_error);
    CHECK_THROWS_WITH(throw error("a", "b", "c"), "a is b, must be c");
}
