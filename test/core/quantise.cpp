// SPDX-License-Identifier: MIT
#include "support/generators.hpp"
#include <sofattn/core/quantise.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <type_traits>
#include <vector>

using namespace sofattn;
using axis::dim;
using axis::key;

namespace {

using matrix = tensor<float, key, dim>;

constexpr granularity all_granularities[] = {granularity::per_tensor, granularity::per_row,
                                             granularity::per_channel};

/// Largest |value - decoded| in steps: half a step, and what four roundings of float (step,
/// inverse, their product with the value, centre) can move a code of this magnitude.
template <int Bits>
constexpr double half_step = 0.5 + 4 * 0x1p-24 * code_limit<Bits>;

template <int Bits>
void check_codes(view<float const, key, dim> values, granularity shared, bool centred) {
    auto const q = quantise<Bits>(values, shared, centred);
    auto const means = column_means(values);
    int most = 0;
    for (index_t r = 0; r < values.extent<key>(); ++r) {
        for (index_t c = 0; c < values.extent<dim>(); ++c) {
            int const code = q.codes(r, c);
            most = std::max(most, std::abs(code));
            double const step = static_cast<double>(q.step(r, c).step);
            double const centre =
                centred ? static_cast<double>(means[static_cast<std::size_t>(c)]) : 0.0;
            double const error = static_cast<double>(values(r, c)) - centre - step * code;
            bool const good =
                std::abs(error) <= step * half_step<Bits> + 0x1p-24 * std::abs(centre) &&
                std::abs(code) <= code_limit<Bits>;
            if (!good) {
                FAIL_CHECK("value ", values(r, c), " has code ", code, " of step ", step);
            }
            float const decoded = q.value(r, c);
            double const exact = centre + step * code;
            CHECK(std::abs(static_cast<double>(decoded) - exact) <=
                  0x1p-22 * (std::abs(centre) + std::abs(step * code)) + 0x1p-149);
        }
    }
    if (shared == granularity::per_tensor && !centred && q.steps.front().inverse > 0.0f) {
        CHECK(most == code_limit<Bits>); // the range is used up, and only to the limit
    }
}

/// softmax of scale * q.k over keys, in double.
template <class Key>
std::vector<double> softmax(std::vector<double> const& query, index_t keys, Key k) {
    std::vector<double> p(static_cast<std::size_t>(keys));
    for (index_t r = 0; r < keys; ++r) {
        for (std::size_t d = 0; d < query.size(); ++d) {
            p[static_cast<std::size_t>(r)] += query[d] * k(r, static_cast<index_t>(d));
        }
    }
    double const max = *std::ranges::max_element(p);
    double sum = 0;
    for (double& x : p) {
        x = std::exp(x - max);
        sum += x;
    }
    for (double& x : p) {
        x /= sum;
    }
    return p;
}

} // namespace

TEST_CASE("core.quantise: codes have a storage type and leave out the most negative integer") {
    static_assert(std::is_same_v<code_storage<4>, std::int8_t>);
    static_assert(std::is_same_v<code_storage<8>, std::int8_t>);
    static_assert(std::is_same_v<code_storage<9>, std::int16_t>);
    static_assert(std::is_same_v<code_storage<16>, std::int16_t>);
    static_assert(code_limit<4> == 7 && code_limit<8> == 127 && code_limit<16> == 32767);
    CHECK(code_limit<2> == 1);
}

TEST_CASE("core.quantise: the error is at most half a step, whatever shares the step") {
    SOFATTN_GENERATOR(random);
    for (auto const kind : test::all_spreads) {
        matrix const values = test::random_matrix<float, key, dim>(random, {33, 20}, kind);
        for (auto const shared : all_granularities) {
            for (bool const centred : {false, true}) {
                check_codes<4>(values.view(), shared, centred);
                check_codes<8>(values.view(), shared, centred);
                check_codes<12>(values.view(), shared, centred);
                check_codes<16>(values.view(), shared, centred);
            }
        }
    }
}

