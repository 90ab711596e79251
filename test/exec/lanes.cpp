// SPDX-License-Identifier: MIT
#include "support/generators.hpp"
#include "support/watched.hpp"
#include <sofattn/exec/lanes.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

using namespace sofattn;
using exec::scalar_lanes;

#define SOFATTN_WIDTHS                                                                             \
    scalar_lanes<1>, scalar_lanes<3>, scalar_lanes<4>, scalar_lanes<8>, scalar_lanes<16>

namespace {

struct not_lanes {
    static constexpr index_t width = 4;
    template <class T>
    struct pack {};
};

/// y[i] = sum over d of (a[d] * b[d, i] + (b[d, i] << s[d, i])): blocks of lanes with a tail, as
/// every stage is written.
template <class Lanes, class T>
std::vector<T> sums(std::vector<T> const& a, std::vector<T> const& b, std::vector<int> const& s,
                    index_t outputs) {
    std::vector<T> y(static_cast<std::size_t>(outputs));
    for (index_t first = 0; first < outputs; first += Lanes::width) {
        index_t const block = std::min<index_t>(Lanes::width, outputs - first);
        auto sum = Lanes::template pack<T>::fill(T{0});
        for (std::size_t d = 0; d < a.size(); ++d) {
            auto const at = [&](index_t i) {
                return d * static_cast<std::size_t>(outputs) + static_cast<std::size_t>(first + i);
            };
            auto const column =
                Lanes::template gather<T>(block, [&](index_t i) { return b[at(i)]; });
            sum = sum + Lanes::template pack<T>::fill(a[d]) * column;
            if constexpr (std::is_integral_v<T>) {
                sum = sum + (column << Lanes::template gather<int>(
                                 block, [&](index_t i) { return s[at(i)]; }));
            }
        }
        for (index_t i = 0; i < block; ++i) {
            y[static_cast<std::size_t>(first + i)] = sum.lane[static_cast<std::size_t>(i)];
        }
    }
    return y;
}

template <class Lanes, class T, class Draw>
void check_sums(test::generator& random, Draw draw) {
    for (index_t const outputs : {0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 33}) {
        std::vector<T> a(6);
        std::vector<T> b(a.size() * static_cast<std::size_t>(outputs));
        std::vector<int> s(b.size());
        std::ranges::generate(a, draw);
        std::ranges::generate(b, draw);
        std::ranges::generate(s, [&] { return random.integer(0, 7); });
        std::vector<T> plain(static_cast<std::size_t>(outputs));
        for (std::size_t d = 0; d < a.size(); ++d) {
            for (std::size_t i = 0; i < plain.size(); ++i) {
                T const x = b[d * plain.size() + i];
                plain[i] += a[d] * x;
                if constexpr (std::is_integral_v<T>) {
                    plain[i] += x * (1 << s[d * plain.size() + i]);
                }
            }
        }
        CHECK(sums<Lanes>(a, b, s, outputs) == plain);
    }
}

} // namespace

TEST_CASE_TEMPLATE("exec.lanes: any width gives the results of plain loops, tails included", Lanes,
                   SOFATTN_WIDTHS) {
    SOFATTN_GENERATOR(random);
    check_sums<Lanes, std::int32_t>(random, [&] { return random.integer(-1000, 1000); });
    check_sums<Lanes, std::int64_t>(
        random, [&] { return random.integer<std::int64_t>(-1'000'000'000, 1'000'000'000); });
    // Floating sums are in one order whatever the width, so even these are equal.
    check_sums<Lanes, double>(random, [&] { return random.normal(); });
    check_sums<Lanes, float>(random, [&] { return static_cast<float>(random.normal()); });
}

TEST_CASE_TEMPLATE("exec.lanes: gather takes the first count values and leaves zero beyond", Lanes,
                   SOFATTN_WIDTHS) {
    for (index_t count = 0; count <= Lanes::width + 1; ++count) {
        index_t calls = 0;
        auto const p = Lanes::template gather<std::int32_t>(count, [&](index_t i) {
            ++calls;
            return static_cast<std::int8_t>(-1 - i); // widened
        });
        CHECK(calls == std::min<index_t>(count, Lanes::width));
        for (index_t i = 0; i < Lanes::width; ++i) {
            CHECK(p.lane[static_cast<std::size_t>(i)] == (i < count ? -1 - i : 0));
        }
    }
}

TEST_CASE_TEMPLATE("exec.lanes: fill, add, multiply and shift act on every lane alone", Lanes,
                   SOFATTN_WIDTHS) {
    using pack = typename Lanes::template pack<std::int32_t>;
    auto const ramp =
        Lanes::template gather<std::int32_t>(Lanes::width, [](index_t i) { return i; });
    pack const three = pack::fill(3);
    pack const sum = ramp + three;
    pack const product = ramp * three;
    pack const shifted = pack::fill(-5) << ramp;
    for (std::size_t i = 0; i < ramp.lane.size(); ++i) {
        auto const n = static_cast<std::int32_t>(i);
        CHECK(three.lane[i] == 3);
        CHECK(sum.lane[i] == n + 3);
        CHECK(product.lane[i] == 3 * n);
        CHECK(shifted.lane[i] == -5 * (1 << n));
        CHECK(pack{}.lane[i] == 0);
    }
}

TEST_CASE("exec.lanes: the concept asks for width and arithmetic") {
    static_assert(exec::lanes<scalar_lanes<1>> && exec::lanes<scalar_lanes<16>>);
    static_assert(exec::lanes<test::watched_lanes>);
    static_assert(!exec::lanes<not_lanes> && !exec::lanes<int>);
    CHECK(scalar_lanes<3>::width == 3);
}

TEST_CASE("exec.lanes: a watched number counts each lane operation once") {
    using lanes = test::watched_lanes;
    auto const done = test::watch([] {
        auto const a = lanes::pack<int>::fill(5);
        auto const b = lanes::gather<int>(1, [](index_t) { return 2; });
        auto const r = a * b + (a << b);
        CHECK(static_cast<int>(r.lane[0]) == 30);
    });
    CHECK(done == test::tally{.adds = 1, .multiplies = 1, .shifts = 1});
}
