// SPDX-License-Identifier: MIT
#include <sofattn/core/types.hpp>

#include <doctest/doctest.h>

#include <cstdint>
#include <limits>
#include <type_traits>

using namespace sofattn;

TEST_CASE("core.types: ceil_div is the least number of groups that hold all") {
    static_assert(ceil_div<index_t>(0, 4) == 0);
    for (index_t a = 0; a <= 100; ++a) {
        for (index_t b = 1; b <= 20; ++b) {
            index_t const groups = ceil_div(a, b);
            CHECK(groups * b >= a);
            CHECK((groups - 1) * b < a);
        }
    }
}

TEST_CASE("core.types: indices are signed, keys are stored in 32 bits") {
    static_assert(std::is_signed_v<index_t> && sizeof(index_t) == 8);
    static_assert(std::numeric_limits<key_id>::max() == 2147483647);
    static_assert(!always_false<int, float> && !always_false<>);
    CHECK(max_head_dim == 256);
}