TEST_CASE("core.quantise: each group has the step of its own largest magnitude") {
    SOFATTN_GENERATOR(random);
    matrix const values =
        test::random_matrix<float, key, dim>(random, {9, 5}, test::spread::outlier_channels);
    for (auto const shared : all_granularities) {
        auto const q = quantise<8>(values.cview(), shared);
        for (index_t r = 0; r < 9; ++r) {
            for (index_t c = 0; c < 5; ++c) {
                float most = 0.0f;
                for (index_t i = 0; i < 9; ++i) {
                    for (index_t j = 0; j < 5; ++j) {
                        bool const same_group = (shared != granularity::per_row || i == r) &&
                                                (shared != granularity::per_channel || j == c);
                        most = same_group ? std::max(most, std::abs(values(i, j))) : most;
                    }
                }
                CHECK(q.step(r, c).step == most / 127.0f);
            }
        }
    }
    CHECK(quantise<8>(values.cview(), granularity::per_tensor).steps.size() == 1);
    CHECK(quantise<8>(values.cview(), granularity::per_row).steps.size() == 9);
    CHECK(quantise<8>(values.cview(), granularity::per_channel).steps.size() == 5);
}

TEST_CASE("core.quantise: ties go to even, the ends to the limit") {
    // Magnitude 7 at 4 bits: the step is 1, so halves are ties.
    float const row[] = {7.0f,  -7.0f, 0.5f,  1.5f, 2.5f, 3.5f,
                         -0.5f, -1.5f, -2.5f, 6.5f, 0.0f, -0.0f};
    int const expected[] = {7, -7, 0, 2, 2, 4, 0, -2, -2, 6, 0, 0};
    auto const q = quantise<4>(view<float const, key, dim>(row, {1, 12}), granularity::per_tensor);
    CHECK(q.steps.front().step == 1.0f);
    for (index_t c = 0; c < 12; ++c) {
        CHECK(q.codes(0, c) == expected[c]);
    }
    // A value beyond what the step covers is clipped, not wrapped.
    CHECK(quantiser_step::covering(1.0f, 127).code(5.0f, 127) == 127);
    CHECK(quantiser_step::covering(1.0f, 127).code(-5.0f, 127) == -127);
    CHECK(quantiser_step::covering(1.0f, 127).code(-1e38f, 127) == -127);
}

TEST_CASE("core.quantise: codes are nearbyint of the scaled value, clipped") {
    SOFATTN_GENERATOR(random);
    constexpr float infinity = std::numeric_limits<float>::infinity();
    for (int const limit : {1, 7, 127, 2047, 32767}) {
        auto const check = [&](quantiser_step step, float value) {
            auto const bound = static_cast<float>(limit);
            float const nearest = std::nearbyint(value * step.inverse);
            int const expected = static_cast<int>(std::clamp(nearest, -bound, bound));
            if (step.code(value, limit) != expected) {
                FAIL_CHECK("value ", value, " has code ", step.code(value, limit), ", limit ",
                           limit);
            }
        };
        quantiser_step const unit{1.0f, 1.0f};
        for (int i = -2 * limit - 5; i <= 2 * limit + 5; ++i) {
            float const half_way = 0.5f * static_cast<float>(i);
            for (float const x : {half_way, std::nextafter(half_way, infinity),
                                  std::nextafter(half_way, -infinity)}) {
                check(unit, x);
            }
        }
        for (int exponent = 15; exponent < 128; ++exponent) {
            check(unit, std::ldexp(1.0f, exponent));
            check(unit, std::ldexp(-1.9f, exponent));
        }
        for (float const x : {0.0f, -0.0f, 1e-45f, -1e-45f, infinity, -infinity}) {
            check(unit, x);
        }
        for (int i = 0; i < 2000; ++i) {
            auto const most = static_cast<float>(std::exp2(random.uniform(-20.0, 20.0)));
            check(quantiser_step::covering(most, limit),
                  most * static_cast<float>(random.uniform(-1.2, 1.2)));
        }
    }
}

TEST_CASE("core.quantise: the largest magnitude of a row") {
    SOFATTN_GENERATOR(random);
    for (std::size_t size = 0; size < 70; ++size) {
        std::vector<float> row(size);
        float most = 0.0f;
        for (float& x : row) {
            x = static_cast<float>(std::ldexp(random.normal(), random.integer(-140, 100)));
            most = std::max(most, std::abs(x));
        }
        CHECK(largest_magnitude(row) == most);
    }
    CHECK(largest_magnitude(std::vector{-0.0f, -std::numeric_limits<float>::infinity()}) ==
          std::numeric_limits<float>::infinity());
}

