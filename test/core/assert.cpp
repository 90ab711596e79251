// SPDX-License-Identifier: MIT
#include "core/aborts.hpp"
#include <sofattn/core/assert.hpp>

#include <doctest/doctest.h>

#include <type_traits>

TEST_CASE("core.assert: a broken precondition is named and ends the program") {
    int const keys = 3;
    SOFATTN_CHECK_ABORTS("assert.cpp:", SOFATTN_ASSERT(keys == 4));
    SOFATTN_CHECK_ABORTS("sofattn precondition does not hold: keys == 4\n",
                         SOFATTN_ASSERT(keys == 4));
}

TEST_CASE("core.assert: SOFATTN_DASSERT checks in debug builds only") {
#ifdef NDEBUG
    SOFATTN_DASSERT(1 + 1 == 3);
#else
    SOFATTN_CHECK_ABORTS("1 + 1 == 3", SOFATTN_DASSERT(1 + 1 == 3));
#endif
}

TEST_CASE("core.assert: a precondition that holds costs nothing but its evaluation") {
    int evaluated = 0;
    SOFATTN_ASSERT(++evaluated == 1);
    CHECK(evaluated == 1);
    static_assert([] {
        SOFATTN_ASSERT(std::is_same_v<int, int>); // a bare comma, in a constant expression
        return true;
    }());
}
