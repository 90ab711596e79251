// SPDX-License-Identifier: MIT
#include "support/generators.hpp"
#include <sofattn/core/bfloat16.hpp>
#include <sofattn/core/element.hpp>
#include <sofattn/core/half.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/exec/xsimd_lanes.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <type_traits>
#include <vector>

using namespace sofattn;
using exec::vector_float;
using exec::vector_width;

namespace {

constexpr auto lanes = static_cast<std::size_t>(vector_width);
using lane_array = std::array<float, lanes>;

vector_float vector_of(lane_array const& from) { return exec::load(from.data()); }
lane_array lanes_of(vector_float x) {
    lane_array result{};
    exec::store(result.data(), x);
    return result;
}
/// f(0), f(1), ...
template <class F>
lane_array each_lane(F f) {
    lane_array result{};
    for (std::size_t i = 0; i < lanes; ++i) {
        result[i] = static_cast<float>(f(i));
    }
    return result;
}

/// Largest relative error of exp2_of_negative; counts results that are no normal number.
struct exp2_judge {
    void operator()(float x) {
        waiting[filled++] = x;
        if (filled == lanes) {
            judge();
        }
    }
    void judge() { // unfilled lanes hold what they held before: any argument will do
        lane_array const result = lanes_of(exec::exp2_of_negative(vector_of(waiting)));
        for (std::size_t i = 0; i < lanes; ++i) {
            double const truth = std::exp2(static_cast<double>(waiting[i]));
            double const off = std::abs(static_cast<double>(result[i]) - truth) / truth;
            if (!(off <= worst)) { // NaN is worst
                worst = off;
                worst_at = waiting[i];
            }
            abnormal += std::isnormal(result[i]) ? 0 : 1;
        }
        filled = 0;
    }

    double worst = 0;
    float worst_at = 0;
    int abnormal = 0;
    lane_array waiting{};
    std::size_t filled = 0;
};

float exp2_of_one(float x) { return lanes_of(exec::exp2_of_negative(vector_float(x)))[lanes - 1]; }

} // namespace

TEST_CASE("exec.xsimd_lanes: exp2_of_negative is within 3e-7 of the truth over its whole range") {
    SOFATTN_GENERATOR(random);
    exp2_judge judge;
    for (int i = 0; i <= 126 << 13; ++i) {
        judge(-static_cast<float>(i) * 0x1p-13f); // whole and half numbers are among them
    }
    float const infinity = std::numeric_limits<float>::infinity();
    for (int i = 1; i <= 252; ++i) { // where rounding to a whole number changes sides
        float const half = -0.5f * static_cast<float>(i);
        judge(std::nextafter(half, infinity));
        if (i < 252) {
            judge(std::nextafter(half, -infinity));
        }
    }
    for (int i = 0; i < 200'000; ++i) {
        judge(static_cast<float>(random.uniform(-126.0, 0.0)));
        judge(static_cast<float>(-std::exp2(random.uniform(-149.0, 6.9)))); // small ones, too
    }
    judge.judge();
    CAPTURE(judge.worst_at);
    CHECK(judge.worst <= 3e-7);
    CHECK(judge.abnormal == 0);
}

TEST_CASE(
    "exec.xsimd_lanes: exp2_of_negative is exactly 1 at 0, and a power of two at whole numbers") {
    CHECK(exp2_of_one(0.0f) == 1.0f);
    CHECK(exp2_of_one(-0.0f) == 1.0f);
    for (int i = 1; i <= 126; ++i) {
        CHECK(exp2_of_one(-static_cast<float>(i)) == std::ldexp(1.0f, -i));
    }
}

TEST_CASE("exec.xsimd_lanes: exp2_of_negative is 0 below -126, however far") {
    float const infinity = std::numeric_limits<float>::infinity();
    for (float const x :
         {std::nextafter(-126.0f, -infinity), -126.5f, -127.0f, -150.0f, -1e4f, -0x1p31f, -1e30f,
          -2e30f, std::numeric_limits<float>::lowest(), -infinity}) {
        CAPTURE(x);
        CHECK(std::bit_cast<std::uint32_t>(exp2_of_one(x)) == 0u); // +0
    }
}