TEST_CASE("core.quantise: rows may be made as they are asked for, wherever they lie") {
    SOFATTN_GENERATOR(random);
    auto const values = test::random_matrix<float, key, dim>(random, {9, 21});
    for (auto const shared : all_granularities) {
        for (bool const centred : {false, true}) {
            auto const expected = quantise<8>(values.cview(), shared, centred);
            auto const q = quantise_rows<8, key, dim>(
                9, 21, shared, centred, [&](index_t r, float* buffer) -> float const* {
                    if (r % 2 == 0) {
                        return &values(r, 0);
                    }
                    std::copy_n(&values(r, 0), 21, buffer);
                    return buffer;
                });
            CHECK(q.centre == expected.centre);
            test::for_each_index(values.view().extents(), [&](auto const& i) {
                CHECK(test::at(q.codes.view(), i) == test::at(expected.codes.view(), i));
                CHECK(q.step(i[0], i[1]).step == expected.step(i[0], i[1]).step);
            });
        }
    }
}

TEST_CASE("core.quantise: centred steps are the largest rounded difference, far from zero too") {
    SOFATTN_GENERATOR(random);
    for (index_t columns = 1; columns <= 130; ++columns) {
        auto values = test::random_matrix<float, key, dim>(random, {17, columns});
        for (index_t r = 0; r < 17; ++r) {
            values(r, columns / 2) += 1e6f; // differences of few bits
        }
        auto const means = column_means(values.cview());
        auto const q = quantise<8>(values.cview(), granularity::per_channel, true);
        for (index_t c = 0; c < columns; ++c) {
            float const mean = means[static_cast<std::size_t>(c)];
            float most = 0.0f;
            for (index_t r = 0; r < 17; ++r) {
                most = std::max(most, std::abs(values(r, c) - mean));
            }
            CHECK(q.steps[static_cast<std::size_t>(c)].step ==
                  quantiser_step::covering(most, 127).step);
        }
    }
}

TEST_CASE("core.quantise: zeros have step 1 and code 0, in a group of their own too") {
    matrix values({3, 4});
    for (auto const shared : all_granularities) {
        for (bool const centred : {false, true}) {
            auto const q = quantise<8>(values.cview(), shared, centred);
            test::for_each_index(values.view().extents(), [&](auto const& i) {
                CHECK(test::at(q.codes.view(), i) == 0);
                CHECK(q.step(i[0], i[1]).step == 1.0f);
                CHECK(q.value(i[0], i[1]) == 0.0f);
            });
        }
    }
    values(1, 2) = 254.0f;
    auto const rows = quantise<8>(values.cview(), granularity::per_row);
    CHECK(rows.step(0, 0).step == 1.0f);
    CHECK(rows.step(1, 0).step == 2.0f);
    CHECK(rows.codes(1, 2) == 127);
}

TEST_CASE("core.quantise: the error is at most half a step next to zero too") {
    // Below 2^-121 (8 bits) or 2^-113 (16 bits) limit / magnitude is no float.
    for (int exponent = -149; exponent <= -100; ++exponent) {
        float const tiny = std::ldexp(1.0f, exponent);
        float const row[] = {0.0f, tiny, -tiny, tiny / 2, -tiny / 3};
        for (auto const shared : all_granularities) {
            check_codes<8>(view<float const, key, dim>(row, {1, 5}), shared, false);
            check_codes<16>(view<float const, key, dim>(row, {1, 5}), shared, false);
        }
    }
}

TEST_CASE("core.quantise: large magnitudes do not overflow") {
    float const largest = std::numeric_limits<float>::max();
    float const row[] = {largest, -largest, 0.0f, largest / 2};
    auto const q = quantise<8>(view<float const, key, dim>(row, {1, 4}), granularity::per_tensor);
    CHECK(q.codes(0, 0) == 127);
    CHECK(q.codes(0, 1) == -127);
    CHECK(q.codes(0, 2) == 0);
    CHECK(q.codes(0, 3) == 64); // 63.5, a tie
}

