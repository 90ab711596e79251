// SPDX-License-Identifier: MIT
#include "support/generators.hpp"
#include <sofattn/core/types.hpp>
#include <sofattn/exec/integer_lanes.hpp>
#include <sofattn/exec/short_lanes.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace {

using namespace sofattn;

constexpr auto width = static_cast<std::size_t>(exec::short_width);
using shorts = std::array<std::int16_t, width>;

shorts some_shorts(test::generator& random) {
    shorts x;
    for (std::int16_t& lane : x) {
        int const kind = random.integer(0, 7);
        lane = static_cast<std::int16_t>(kind == 0   ? -32768
                                         : kind == 1 ? 32767
                                         : kind == 2 ? 0
                                         : kind == 3 ? -1
                                                     : random.integer(-32768, 32767));
    }
    return x;
}

shorts lanes_of(exec::vector_int16 x) {
    shorts lanes;
    exec::store(lanes.data(), x);
    return lanes;
}

/// op on registers, lane by lane what `plain` says of unsigned numbers.
template <class Op, class Plain>
void check_lanes(Op op, Plain plain, char const* what) {
    SOFATTN_GENERATOR(random);
    CAPTURE(what);
    bool same = true;
    for (int round = 0; round < 500; ++round) {
        shorts const a = some_shorts(random);
        shorts const b = some_shorts(random);
        shorts const found = lanes_of(op(exec::load(a.data()), exec::load(b.data())));
        for (std::size_t i = 0; i < width; ++i) {
            auto const x = static_cast<std::uint16_t>(a[i]);
            auto const y = static_cast<std::uint16_t>(b[i]);
            same = same &&
                   static_cast<std::uint16_t>(found[i]) == static_cast<std::uint16_t>(plain(x, y));
        }
    }
    CHECK(same);
}

using vector = exec::vector_int16;
using number = std::uint32_t;

std::int16_t as_signed(number x) {
    return static_cast<std::int16_t>(static_cast<std::uint16_t>(x));
}

} // namespace

TEST_CASE("exec.short_lanes: arithmetic of 16 bits") {
    check_lanes([](vector a, vector b) { return a + b; }, [](number a, number b) { return a + b; },
                "+");
    check_lanes([](vector a, vector b) { return a - b; }, [](number a, number b) { return a - b; },
                "-");
    check_lanes([](vector a, vector b) { return exec::less_by(a, b); },
                [](number a, number b) { return a > b ? a - b : 0; }, "less_by");
    check_lanes([](vector a, vector b) { return exec::high_product(a, b); },
                [](number a, number b) { return (a * b) >> 16; }, "high_product");
    check_lanes([](vector a, vector b) { return exec::larger(a, b); },
                [](number a, number b) {
                    return static_cast<number>(std::max(as_signed(a), as_signed(b)));
                },
                "larger");
    check_lanes([](vector a, vector) { return exec::shifted_left<5>(a); },
                [](number a, number) { return a << 5; }, "shifted_left");
    check_lanes([](vector a, vector) { return exec::shifted_right<5>(a); },
                [](number a, number) { return a >> 5; }, "shifted_right by a constant");
    check_lanes(
        [](vector a, vector b) {
            return exec::shifted_right(a, exec::shifted_right<11>(b)); // up to 31
        },
        [](number a, number b) { return a >> (b >> 11); }, "shifted_right by lanes");
    check_lanes([](vector a, vector) { return exec::shifted_right(a, exec::all_shorts(-1)); },
                [](number, number) { return 0u; }, "shifted_right by more than there is");
    check_lanes([](vector a, vector) { return exec::rounded_half(a); },
                [](number a, number) { return (a + 1) >> 1; }, "rounded_half");
    check_lanes([](vector, vector) { return exec::all_shorts(-7); },
                [](number, number) { return static_cast<number>(-7); }, "all_shorts");
}

TEST_CASE("exec.short_lanes: comparison, compression, extremes") {
    SOFATTN_GENERATOR(random);
    CHECK(lanes_of(exec::short_numbers())[width - 1] == static_cast<std::int16_t>(width - 1));
    for (int round = 0; round < 500; ++round) {
        shorts const a = some_shorts(random);
        shorts const b = some_shorts(random);
        exec::lane_mask const mask = exec::lanes_above(exec::load(a.data()), exec::load(b.data()));
        std::vector<std::int16_t> wanted;
        for (std::size_t i = 0; i < width; ++i) {
            REQUIRE(((mask >> i) & 1u) == (a[i] > b[i] ? 1u : 0u));
            if (a[i] > b[i]) {
                wanted.push_back(b[i]);
            }
        }
        shorts packed;
        index_t const count = exec::compress(mask, exec::load(b.data()), packed.data());
        REQUIRE(count == std::ssize(wanted));
        REQUIRE(std::equal(wanted.begin(), wanted.end(), packed.begin()));
        REQUIRE(exec::largest(exec::load(a.data())) == *std::ranges::max_element(a));
        std::uint16_t least = 0xffff;
        for (std::int16_t const lane : a) {
            least = std::min(least, static_cast<std::uint16_t>(lane));
        }
        REQUIRE(exec::smallest_unsigned(exec::load(a.data())) == least);
    }
}