TEST_CASE("exec.xsimd_lanes: exp2_of_negative acts on every lane alone") {
    lane_array const x = each_lane(
        [](std::size_t i) { return i % 3 == 2 ? -1e30f : -9.7f * static_cast<float>(i); });
    lane_array const y = lanes_of(exec::exp2_of_negative(vector_of(x)));
    for (std::size_t i = 0; i < lanes; ++i) {
        CHECK(y[i] == exp2_of_one(x[i]));
    }
}

TEST_CASE("exec.xsimd_lanes: load and store take any alignment and touch one vector only") {
    std::vector<float> from(4 * lanes);
    for (std::size_t i = 0; i < from.size(); ++i) {
        from[i] = static_cast<float>(i);
    }
    for (std::size_t at = 0; at <= 2 * lanes; ++at) {
        for (std::size_t to = 0; to <= 2 * lanes; ++to) {
            std::vector<float> into(from.size(), -1.0f);
            exec::store(into.data() + to, exec::load(from.data() + at));
            bool right = true;
            for (std::size_t i = 0; i < into.size(); ++i) {
                bool const written = i >= to && i < to + lanes;
                right = right && into[i] == (written ? from[i - to + at] : -1.0f);
            }
            CHECK(right);
        }
    }
}

TEST_CASE("exec.xsimd_lanes: bytes become floats, wherever they lie") {
    std::vector<std::int8_t> all(256 + lanes);
    for (std::size_t i = 0; i < all.size(); ++i) {
        all[i] = static_cast<std::int8_t>(static_cast<int>(i % 256) - 128);
    }
    for (std::size_t at = 0; at < 256; ++at) {
        CHECK(lanes_of(exec::load(all.data() + at)) ==
              each_lane([&](std::size_t i) { return static_cast<int>(all[at + i]); }));
    }
}

TEST_CASE("exec.xsimd_lanes: a few floats repeated") {
    std::vector<float> const from{3.5f, -1.0f, 7.0f, 0.5f, -2.0f, 9.0f, 11.0f, 13.0f, 1.0f,
                                  2.0f, 4.0f,  8.0f, 6.0f, 5.0f,  3.0f, 10.0f, 12.0f};
    auto const repeats = [&](auto count) {
        if constexpr (count <= vector_width) {
            for (std::size_t const at : {std::size_t{0}, std::size_t{1}}) {
                CHECK(lanes_of(exec::repeated<count>(from.data() + at)) ==
                      each_lane([&](std::size_t i) {
                          return from[at + i % static_cast<std::size_t>(count.value)];
                      }));
            }
        }
    };
    repeats(std::integral_constant<int, 1>{});
    repeats(std::integral_constant<int, 2>{});
    repeats(std::integral_constant<int, 4>{});
    repeats(std::integral_constant<int, 8>{});
    repeats(std::integral_constant<int, 16>{});
}

TEST_CASE("exec.xsimd_lanes: if_below and larger choose lane by lane") {
    SOFATTN_GENERATOR(random);
    for (int round = 0; round < 100; ++round) {
        auto const draw = [&](std::size_t) { return random.integer(-3, 3); }; // ties are common
        lane_array const x = each_lane(draw);
        lane_array const limit = each_lane(draw);
        lane_array const a = each_lane([&](std::size_t) { return random.normal(); });
        lane_array const b = each_lane([&](std::size_t) { return random.normal(1e20); });
        CHECK(
            lanes_of(exec::if_below(vector_of(x), vector_of(limit), vector_of(a), vector_of(b))) ==
            each_lane([&](std::size_t i) { return x[i] < limit[i] ? a[i] : b[i]; }));
        CHECK(lanes_of(exec::larger(vector_of(a), vector_of(b))) ==
              each_lane([&](std::size_t i) { return std::max(a[i], b[i]); }));
    }
    vector_float const lowest(-1e30f);
    CHECK(lanes_of(exec::larger(lowest, vector_float(-1e29f))) == lanes_of(vector_float(-1e29f)));
}