TEST_CASE("core.quantise: a centred quantiser takes off the mean of each column") {
    float const columns[] = {1.0f, 10.0f, -4.0f, //
                             3.0f, 10.0f, 4.0f};
    view<float const, key, dim> const values(columns, {2, 3});
    auto const q = quantise<8>(values, granularity::per_channel, true);
    CHECK(q.centre == std::vector<float>{2.0f, 10.0f, 0.0f});
    CHECK(q.codes(0, 0) == -127);
    CHECK(q.codes(1, 0) == 127);
    CHECK(q.codes(0, 1) == 0); // a constant column: nothing is left
    CHECK(q.step(0, 1).step == 1.0f);
    CHECK(q.value(0, 1) == 10.0f);
    CHECK(quantise<8>(values, granularity::per_channel).centre.empty());
}

TEST_CASE("core.quantise: column means are of all rows, in double") {
    SOFATTN_GENERATOR(random);
    matrix const values = test::random_matrix<float, key, dim>(random, {1000, 3});
    auto const means = column_means(values.cview());
    for (index_t c = 0; c < 3; ++c) {
        double sum = 0;
        for (index_t r = 0; r < 1000; ++r) {
            sum += static_cast<double>(values(r, c));
        }
        CHECK(means[static_cast<std::size_t>(c)] == static_cast<float>(sum / 1000));
    }
    CHECK(column_means(view<float const, key, dim>(nullptr, {0, 2})) == std::vector{0.0f, 0.0f});
}

TEST_CASE("core.quantise: centring keys changes no softmax") {
    SOFATTN_GENERATOR(random);
    index_t const keys = 50;
    index_t const dims = 16;
    matrix k = test::random_matrix<float, key, dim>(random, {keys, dims});
    for (index_t r = 0; r < keys; ++r) {
        for (index_t d = 0; d < dims; ++d) {
            k(r, d) += 5.0f * static_cast<float>(d % 3); // means worth taking off
        }
    }
    auto const q = quantise<8>(k.cview(), granularity::per_channel, true);
    std::vector<double> query;
    for (index_t d = 0; d < dims; ++d) {
        query.push_back(random.normal(0.5));
    }
    auto const exact = softmax(query, keys, [&](index_t r, index_t d) { return double(k(r, d)); });
    auto const shifted = softmax(query, keys, [&](index_t r, index_t d) {
        return double(k(r, d)) - double(q.centre[static_cast<std::size_t>(d)]);
    });
    auto const with_centre =
        softmax(query, keys, [&](index_t r, index_t d) { return double(q.value(r, d)); });
    auto const codes_alone = softmax(query, keys, [&](index_t r, index_t d) {
        return double(q.step(r, d).step) * double(q.codes(r, d));
    });
    for (std::size_t r = 0; r < exact.size(); ++r) {
        CHECK(shifted[r] == doctest::Approx(exact[r]).epsilon(1e-12));
        // value() rounds to float; logits move by at most dims * |q| * |k| * 2^-24 < 1e-4.
        CHECK(codes_alone[r] == doctest::Approx(with_centre[r]).epsilon(1e-4));
    }
}

TEST_CASE_TEMPLATE("core.quantise: storage types and strides do not matter", T, float, half,
                   bfloat16) {
    SOFATTN_GENERATOR(random);
    auto const values = test::random_matrix<T, key, dim>(random, {11, 13});
    auto const as_float = test::converted<float>(values.view());
    for (auto const shared : all_granularities) {
        auto const expected = quantise<8>(as_float.cview(), shared, true);
        for (auto const kind : test::all_layouts) {
            auto const copy = test::strided(random, values.view(), kind);
            auto const q = quantise<8>(copy.cview(), shared, true);
            CHECK(q.centre == expected.centre);
            test::for_each_index(values.view().extents(), [&](auto const& i) {
                if (test::at(q.codes.view(), i) != test::at(expected.codes.view(), i)) {
                    FAIL_CHECK("layout ", static_cast<int>(kind));
                }
            });
        }
    }
}

TEST_CASE("core.quantise: nothing to quantise is nothing to worry about") {
    for (auto const shared : all_granularities) {
        auto const no_rows =
            quantise<8>(view<float const, key, dim>(nullptr, {0, 4}), shared, true);
        CHECK(no_rows.codes.view().size() == 0);
        auto const no_columns = quantise<8>(view<float const, key, dim>(nullptr, {4, 0}), shared);
        CHECK(no_columns.codes.view().size() == 0);
    }
}
