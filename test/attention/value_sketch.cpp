// SPDX-License-Identifier: MIT
#include "support/generators.hpp"
#include <sofattn/attention/value_sketch.hpp>
#include <sofattn/core/bfloat16.hpp>
#include <sofattn/core/half.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <span>
#include <vector>

using namespace sofattn;
using namespace sofattn::test;

namespace {

using values_of = tensor<float, axis::key, axis::value_dim>;

double length(std::vector<double> const& x) {
    double sum = 0;
    for (double const each : x) {
        sum += each * each;
    }
    return std::sqrt(sum);
}

std::vector<double> random_vector(generator& random, index_t dims) {
    std::vector<double> x(static_cast<std::size_t>(dims));
    std::ranges::generate(x, [&] { return random.normal(); });
    return x;
}

std::vector<double> sketched(sketch_map const& map, std::vector<double> const& x) {
    std::vector<double> out(static_cast<std::size_t>(map.size()));
    std::vector<double> buffer;
    map([&](index_t d) { return x[static_cast<std::size_t>(d)]; }, out, buffer);
    return out;
}

/// Of two vectors, or of a vector and a mean.
double apart(std::vector<double> const& a, std::vector<double> const& b) {
    std::vector<double> off(a.size());
    std::ranges::transform(a, b, off.begin(), [](double x, double y) { return x - y; });
    return length(off);
}

template <class T>
std::vector<double> value_of(tensor<T, axis::key, axis::value_dim> const& values, index_t key) {
    std::vector<double> x;
    for (index_t d = 0; d < values.template extent<axis::value_dim>(); ++d) {
        x.push_back(static_cast<double>(to_float(values(key, d))));
    }
    return x;
}

/// Of the values of keys [from, end).
template <class T>
std::vector<double> mean_of(tensor<T, axis::key, axis::value_dim> const& values, index_t from,
                            index_t end) {
    std::vector<double> mean(static_cast<std::size_t>(values.template extent<axis::value_dim>()));
    for (index_t k = from; k < end; ++k) {
        auto const x = value_of(values, k);
        for (std::size_t d = 0; d < mean.size(); ++d) {
            mean[d] += x[d];
        }
    }
    for (double& m : mean) {
        m /= static_cast<double>(end - from);
    }
    return mean;
}

template <class T>
value_sketch sketch_of(tensor<T, axis::key, axis::value_dim> const& values, index_t segment) {
    return value_sketch(
        values.cview(),
        [&](index_t k, index_t d) { return static_cast<double>(to_float(values(k, d))); }, segment);
}

auto near(double expected) { return doctest::Approx(expected).epsilon(1e-9); }

constexpr index_t all_dims[] = {1, 2, 3, 4, 7, 8, 12, 16, 24, 64, 80, 128, 256};

} // namespace

TEST_CASE("attention.sketch_map: a dozen numbers at most, as many as the next power of two") {
    for (index_t const dims : all_dims) {
        CAPTURE(dims);
        index_t wide = 1;
        while (wide < dims) {
            wide *= 2;
        }
        CHECK(sketch_map(dims).size() == std::min<index_t>(wide, sketch_map::most));
    }
    CHECK(sketch_map().size() == 0);
}

TEST_CASE("attention.sketch_map: a sketch of a sum is the sum of sketches") {
    SOFATTN_GENERATOR(random);
    for (index_t const dims : all_dims) {
        CAPTURE(dims);
        sketch_map const map(dims);
        auto const x = random_vector(random, dims);
        auto const y = random_vector(random, dims);
        std::vector<double> both(x.size());
        for (std::size_t d = 0; d < x.size(); ++d) {
            both[d] = 3.0 * x[d] - 0.25 * y[d];
        }
        auto const of_x = sketched(map, x);
        auto const of_y = sketched(map, y);
        auto const of_both = sketched(map, both);
        for (std::size_t i = 0; i < of_both.size(); ++i) {
            CHECK(std::abs(of_both[i] - (3.0 * of_x[i] - 0.25 * of_y[i])) <= 1e-12);
        }
        CHECK(length(sketched(map, std::vector<double>(x.size()))) == 0.0);
    }
}

TEST_CASE("attention.sketch_map: lengths are exact where no channel is left out") {
    SOFATTN_GENERATOR(random);
    for (index_t const dims : {1, 2, 3, 4, 5, 6, 7, 8}) { // rotations up to 8 wide
        CAPTURE(dims);
        sketch_map const map(dims);
        for (int n = 0; n < 20; ++n) {
            auto const x = random_vector(random, dims);
            CHECK(length(sketched(map, x)) == near(length(x)));
        }
    }
}

TEST_CASE(
    "attention.sketch_map: lengths are kept on average, and nearly always within a factor 2") {
    SOFATTN_GENERATOR(random);
    for (index_t const dims : {1, 3, 9, 12, 64, 80, 128}) {
        sketch_map const map(dims);
        // Normal vectors, and some that are mostly zero: a rotation spreads those.
        for (bool const is_sparse : {false, true}) {
            CAPTURE(dims);
            CAPTURE(is_sparse);
            constexpr int count = 4000;
            double squares = 0;
            int within = 0;
            for (int n = 0; n < count; ++n) {
                auto x = random_vector(random, dims);
                for (double& each : x) {
                    each *= is_sparse && !random.chance(0.3) ? 0.01 : 1.0;
                }
                double const ratio = length(sketched(map, x)) / length(x);
                squares += ratio * ratio / count;
                within += ratio >= 0.5 && ratio <= 2.0 ? 1 : 0;
            }
            CHECK(squares == doctest::Approx(1.0).epsilon(0.1));
            CHECK(within >= 0.97 * count);
        }
    }
}

