// SPDX-License-Identifier: MIT
#include "support/generators.hpp"
#include <sofattn/sads/softmax_weight.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numbers>

namespace {

using namespace sofattn;
using sads::scaled_down;
using sads::weight_scale;

constexpr double unit = 0x1p30;
constexpr double relative_error = 1.8e-4; // of the header
constexpr double squared_error = 4.5e-4;  // of the header

static_assert(weight_scale::unit == unit);
static_assert(weight_scale(1.0).weight(3, 3) == weight_scale::unit); // usable at compile time
static_assert(scaled_down<4>(100, 8) == 50);

/// One octave per score.
constexpr double octave = std::numbers::ln2;

template <class Score>
bool is_close(weight_scale scale, double logits_per_score, Score top, Score score) {
    double const wanted = unit * std::exp(-logits_per_score * static_cast<double>(top - score));
    return std::abs(scale.weight(top, score) - wanted) <= relative_error * wanted + 1.0;
}

/// floor(a * b / 2^bits), by 32-bit digits as one does it on paper.
std::uint64_t long_multiply_and_shift(std::uint64_t a, std::uint64_t b, int bits) {
    std::array<std::uint64_t, 4> digits{};
    std::array<std::uint64_t, 2> const x{a & 0xffffffffu, a >> 32};
    std::array<std::uint64_t, 2> const y{b & 0xffffffffu, b >> 32};
    for (std::size_t i = 0; i < 2; ++i) {
        std::uint64_t carry = 0;
        for (std::size_t j = 0; j < 2; ++j) {
            std::uint64_t const here = digits[i + j] + x[i] * y[j] + carry;
            digits[i + j] = here & 0xffffffffu;
            carry = here >> 32;
        }
        digits[i + 2] += carry;
    }
    std::uint64_t result = 0;
    for (int bit = 127; bit >= bits; --bit) {
        auto const at = static_cast<std::size_t>(bit / 32);
        result = 2 * result + ((digits[at] >> (bit % 32)) & 1);
    }
    return result;
}

template <int Bits>
void check_scaled_down(std::uint64_t sum, std::uint64_t share) {
    CAPTURE(Bits);
    CAPTURE(sum);
    CAPTURE(share);
    REQUIRE(scaled_down<Bits>(sum, share) == long_multiply_and_shift(sum, share, Bits));
}

template <int Bits>
void check_scaled_down(test::generator& random) {
    std::uint64_t const one = std::uint64_t{1} << Bits;
    std::uint64_t const limit = std::uint64_t{1} << 62;
    std::uint64_t const many = limit - 1;
    for (std::uint64_t share : {std::uint64_t{0}, std::uint64_t{1}, one / 3, one - 1, one}) {
        for (std::uint64_t sum : {std::uint64_t{0}, std::uint64_t{1}, one - 1, one, one + 1,
                                  many - one, many - 1, many}) {
            check_scaled_down<Bits>(std::min(sum, many), share);
        }
    }
    for (int round = 0; round < 3000; ++round) {
        check_scaled_down<Bits>(random.next() >> random.integer(2, 63),
                                random.integer<std::uint64_t>(0, one));
    }
}

} // namespace

TEST_CASE("sads.softmax_weight: whole octaves weigh powers of two, exactly") {
    weight_scale const scale(octave);
    for (int away = 0; away <= 30; ++away) {
        CHECK(scale.weight(100, 100 - away) == weight_scale::unit >> away);
        CHECK(scale.squared(100, 100 - away) == (away > 15 ? 0 : weight_scale::unit >> 2 * away));
    }
    for (int away = 31; away < 70; ++away) {
        CHECK(scale.weight(100, 100 - away) == 0);
    }
}

TEST_CASE("sads.softmax_weight: the best weighs 2^30, whatever the scale and the score") {
    for (double logits : {0x1p-112, 1e-20, 1e-3, 1.0, 77.0, 1e20, 0x1p107, 1e37, 1e40, 1e300,
                          std::numeric_limits<double>::infinity()}) {
        CAPTURE(logits);
        weight_scale const scale(logits);
        for (int score : {0, -(1 << 29), 12345, 1 << 29}) {
            CHECK(scale.weight(score, score) == weight_scale::unit);
            CHECK(scale.squared(score, score) == weight_scale::unit);
            std::int64_t const wide = std::int64_t{score} << 32;
            CHECK(scale.weight(wide, wide) == weight_scale::unit);
            CHECK(scale.weight(0.3 * score, 0.3 * score) == weight_scale::unit);
        }
    }
    CHECK(weight_scale{}.weight(7, -7) == weight_scale::unit); // no scale: no differences
}

TEST_CASE("sads.softmax_weight: every fraction of an octave is near exp, and none rises") {
    double const steps = 0x1p20; // finer than the fixed point
    weight_scale const scale(octave / steps);
    std::uint32_t last = weight_scale::unit;
    bool near = true;
    bool falls = true;
    for (int away = 0; away <= 3 << 20; ++away) {
        std::uint32_t const weight = scale.weight(0, -away);
        near = near && is_close(scale, octave / steps, 0, -away);
        falls = falls && weight <= last;
        last = weight;
    }
    CHECK(near);
    CHECK(falls);
}

