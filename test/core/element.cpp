// SPDX-License-Identifier: MIT
#include "support/generators.hpp"
#include <sofattn/core/element.hpp>

#include <doctest/doctest.h>

#include <cstddef>
#include <vector>

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

TEST_CASE_TEMPLATE("core.element: rows are visited in order and summed, whatever their strides", T,
                   float, half, bfloat16) {
    SOFATTN_GENERATOR(random);
    for (index_t const columns : {0, 1, 3, 16, 31, 130}) {
        auto const values = test::random_matrix<T, axis::key, axis::dim>(random, {4, columns});
        for (auto const kind : test::all_layouts) {
            auto const copy = test::strided(random, values.view(), kind);
            std::vector<double> sums(static_cast<std::size_t>(columns), 0.25);
            index_t next = 0;
            bool same = true;
            for_each_float(copy.cview(), 2, [&](index_t i, float value) {
                same = same && i == next++ && value == to_float(values(2, i));
            });
            CHECK(same);
            CHECK(next == columns);
            add_row(copy.cview(), 1, sums.data());
            add_row(copy.cview(), 3, sums.data());
            for (index_t c = 0; c < columns; ++c) {
                double const sum = 0.25 + static_cast<double>(to_float(values(1, c))) +
                                   static_cast<double>(to_float(values(3, c)));
                CHECK(sums[static_cast<std::size_t>(c)] == sum);
            }
        }
    }
}
