// SPDX-License-Identifier: MIT
#include "support/generators.hpp"
#include <sofattn/core/element.hpp>
#include <sofattn/core/tensor.hpp>

#include <doctest/doctest.h>

#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>

using namespace sofattn;
using axis::dim;
using axis::head;
using axis::key;

namespace {

template <class T>
bool is_aligned(T const* p) {
    return reinterpret_cast<std::uintptr_t>(p) % 64 == 0;
}

} // namespace

TEST_CASE_TEMPLATE("core.tensor: rows begin on 64 bytes, elements and padding are zero", T,
                   std::int8_t, std::int16_t, std::int32_t, std::int64_t, float, double, half,
                   bfloat16) {
    for (index_t const dims : {1, 3, 16, 63, 64, 65}) {
        tensor<T, head, key, dim> t({2, 3, dims});
        index_t const row = t.view().template stride<key>();
        CHECK(t.view().template stride<dim>() == 1);
        CHECK(row >= dims);
        CHECK(row - dims < static_cast<index_t>(64 / sizeof(T))); // no more than it takes
        CHECK(t.view().template stride<head>() == 3 * row);
        for (index_t h = 0; h < 2; ++h) {
            for (index_t k = 0; k < 3; ++k) {
                T const* const first = &t(h, k, 0);
                CHECK(is_aligned(first));
                for (index_t d = 0; d < row; ++d) { // the padding may be read
                    CHECK(static_cast<float>(first[d]) == 0.0f);
                }
            }
        }
    }
}

TEST_CASE_TEMPLATE("core.tensor: for_overwrite has the same rows, and zero padding", T, std::int8_t,
                   std::int16_t, float, double, half) {
    for (index_t const dims : {0, 1, 3, 16, 63, 64, 65}) {
        using matrix = tensor<T, head, key, dim>;
        auto array = matrix::for_overwrite({2, 3, dims});
        auto const rows = array.view();
        CHECK(rows.strides() == matrix({2, 3, dims}).view().strides());
        index_t const stride = rows.template stride<key>();
        for (index_t r = 0; r < 6; ++r) {
            CHECK(is_aligned(rows.data() + r * stride));
            for (index_t d = dims; d < stride; ++d) {
                CHECK(rows.data()[r * stride + d] == T{});
            }
        }
    }
    CHECK_THROWS_AS(static_cast<void>(tensor<float, key, dim>::for_overwrite({-3, 2})), error);
    CHECK(tensor<float, key>::for_overwrite({0}).view().size() == 0);
}

TEST_CASE("core.tensor: knows its extents and its views see its elements") {
    tensor<int, key, dim> t({3, 5});
    CHECK(t.extent<key>() == 3);
    CHECK(t.extent<dim>() == 5);
    t(2, 4) = 7;
    tensor<int, key, dim> const& read = t;
    CHECK(read(2, 4) == 7);
    CHECK(read.view()(2, 4) == 7);
    CHECK(t.cview()(2, 4) == 7);
    t.view()(0, 1) = 8;
    CHECK(read(0, 1) == 8);
    static_assert(std::is_same_v<decltype(read.view()), view<int const, key, dim>>);
    static_assert(std::is_same_v<decltype(t.view()), view<int, key, dim>>);
    static_assert(std::is_same_v<decltype(t.cview()), view<int const, key, dim>>);
}

TEST_CASE("core.tensor: a copy is deep, a move leaves the elements where they are") {
    SOFATTN_GENERATOR(random);
    auto original = test::random_codes<std::int16_t, key, dim>(random, {4, 9}, 1000);
    tensor<std::int16_t, key, dim> copy = original;
    CHECK(&copy(0, 0) != &original(0, 0));
    CHECK(copy.view().strides() == original.view().strides());
    test::for_each_index(original.view().extents(), [&](auto const& i) {
        CHECK(test::at(copy.cview(), i) == test::at(original.cview(), i));
    });
    CHECK((&copy(0, 0))[9] == 0); // padding included

    std::int16_t const kept = copy(3, 8);
    original(3, 8) = static_cast<std::int16_t>(kept + 1);
    CHECK(copy(3, 8) == kept);
    copy = original;
    CHECK(copy(3, 8) == kept + 1);
    auto const& self = copy;
    copy = self;
    CHECK(copy(3, 8) == kept + 1);

    std::int16_t const* const where = &original(0, 0);
    tensor<std::int16_t, key, dim> const moved = std::move(original);
    CHECK(&moved(0, 0) == where);
    static_assert(std::is_nothrow_move_constructible_v<decltype(copy)>);
}

TEST_CASE("core.tensor: may be empty") {
    tensor<float, key, dim> const nothing;
    CHECK(nothing.view().size() == 0);
    tensor<float, key, dim> const copy = nothing;
    CHECK(copy.view().size() == 0);
    CHECK(tensor<float, key, dim>({0, 64}).view().size() == 0);
    CHECK(tensor<float, key, dim>({5, 0}).extent<key>() == 5);
}

TEST_CASE("core.tensor: a negative extent is an error that names axis, value and limit") {
    CHECK_THROWS_WITH((tensor<float, key, dim>({4, -1})),
                      "tensor: extent 1 is -1, must be at least 0");
    CHECK_THROWS_AS((tensor<float, key, dim>({-3, 2})), error);
}