TEST_CASE_TEMPLATE("sads.softmax_weight: weights are near exp over all distances and scales", Score,
                   std::int32_t, std::int64_t, double) {
    SOFATTN_GENERATOR(random);
    double const most = sizeof(Score) == 4 ? 0x1p29 : 0x1p61; // half-range scores
    for (int round = 0; round < 100000; ++round) {
        // Distances from nothing to 40 octaves, mostly; a scale that any distance can have.
        double const logits = random.uniform(0.0, 28.0);
        double const away = std::floor(std::exp2(random.uniform(0.0, std::log2(most))));
        double const scale_of = std::max(logits / away, 0x1p-112);
        auto const top = static_cast<Score>(std::floor(random.uniform(-most + away, most)));
        auto const score = static_cast<Score>(top - static_cast<Score>(away));
        CAPTURE(scale_of);
        CAPTURE(away);
        REQUIRE(is_close(weight_scale(scale_of), scale_of, top, score));
    }
}

TEST_CASE("sads.softmax_weight: double scores may lie less than 1 apart") {
    SOFATTN_GENERATOR(random);
    for (int round = 0; round < 100000; ++round) {
        double const scale_of = std::exp2(random.uniform(-60.0, 60.0));
        double const top = random.uniform(-30.0, 30.0) / scale_of;
        double const score = top - random.uniform(0.0, 30.0) / scale_of;
        CAPTURE(scale_of);
        CAPTURE(top);
        CAPTURE(score);
        REQUIRE(is_close(weight_scale(scale_of), scale_of, top, score));
    }
}

TEST_CASE("sads.softmax_weight: a weight never grows with the distance") {
    SOFATTN_GENERATOR(random);
    for (int round = 0; round < 100000; ++round) {
        weight_scale const scale(std::exp2(random.uniform(-30.0, 3.0)));
        int const top = random.integer(-(1 << 29), 1 << 29);
        int const near = random.integer(0, 1 << random.integer(0, 29));
        int const far = near + random.integer(0, 1 << random.integer(0, 20));
        REQUIRE(scale.weight(top, top - far) <= scale.weight(top, top - near));
        REQUIRE(scale.squared(top, top - far) <= scale.squared(top, top - near));
    }
}

TEST_CASE("sads.softmax_weight: far away is 0, even where the distance fits no integer or float") {
    CHECK(weight_scale(1.0).weight(0, -22) == 0); // 31.7 octaves
    CHECK(weight_scale(1.0).weight(1 << 30, -(1 << 30) + 1) == 0);
    CHECK(weight_scale(1e30).weight(1 << 30, -(1 << 30) + 1) == 0);
    CHECK(weight_scale(1e300).weight(1, 0) == 0);
    std::int64_t const big = std::int64_t{1} << 61;
    for (double logits : {1e-15, 1.0, 1e20, 1e300}) {
        CAPTURE(logits);
        CHECK(weight_scale(logits).weight(big, -big) == 0);
        CHECK(weight_scale(logits).squared(big, -big) == 0);
        CHECK(weight_scale(logits).weight(1e18, -1e18) == 0);
        CHECK(weight_scale(logits).weight(1e35, -1e35) == 0);
        CHECK(weight_scale(logits).squared(1e35, -1e35) == 0);
    }
}

TEST_CASE("sads.softmax_weight: a tiny scale makes all keys equal") {
    std::int64_t const big = std::int64_t{1} << 61;
    CHECK(weight_scale(0x1p-112).weight(big, -big) == weight_scale::unit);
    CHECK(weight_scale(1e-30).weight(1 << 29, -(1 << 29)) == weight_scale::unit);
}

TEST_CASE("sads.softmax_weight: squares are near exp, and fall with every step") {
    std::uint32_t last = weight_scale::unit;
    for (std::int32_t away = 0; away <= weight_scale::farthest; ++away) {
        double const wanted = unit * std::exp2(-2.0 * away / weight_scale::steps);
        std::uint32_t const squared = weight_scale::squared_at(away);
        // Distances are rounded down before: a step more may have been meant.
        double const least = wanted * std::exp2(-2.0 / weight_scale::steps);
        REQUIRE(squared <= wanted * (1.0 + squared_error));
        REQUIRE(squared >= least * (1.0 - squared_error) - 1.0);
        REQUIRE(squared <= last);
        last = squared;
    }
    CHECK(last == 0);
}

TEST_CASE("sads.softmax_weight: scaled_down is the floor of the exact product") {
    SOFATTN_GENERATOR(random);
    check_scaled_down<1>(random);
    check_scaled_down<16>(random);
    check_scaled_down<30>(random);
    check_scaled_down<31>(random);
    check_scaled_down<32>(random);
}
