// SPDX-License-Identifier: MIT
#include "support/generators.hpp"
#include <sofattn/core/bfloat16.hpp>
#include <sofattn/core/half.hpp>
#include <sofattn/core/output_array.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/core/view.hpp>

#include <doctest/doctest.h>

#include <type_traits>
#include <vector>

using namespace sofattn;
using namespace sofattn::test;

namespace {

template <class T>
using outputs = view<T, axis::head, axis::query, axis::value_dim>;

static_assert(std::is_convertible_v<outputs<float>, output_array>);
static_assert(std::is_convertible_v<outputs<half>, output_array>);
static_assert(std::is_convertible_v<outputs<bfloat16>, output_array>);
static_assert(!std::is_convertible_v<outputs<float const>, output_array>);
static_assert(!std::is_convertible_v<outputs<double>, output_array>);
static_assert(!std::is_convertible_v<view<float, axis::head, axis::query, axis::dim>, output_array>,
              "queries are no outputs");
static_assert(storage_type_of<float> == storage_type::f32 &&
              storage_type_of<half> == storage_type::f16 &&
              storage_type_of<bfloat16> == storage_type::bf16);

} // namespace

TEST_CASE_TEMPLATE("core.output_array: rows are those of the view, whatever the strides", T, float,
                   half, bfloat16) {
    SOFATTN_GENERATOR(random);
    for (layout const kind : all_layouts) {
        tensor<T, axis::head, axis::query, axis::value_dim> const numbers =
            random_matrix<T, axis::head, axis::query, axis::value_dim>(random, {3, 5, 7});
        auto copy = strided(random, numbers.cview(), kind);
        outputs<T> const of = copy.view();
        output_array const array = of;
        CHECK(array.type() == storage_type_of<T>);
        CHECK(array.extent<axis::head>() == 3);
        CHECK(array.extent<axis::query>() == 5);
        CHECK(array.extent<axis::value_dim>() == 7);
        for (index_t h = 0; h < 3; ++h) {
            for (index_t q = 0; q < 5; ++q) {
                output_row const row = array.row(h, q);
                CHECK(row.type() == storage_type_of<T>);
                CHECK(row.size() == 7);
                for (index_t d = 0; d < 7; ++d) {
                    CHECK(&row.as<T>()(d) == &of(h, q, d));
                }
            }
        }
    }
}

TEST_CASE_TEMPLATE("core.output_array: braces name the same rows as a view", T, float, half,
                   bfloat16) {
    std::vector<T> numbers(2 * 3 * 4);
    index_t const queries = 3; // known at run time only, as in a call
    auto const row_of = [](output_array const& array, index_t h, index_t q) {
        return array.row(h, q).template as<T>();
    };
    for (index_t h = 0; h < 2; ++h) {
        for (index_t q = 0; q < queries; ++q) {
            CAPTURE(h);
            CAPTURE(q);
            CHECK(row_of({numbers.data(), {2, queries, 4}}, h, q).data() ==
                  numbers.data() + (h * queries + q) * 4);
            // [query, head, value_dim], as engines keep it
            auto const strided = row_of({numbers.data(), {2, queries, 4}, {4, 8, 1}}, h, q);
            CHECK(strided.data() == numbers.data() + q * 8 + h * 4);
            CHECK(strided.size() == 4);
        }
    }
}
