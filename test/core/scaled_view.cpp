// SPDX-License-Identifier: MIT
#include "support/generators.hpp"
#include <sofattn/core/scaled_view.hpp>
#include <sofattn/core/tensor.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/core/view.hpp>

#include <doctest/doctest.h>

#include <cstdint>
#include <type_traits>
#include <vector>

using namespace sofattn;
using namespace sofattn::test;

TEST_CASE("core.scaled_view: slices and ranges of any strides are scale * code") {
    SOFATTN_GENERATOR(random);
    for (layout const kind : all_layouts) {
        auto const codes =
            random_codes<std::int8_t, axis::kv_head, axis::key, axis::dim>(random, {3, 7, 5}, 127);
        auto const scales = random_matrix<float, axis::kv_head, axis::key>(random, {3, 7});
        auto const c = strided(random, codes.cview(), kind);
        auto const s = strided(random, scales.cview(), kind);
        scaled_view<axis::kv_head, axis::key, axis::dim> const all(c.cview(), s.cview());
        static_assert(std::is_same_v<decltype(all)::column, axis::dim>);
        int wrong = 0;
        for_each_index(codes.cview().extents(), [&](auto const& i) {
            float const truth = scales(i[0], i[1]) * static_cast<float>(at(codes.cview(), i));
            auto const head = all.slice<axis::kv_head>(i[0]);
            static_assert(std::is_same_v<decltype(head), scaled_view<axis::key, axis::dim> const>);
            bool const same = all(i[0], i[1], i[2]) == truth && head(i[1], i[2]) == truth &&
                              head.template slice<axis::key>(i[1])(i[2]) == truth &&
                              head.template range<axis::key>(i[1], 7 - i[1])(0, i[2]) == truth &&
                              all.range<axis::dim>(i[2], 5 - i[2])(i[0], i[1], 0) == truth &&
                              all.slice<axis::key>(i[1])(i[0], i[2]) == truth;
            wrong += same ? 0 : 1;
        });
        CHECK(wrong == 0);
        std::vector<float> row;
        for_each_float(all.slice<axis::kv_head>(2).slice<axis::key>(6),
                       [&](index_t, float x) { row.push_back(x); });
        REQUIRE(row.size() == 5);
        CHECK(row[4] == all(2, 6, 4));
        CHECK(all.extent<axis::key>() == 7);
        CHECK(all.slice<axis::kv_head>(0).range<axis::key>(2, 4).extent<axis::key>() == 4);
        CHECK(all.slice<axis::kv_head>(0).range<axis::key>(2, 4).scales().extent<axis::key>() == 4);
    }
}

TEST_CASE("core.scaled_view: storage types") {
    static_assert(storage_element<float> && storage_element<std::int8_t>);
    static_assert(!storage_element<std::int16_t> && !storage_float<std::int8_t>);
    static_assert(std::is_same_v<stored_view<std::int8_t, axis::key, axis::dim>,
                                 scaled_view<axis::key, axis::dim>>);
    static_assert(std::is_same_v<stored_view<float, axis::key, axis::dim>,
                                 view<float const, axis::key, axis::dim>>);
    scaled_view<axis::key, axis::dim> const nothing;
    CHECK(nothing.extent<axis::key>() == 0);
}
