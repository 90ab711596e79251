// SPDX-License-Identifier: MIT
#include <sofattn/core/element.hpp>

#include <doctest/doctest.h>

using namespace sofattn;

TEST_CASE("core.element: float, half and bfloat16 are storage types, others are not") {
    static_assert(storage_float<float> && storage_float<half> && storage_float<bfloat16>);
    static_assert(storage_float<float const>);
    static_assert(!storage_float<double> && !storage_float<int> && !storage_float<float&>);
    static_assert(to_float(1.5f) == 1.5f);
    static_assert(to_float(half(1.5f)) == 1.5f);
    static_assert(to_float(bfloat16(1.5f)) == 1.5f);
    CHECK(to_float(half::from_bits(0x0001)) == 0x1p-24f);
}
