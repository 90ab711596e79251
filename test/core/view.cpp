// SPDX-License-Identifier: MIT
#include "core/aborts.hpp"
#include "support/generators.hpp"
#include <sofattn/core/view.hpp>

#include <doctest/doctest.h>

#include <array>
#include <numeric>
#include <type_traits>

using namespace sofattn;
using axis::dim;
using axis::head;
using axis::key;
using axis::query;

namespace {

template <class View, class Axis>
concept sliceable = requires(View v) {
    v.template slice<Axis>(0);
};

/// 0, 1, 2, ... so that an element is its offset.
std::array<int, 24> const numbers = [] {
    std::array<int, 24> result{};
    std::iota(result.begin(), result.end(), 0);
    return result;
}();

} // namespace

TEST_CASE("core.view: the type names the axes, in order") {
    static_assert(!std::is_same_v<view<int, key, dim>, view<int, dim, key>>);
    static_assert(!std::is_convertible_v<view<int, dim, key>, view<int, key, dim>>);
    static_assert(!std::is_constructible_v<view<int, key, dim>, view<int, query, dim>>);
    static_assert(std::is_same_v<key_view<float>, view<float, key, dim>>);
    static_assert(std::is_same_v<query_view<float>, view<float, query, dim>>);
    static_assert(std::is_same_v<value_view<float>, view<float, key, axis::value_dim>>);
    static_assert(std::is_same_v<output_view<float>, view<float, query, axis::value_dim>>);
    static_assert(std::is_trivially_copyable_v<view<int, key, dim>>);
    CHECK(view<int, key, dim>::rank == 2);
}

TEST_CASE("core.view: a view of T reads as a view of T const, never the other way") {
    static_assert(std::is_convertible_v<view<int, key>, view<int const, key>>);
    static_assert(!std::is_constructible_v<view<int, key>, view<int const, key>>);
    static_assert(!std::is_convertible_v<view<short, key>, view<int const, key>>);
    std::array<int, 6> data{};
    view<int, key, dim> const writable(data.data(), {2, 3});
    view<int const, key, dim> const readable = writable;
    writable(1, 2) = 7;
    CHECK(readable(1, 2) == 7);
    CHECK(readable.data() == writable.data());
    CHECK(readable.extents() == writable.extents());
    CHECK(readable.strides() == writable.strides());
}

TEST_CASE("core.view: without strides it is dense, the last axis fastest") {
    view<int const, head, key, dim> const v(numbers.data(), {2, 3, 4});
    CHECK(v.strides() == std::array<index_t, 3>{12, 4, 1});
    CHECK(v.size() == 24);
    CHECK(v.extent<head>() == 2);
    CHECK(v.extent<key>() == 3);
    CHECK(v.extent<dim>() == 4);
    CHECK(v.stride<key>() == 4);
    CHECK(view<int, head, key, dim>::position<dim> == 2);
    for (index_t h = 0; h < 2; ++h) {
        for (index_t k = 0; k < 3; ++k) {
            for (index_t d = 0; d < 4; ++d) {
                CHECK(v(h, k, d) == 12 * h + 4 * k + d);
            }
        }
    }
    CHECK(v(1, 2u, short{3}) == 23); // any integers
}

TEST_CASE("core.view: a default view is empty") {
    constexpr view<int, key, dim> nothing;
    static_assert(nothing.data() == nullptr && nothing.size() == 0 && nothing.extent<key>() == 0);
    CHECK(view<int, key>(nullptr, {0}).size() == 0);
}

TEST_CASE("core.view: a slice loses its axis and keeps the order of the others") {
    view<int const, head, key, dim> const v(numbers.data(), {2, 3, 4});
    auto const one_head = v.slice<head>(1);
    static_assert(std::is_same_v<decltype(one_head), view<int const, key, dim> const>);
    auto const one_key = v.slice<key>(2);
    static_assert(std::is_same_v<decltype(one_key), view<int const, head, dim> const>);
    auto const one_dim = v.slice<dim>(3);
    static_assert(std::is_same_v<decltype(one_dim), view<int const, head, key> const>);
    for (index_t h = 0; h < 2; ++h) {
        for (index_t k = 0; k < 3; ++k) {
            for (index_t d = 0; d < 4; ++d) {
                CHECK(v.slice<head>(h)(k, d) == v(h, k, d));
                CHECK(v.slice<key>(k)(h, d) == v(h, k, d));
                CHECK(v.slice<dim>(d)(h, k) == v(h, k, d));
                CHECK(v.slice<dim>(d).slice<head>(h)(k) == v(h, k, d));
            }
        }
    }
    static_assert(!sliceable<view<int, key>, key>, "a view without axes does not exist");
}

