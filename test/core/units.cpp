// SPDX-License-Identifier: MIT
#include <sofattn/core/units.hpp>

#include <doctest/doctest.h>

#include <cstdint>
#include <string_view>
#include <type_traits>

using namespace sofattn;

namespace {

template <class A, class B>
concept addable = requires(A a, B b) {
    a + b;
};
template <class A, class B>
concept comparable = requires(A a, B b) {
    a < b;
};

} // namespace

TEST_CASE("core.units: quantities of one unit add, subtract, scale and compare") {
    constexpr cycles a(40);
    constexpr cycles b(2);
    static_assert((a + b).count() == 42);
    static_assert((a - b).count() == 38);
    static_assert((a * 3).count() == 120 && (3 * a).count() == 120);
    static_assert(a / b == 20);
    static_assert(b < a && a != b && a == cycles(40));
    static_assert(cycles{}.count() == 0);
    cycles sum;
    sum += a;
    sum += b;
    sum -= cycles(1);
    CHECK(sum == cycles(41));
    CHECK((picojoules(0.5) + picojoules(0.25)).count() == 0.75);
    CHECK(picojoules(3.0) / picojoules(2.0) == 1.5);
}

TEST_CASE("core.units: different units and bare numbers do not mix") {
    static_assert(addable<cycles, cycles> && addable<picojoules, picojoules>);
    static_assert(!addable<cycles, picojoules> && !addable<cycles, bytes>);
    static_assert(!addable<cycles, std::uint64_t> && !addable<std::uint64_t, cycles>);
    static_assert(!comparable<cycles, bytes> && !comparable<cycles, std::uint64_t>);
    static_assert(!std::is_convertible_v<std::uint64_t, cycles>);
    static_assert(!std::is_convertible_v<cycles, std::uint64_t>);
    static_assert(!std::is_constructible_v<cycles, bytes>);
    static_assert(sizeof(cycles) == sizeof(std::uint64_t));
}

TEST_CASE("core.units: units have names") {
    CHECK(std::string_view(bytes::unit::name) == "bytes");
    CHECK(std::string_view(cycles::unit::name) == "cycles");
    CHECK(std::string_view(picojoules::unit::name) == "picojoules");
}