TEST_CASE("exec.integer_lanes: shifts by any distance leave what is left") {
    for (std::int32_t const by : {0, 1, 31, 32, 33, 127, 128, 255, 256, 510}) {
        CAPTURE(by);
        std::array<std::int32_t, width / 2> lanes;
        lanes.fill(-2);
        exec::store(lanes.data(),
                    exec::shifted_right(exec::load(lanes.data()), exec::vector_int32(by)));
        std::uint32_t const wanted = by < 32 ? 0xfffffffeu >> by : 0;
        CHECK(static_cast<std::uint32_t>(lanes.back()) == wanted);
    }
}

TEST_CASE("exec.short_lanes: to 32 bits and back") {
    SOFATTN_GENERATOR(random);
    for (int round = 0; round < 300; ++round) {
        shorts const a = some_shorts(random);
        std::vector<std::int32_t> wide(width);
        auto const halves = exec::widened(exec::load(a.data()));
        exec::store(wide.data(), halves[0]);
        exec::store(wide.data() + exec::vector_width, halves[1]);
        std::vector<std::int32_t> wanted;
        for (std::int16_t const lane : a) {
            wanted.push_back(static_cast<std::uint16_t>(lane));
        }
        std::ranges::sort(wide); // in an order of the target's choice
        std::ranges::sort(wanted);
        REQUIRE(wide == wanted);

        std::array<std::int32_t, width / 2> narrow;
        exec::store(narrow.data(), exec::load_widened(a.data()));
        REQUIRE(std::equal(narrow.begin(), narrow.end(), a.begin()));

        shorts half = a;
        std::int64_t sum = 0;
        for (std::int16_t& lane : half) {
            lane = static_cast<std::int16_t>(lane & 0x7fff);
            sum += lane;
        }
        exec::store(narrow.data(), exec::pair_sums(exec::load(half.data())));
        std::int64_t found = 0;
        for (std::int32_t const lane : narrow) {
            REQUIRE(lane >= 0);
            found += lane;
        }
        REQUIRE(found == sum);

        std::array<float, width> real;
        for (float& x : real) {
            x = random.chance(0.3) ? static_cast<float>(random.integer(-200, 200)) + 0.5f
                                   : static_cast<float>(random.uniform(-32768.0, 32767.0));
        }
        shorts const rounded = lanes_of(exec::rounded_shorts(
            exec::load(real.data()), exec::load(real.data() + exec::vector_width)));
        for (std::size_t i = 0; i < width; ++i) {
            REQUIRE(rounded[i] == static_cast<std::int16_t>(std::nearbyint(real[i])));
        }
    }
}

TEST_CASE("exec.short_lanes: spreading is the reverse of compressing, with zeros between") {
    SOFATTN_GENERATOR(random);
    for (int round = 0; round < 500; ++round) {
        exec::lane_mask const mask = exec::lanes_above(exec::load(some_shorts(random).data()),
                                                       exec::load(some_shorts(random).data()));
        std::vector<float> from(width);
        for (float& x : from) {
            x = static_cast<float>(random.uniform(0.5, 1.0));
        }
        std::vector<float> to(width + 1, -1.0f);
        exec::spread(mask, from.data(), to.data());
        std::size_t next = 0;
        for (std::size_t i = 0; i < width; ++i) {
            REQUIRE(to[i] == ((mask >> i & 1u) != 0 ? from[next++] : 0.0f));
        }
        REQUIRE(to[width] == -1.0f);
    }
}

TEST_CASE("exec.integer_lanes: sums of eight, and a table of eight by lanes") {
    SOFATTN_GENERATOR(random);
    for (int round = 0; round < 200; ++round) {
        std::array<std::int32_t, 9> numbers{};
        std::int32_t sum = 0;
        for (std::size_t i = 0; i < 8; ++i) {
            numbers[i + 1] = random.integer(-100000, 100000);
            sum += numbers[i + 1];
        }
        REQUIRE(exec::sum_of_eight(numbers.data() + 1) == sum);
        std::array<float, 8> table{};
        for (float& x : table) {
            x = static_cast<float>(random.normal());
        }
        std::vector<std::int32_t> at(static_cast<std::size_t>(exec::vector_width));
        for (std::int32_t& i : at) {
            i = random.integer(0, 7);
        }
        std::vector<float> found(at.size());
        exec::store(found.data(), exec::looked_up(table, exec::load(at.data())));
        for (std::size_t i = 0; i < at.size(); ++i) {
            REQUIRE(found[i] == table[static_cast<std::size_t>(at[i])]);
        }
    }
}