TEST_CASE("core.view: a range has fewer indices of one axis") {
    view<int const, head, key, dim> const v(numbers.data(), {2, 3, 4});
    auto const part = v.range<key>(1, 2).range<dim>(2, 1);
    CHECK(part.extents() == std::array<index_t, 3>{2, 2, 1});
    CHECK(part.strides() == v.strides());
    CHECK(part(1, 1, 0) == v(1, 2, 2));
    CHECK(v.range<key>(3, 0).size() == 0); // empty at the very end
    CHECK(v.range<key>(0, 3).data() == v.data());
}

TEST_CASE("core.view: renamed axes show the same numbers") {
    view<int const, query, axis::value_dim> const output(numbers.data() + 23, {2, 3}, {-12, -4});
    auto const keys = output.renamed<key, dim>();
    static_assert(std::is_same_v<decltype(keys), view<int const, key, dim> const>);
    CHECK(keys.data() == output.data());
    CHECK(keys.strides() == output.strides());
    CHECK(keys(1, 2) == output(1, 2));
}

TEST_CASE("core.view: strides may have any sign, be zero, and leave gaps") {
    view<int const, key, dim> const backwards(numbers.data() + 23, {4, 6}, {-6, -1});
    CHECK(backwards(0, 0) == 23);
    CHECK(backwards(3, 5) == 0);
    CHECK(backwards.slice<key>(1)(2) == 15);
    CHECK(backwards.range<key>(1, 2)(1, 0) == 11);
    CHECK(backwards.range<dim>(4, 2).slice<dim>(1)(3) == 0);
    view<int const, key, dim> const transposed(numbers.data(), {6, 4}, {1, 6});
    CHECK(transposed(5, 3) == 23);
    view<int const, key, dim> const gaps(numbers.data() + 1, {3, 3}, {8, 2});
    CHECK(gaps(2, 2) == 21);
    view<int const, key, dim> const broadcast(numbers.data(), {1000, 4}, {0, 1});
    CHECK(broadcast(999, 3) == 3);
}

TEST_CASE("core.view: every layout of a copy reads alike, sliced and cut too") {
    SOFATTN_GENERATOR(random);
    auto const original = test::random_codes<int, head, key, dim>(random, {3, 5, 7}, 1000);
    auto const v = original.view();
    for (auto const kind : test::all_layouts) {
        auto const copy = test::strided(random, v, kind);
        auto const w = copy.cview();
        CHECK(w.extents() == v.extents());
        test::for_each_index(v.extents(), [&](auto const& i) {
            bool const same = test::at(w, i) == test::at(v, i) &&
                              w.slice<key>(i[1])(i[0], i[2]) == test::at(v, i) &&
                              w.range<dim>(i[2], 1)(i[0], i[1], 0) == test::at(v, i);
            if (!same) {
                FAIL_CHECK("layout ", static_cast<int>(kind));
            }
        });
    }
}

TEST_CASE("core.view: works in constant expressions") {
    static constexpr std::array<int, 6> data{0, 1, 2, 3, 4, 5};
    constexpr view<int const, key, dim> v(data.data(), {2, 3});
    static_assert(v(1, 1) == 4);
    static_assert(v.slice<key>(1)(2) == 5);
    static_assert(v.range<dim>(1, 2)(0, 1) == 2);
    static_assert(v.renamed<query, dim>()(1, 0) == 3);
    CHECK(v.size() == 6);
}

#ifndef NDEBUG
TEST_CASE("core.view: debug builds check indices") {
    view<int const, key, dim> const v(numbers.data(), {4, 6});
    SOFATTN_CHECK_ABORTS("at[a] < extents_[a]", (void)v(4, 0));
    SOFATTN_CHECK_ABORTS("at[a] >= 0", (void)v(0, -1));
    SOFATTN_CHECK_ABORTS("at < extents_[gone]", (void)v.slice<dim>(6));
    SOFATTN_CHECK_ABORTS("first + count <=", (void)v.range<key>(2, 3));
}
#endif