TEST_CASE("exec.xsimd_lanes: multiply_add is a * b + c, rounded once or twice") {
    SOFATTN_GENERATOR(random);
    for (int round = 0; round < 100; ++round) {
        auto const draw = [&](std::size_t) { return random.normal(); };
        lane_array const a = each_lane(draw);
        lane_array const b = each_lane(draw);
        lane_array const c = each_lane(draw);
        lane_array const y = lanes_of(exec::multiply_add(vector_of(a), vector_of(b), vector_of(c)));
        for (std::size_t i = 0; i < lanes; ++i) {
            float const once = std::fma(a[i], b[i], c[i]);
#if defined(__FMA__) || defined(__AVX512F__)
            CHECK(y[i] == once);
#else
            float const product = a[i] * b[i];
            float const twice = product + c[i];
            CHECK((y[i] == once || y[i] == twice));
#endif
        }
    }
    // Small integers leave nothing to round.
    CHECK(lanes_of(exec::multiply_add(vector_float(3.0f), vector_float(-5.0f),
                                      vector_float(7.0f))) == lanes_of(vector_float(-8.0f)));
}

TEST_CASE("exec.xsimd_lanes: a kernel knows its registers") {
    static_assert(vector_width == 4 || vector_width == 8 || vector_width == 16);
    static_assert(sizeof(vector_float) == lanes * sizeof(float));
    static_assert(exec::vector_registers == 16 || exec::vector_registers == 32);
#ifdef __AVX512F__
    static_assert(vector_width == 16 && exec::vector_registers == 32);
#elif defined __AVX__
    static_assert(vector_width == 8 && exec::vector_registers == 16);
#elif defined __aarch64__
    static_assert(vector_width == 4 && exec::vector_registers == 32);
#endif
    CHECK(lanes_of(vector_float(2.5f)) == each_lane([](std::size_t) { return 2.5f; }));
}

TEST_CASE_TEMPLATE("exec.xsimd_lanes: loads of 16-bit floats are exact", T, half, bfloat16) {
    // Every number there is; NaN has many bits, all of them NaN.
    std::vector<T> all;
    for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
        all.push_back(T::from_bits(static_cast<std::uint16_t>(bits)));
    }
    int wrong = 0;
    for (std::size_t i = 0; i < all.size(); i += lanes) {
        lane_array const wide = lanes_of(exec::load(all.data() + i));
        for (std::size_t lane = 0; lane < lanes; ++lane) {
            float const right = to_float(all[i + lane]);
            bool const same = std::isnan(right) ? std::isnan(wide[lane])
                                                : std::bit_cast<std::uint32_t>(right) ==
                                                      std::bit_cast<std::uint32_t>(wide[lane]);
            wrong += same ? 0 : 1;
        }
    }
    CHECK(wrong == 0);
}

TEST_CASE("exec.xsimd_lanes: sums of lanes, each in its row's lane, whichever row it is") {
    SOFATTN_GENERATOR(random);
    lane_array const numbers = each_lane([&](std::size_t) { return random.normal(); });
    std::array<vector_float, lanes> rows;
    for (std::size_t i = 0; i < lanes; ++i) { // whole numbers: exact in any order
        rows[i] = vector_of(
            each_lane([&](std::size_t lane) { return (lane == i ? 1000 : 1) * (i + 1) + lane; }));
    }
    CHECK(lanes_of(exec::sums_of(rows)) == each_lane([](std::size_t i) {
              return (999 + lanes) * (i + 1) + lanes * (lanes - 1) / 2;
          }));
    rows.fill(vector_of(numbers));
    lane_array const sums = lanes_of(exec::sums_of(rows));
    CHECK(sums == each_lane([&](std::size_t) { return sums[0]; }));
}