TEST_CASE("attention.sketch_map: every map of a size is the same") {
    SOFATTN_GENERATOR(random);
    for (index_t const dims : all_dims) {
        auto const x = random_vector(random, dims);
        CHECK(sketched(sketch_map(dims), x) == sketched(sketch_map(dims), x));
    }
}

TEST_CASE("attention.sketch_map: a buffer that was used before changes nothing") {
    SOFATTN_GENERATOR(random);
    sketch_map const map(24);
    auto const x = random_vector(random, 24);
    std::vector<double> out(static_cast<std::size_t>(map.size()));
    std::vector<double> buffer(100, 7.0);
    map([&](index_t d) { return x[static_cast<std::size_t>(d)]; }, out, buffer);
    CHECK(out == sketched(map, x));
}

TEST_CASE_TEMPLATE("attention.value_sketch: distances are those of the definition", T, float, half,
                   bfloat16) {
    SOFATTN_GENERATOR(random);
    for (index_t const keys : {1, 2, 63, 64, 65, 150}) {
        for (index_t const dims : {1, 3, 64, 80}) {
            CAPTURE(keys);
            CAPTURE(dims);
            auto const values = random_matrix<T, axis::key, axis::value_dim>(random, {keys, dims});
            for (index_t const segment : {1, 16, 64}) {
                CAPTURE(segment);
                auto const sketch = sketch_of(values, segment);
                auto const centre = mean_of(values, 0, keys);
                double radius = 0;
                for (index_t k = 0; k < keys; ++k) {
                    double const expected = apart(value_of(values, k), centre);
                    radius = std::max(radius, expected);
                    CHECK(std::abs(sketch.distance_of(k) - expected) <= 1e-9);
                    index_t const from = k / segment * segment;
                    auto const mean = mean_of(values, from, std::min(keys, from + segment));
                    CHECK(std::abs(sketch.distance_in_segment(k) -
                                   apart(value_of(values, k), mean)) <= 1e-9);
                }
                CHECK(std::abs(sketch.radius() - radius) <= 1e-9);
                CHECK(sketch.centre_length() == near(length(centre)));
                auto const anywhere = random_vector(random, dims);
                CHECK(sketch.distance([&](index_t d) {
                    return anywhere[static_cast<std::size_t>(d)];
                }) == near(apart(anywhere, centre)));
            }
        }
    }
}

TEST_CASE("attention.value_sketch: sketches are of what is asked for, the ball is of the values") {
    SOFATTN_GENERATOR(random);
    for (index_t const dims : {1, 3, 64, 80}) {
        CAPTURE(dims);
        auto const values = random_matrix<float, axis::key, axis::value_dim>(random, {40, dims});
        auto const whole = sketch_of(values, 16);
        value_sketch const part(
            values.cview(),
            [&](index_t k, index_t d) { return 0.5 * static_cast<double>(values(k, d)); }, 16);
        CHECK(part.radius() == whole.radius());
        CHECK(part.size() == whole.size());
        for (index_t k = 0; k < 40; ++k) {
            CHECK(part.distance_of(k) == whole.distance_of(k));
            CHECK(part.distance_in_segment(k) == whole.distance_in_segment(k));
            auto const expected = sketched(whole.map(), value_of(values, k));
            for (std::size_t i = 0; i < whole.size(); ++i) {
                CHECK(whole.of(k)[i] == expected[i]);
                CHECK(part.of(k)[i] == near(0.5 * expected[i]));
            }
        }
    }
}

TEST_CASE("attention.value_sketch: strides do not matter") {
    SOFATTN_GENERATOR(random);
    auto const values = random_matrix<float, axis::key, axis::value_dim>(random, {70, 24});
    auto const expected = sketch_of(values, 64);
    for (layout const kind : all_layouts) {
        auto const copy = strided(random, values.cview(), kind);
        value_sketch const got(
            copy.cview(),
            [&](index_t k, index_t d) { return static_cast<double>(copy.cview()(k, d)); }, 64);
        CHECK(got.radius() == expected.radius());
        for (index_t k = 0; k < 70; ++k) {
            CHECK(std::ranges::equal(got.of(k), expected.of(k)));
            CHECK(got.distance_of(k) == expected.distance_of(k));
            CHECK(got.distance_in_segment(k) == expected.distance_in_segment(k));
        }
    }
}

TEST_CASE("attention.value_sketch: equal, huge and tiny values keep their distances") {
    SOFATTN_GENERATOR(random);
    for (float const size : {0.0f, 1e-38f, 1e-30f, 1.0f, 1e30f, 1e37f}) {
        CAPTURE(size);
        values_of values({50, 8});
        values_of equal({50, 8});
        for (index_t k = 0; k < 50; ++k) {
            for (index_t d = 0; d < 8; ++d) {
                values(k, d) = size * static_cast<float>(random.uniform());
                equal(k, d) = size * static_cast<float>(d + 1);
            }
        }
        auto const sketch = sketch_of(values, 16);
        auto const centre = mean_of(values, 0, 50);
        for (index_t k = 0; k < 50; ++k) {
            double const expected = apart(value_of(values, k), centre);
            CHECK(std::abs(sketch.distance_of(k) - expected) <= 1e-9 * static_cast<double>(size));
        }
        auto const one = sketch_of(equal, 16);
        CHECK(one.radius() <= 1e-12 * static_cast<double>(size));
        CHECK(one.centre_length() == near(length(value_of(equal, 3))));
    }
}
