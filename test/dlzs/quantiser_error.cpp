// SPDX-License-Identifier: MIT
#include "dlzs/oracle.hpp"
#include <sofattn/core/bfloat16.hpp>
#include <sofattn/core/half.hpp>
#include <sofattn/dlzs/predict_scores.hpp>
#include <sofattn/dlzs/quantiser_error.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <limits>
#include <span>
#include <string>
#include <utility>
#include <vector>

using namespace sofattn;
using axis::dim;
using axis::head;
using axis::key;
using axis::query;

namespace {

#define SOFATTN_BOUNDED_POLICIES                                                                   \
    dlzs::int8, dlzs::int8_per_query, dlzs::rotated_int8, dlzs::dlzs8, dlzs::lz_keys,              \
        dlzs::two_sided, dlzs::int4, dlzs::exact

constexpr double epsilon = std::numeric_limits<double>::epsilon();

enum class data {
    random,       ///< normal
    outliers,     ///< normal, every 16th channel 30 times larger
    with_zeros,   ///< a third of the elements, every 5th key
    planted,      ///< keys near a query, and far longer than the others
    clustered,    ///< keys near one of three centres, which are far from zero
    equal,        ///< all keys the same
    aligned,      ///< what is rounded away points along the queries, for every key
    all_zero,     ///< the keys
    huge,         ///< keys of 1e30
    huge_product, ///< keys and queries of 1e30
    tiny,         ///< keys and queries of 1e-30
    no_step       ///< of 1e-36, whose inverse step is no float: all codes are 0
};
constexpr std::array all_data{data::random,    data::outliers,     data::with_zeros, data::planted,
                              data::clustered, data::equal,        data::aligned,    data::all_zero,
                              data::huge,      data::huge_product, data::tiny,       data::no_step};

using query_tensor = tensor<float, head, query, dim>;
using key_tensor = tensor<float, key, dim>;

void scale_all(auto& of, float factor) {
    test::for_each_index(of.view().extents(),
                         [&](auto const& i) { test::at(of.view(), i) *= factor; });
}

std::pair<query_tensor, key_tensor> make(test::generator& random, data kind, index_t heads,
                                         index_t queries, index_t keys, index_t dims) {
    auto const shape = kind == data::outliers     ? test::spread::outlier_channels
                       : kind == data::with_zeros ? test::spread::with_zeros
                                                  : test::spread::normal;
    auto q = test::random_matrix<float, head, query, dim>(random, {heads, queries, dims});
    auto k = test::random_matrix<float, key, dim>(random, {keys, dims}, shape);
    auto const centres = test::random_matrix<float, key, dim>(random, {3, dims});
    for (index_t i = 0; i < keys; ++i) {
        bool const stands_out = random.chance(0.1);
        index_t const of_query = random.integer<index_t>(0, queries - 1);
        index_t const cluster = random.integer<index_t>(0, 2);
        for (index_t d = 0; d < dims; ++d) {
            if (kind == data::planted && stands_out) {
                k(i, d) += 20.0f * q(0, of_query, d);
            } else if (kind == data::clustered) {
                k(i, d) = 30.0f * centres(cluster, d) + 0.1f * k(i, d);
            } else if (kind == data::equal) {
                k(i, d) = k(0, d);
            } else if (kind == data::aligned) {
                // A step of 1 for 8-bit codes, since the first key has the largest.
                float const towards = q(0, 0, d) < 0.0f ? -0.49f : 0.49f;
                k(i, d) = static_cast<float>(random.integer(-126, 126)) + towards;
                k(i, d) = i == 0 && d == 0 ? 127.0f : k(i, d);
            }
        }
    }
    switch (kind) {
    case data::all_zero: scale_all(k, 0.0f); break;
    case data::huge: scale_all(k, 1e30f); break;
    case data::huge_product:
        scale_all(k, 1e30f);
        scale_all(q, 1e30f);
        break;
    case data::tiny:
        scale_all(k, 1e-30f);
        scale_all(q, 1e-30f);
        break;
    case data::no_step:
        scale_all(k, 1e-36f);
        scale_all(q, 1e-36f);
        break;
    default: break;
    }
    return {std::move(q), std::move(k)};
}

/// A KV head with the queries that read it, and what the predictor is off for every pair.
template <class P, class T = float>
struct head_case {
    tensor<T, head, query, dim> q;
    tensor<T, key, dim> k;
    dlzs::key_index<P> index;
    dlzs::query_codes<P> codes;
    dlzs::quantiser_error<P> errors;

    head_case(tensor<T, head, query, dim> queries, tensor<T, key, dim> keys)
        : q(std::move(queries)), k(std::move(keys)), index(k.cview()), codes(q.cview(), index),
          errors(k.cview(), index) {}
    explicit head_case(std::pair<tensor<T, head, query, dim>, tensor<T, key, dim>> both)
        : head_case(std::move(both.first), std::move(both.second)) {}

    [[nodiscard]] index_t keys() const { return k.template extent<key>(); }
    [[nodiscard]] dlzs::logit_bounds bounds(index_t h, index_t r, double scale,
                                            index_t visible) const {
        return errors.row(q.cview().template slice<head>(h).template slice<query>(r), codes, h, r,
                          scale, visible, epsilon);
    }
    /// scale * q.k - line.logit(score) of every key.
    [[nodiscard]] std::vector<double> off(index_t h, index_t r, double scale) const {
        exec::reference x;
        std::vector<dlzs::score_type<P>> scores(static_cast<std::size_t>(keys()));
        dlzs::predict_scores<P>{}(x, codes.row(h, r), index.codes(), std::span(scores));
        score_line const line = bounds(h, r, scale, keys()).line;
        std::vector<double> result;
        for (index_t i = 0; i < keys(); ++i) {
            double sum = 0;
            for (index_t d = 0; d < k.template extent<dim>(); ++d) {
                sum += static_cast<double>(to_float(q(h, r, d))) *
                       static_cast<double>(to_float(k(i, d)));
            }
            result.push_back(scale * sum -
                             line.logit(static_cast<double>(scores[static_cast<std::size_t>(i)])));
        }
        return result;
    }
};

constexpr index_t telling_visible[] = {1, 2, 63, 64, 65, 127, 128, 129, 255, 256, 257};

/// Calls f(visible) for the telling prefixes of so many keys, and all of them.
template <class F>
void for_prefixes(index_t keys, F f) {
    for (index_t const visible : telling_visible) {
        if (visible < keys) {
            f(visible);
        }
    }
    f(keys);
}

/// How often a bound does not hold, per key and per prefix.
struct violations {
    int keys = 0;
    int prefixes = 0;
};

template <class P, class T>
violations count_violations(head_case<P, T> const& c, double scale) {
    violations found;
    for (index_t h = 0; h < c.q.template extent<head>(); ++h) {
        for (index_t r = 0; r < c.q.template extent<query>(); ++r) {
            auto const off = c.off(h, r, scale);
            for_prefixes(c.keys(), [&](index_t visible) {
                auto const b = c.bounds(h, r, scale, visible);
                double squares = 0;
                for (index_t i = 0; i < visible; ++i) {
                    double const x = off[static_cast<std::size_t>(i)];
                    double const most =
                        b.per_error * c.errors.error(i) + b.per_size * c.errors.size(i) + b.slack;
                    found.keys += std::abs(x) <= most ? 0 : 1;
                    squares += x * x;
                }
                found.prefixes += std::sqrt(squares) <= b.root_sum ? 0 : 1;
            });
        }
    }
    return found;
}

} // namespace

TEST_CASE_TEMPLATE("dlzs.quantiser_error: every logit is within its bounds, alone and together", P,
                   SOFATTN_BOUNDED_POLICIES) {
    SOFATTN_GENERATOR(random);
    static_assert(dlzs::quantiser_error<P>::is_bounded);
    for (data const kind : all_data) {
        for (index_t const dims : {1, 8, 24, 64}) {
            for (index_t const keys : {1, 2, 5, 64, 100, 128, 300}) {
                CAPTURE(static_cast<int>(kind));
                CAPTURE(dims);
                CAPTURE(keys);
                head_case<P> const c(make(random, kind, 2, 3, keys, dims));
                auto const found = count_violations(c, random.uniform(0.05, 2.0));
                CHECK(found.keys == 0);
                CHECK(found.prefixes == 0);
            }
        }
    }
}

TEST_CASE_TEMPLATE("dlzs.quantiser_error: the bounds hold in every storage type", T, half,
                   bfloat16) {
    SOFATTN_GENERATOR(random);
    for (data const kind : {data::random, data::planted, data::aligned}) {
        auto const both = make(random, kind, 1, 4, 150, 24);
        CAPTURE(static_cast<int>(kind));
        head_case<dlzs::rotated_int8, T> const rotated(test::converted<T>(both.first.cview()),
                                                       test::converted<T>(both.second.cview()));
        auto const found = count_violations(rotated, 0.2);
        CHECK(found.keys == 0);
        CHECK(found.prefixes == 0);
        head_case<dlzs::dlzs8, T> const coded(test::converted<T>(both.first.cview()),
                                              test::converted<T>(both.second.cview()));
        auto const of_coded = count_violations(coded, 0.2);
        CHECK(of_coded.keys == 0);
        CHECK(of_coded.prefixes == 0);
    }
}

TEST_CASE_TEMPLATE("dlzs.quantiser_error: errors and sizes are those of the codes", P,
                   SOFATTN_BOUNDED_POLICIES) {
    SOFATTN_GENERATOR(random);
    head_case<P> const c(make(random, data::random, 1, 1, 70, 24));
    for (index_t i = 0; i < 70; ++i) {
        std::vector<double> key_row(24);
        double size = 0;
        double error = 0;
        for (index_t d = 0; d < 24; ++d) {
            key_row[static_cast<std::size_t>(d)] = static_cast<double>(c.k(i, d));
        }
        if (P::rotated) {
            hadamard_rotate(key_row);
        }
        for (index_t d = 0; d < 24; ++d) {
            double stands_for = 0;
            if constexpr (P::key == dlzs::operand::real) {
                stands_for = static_cast<double>(c.index.codes()(i, d));
            } else {
                stands_for = static_cast<double>(c.index.step(d)) *
                             static_cast<double>(test::decoded(P::key, c.index.codes()(i, d)));
            }
            auto const at = static_cast<std::size_t>(d);
            double const centre =
                c.index.centre().empty() ? 0.0 : static_cast<double>(c.index.centre()[at]);
            size += stands_for * stands_for;
            error += (key_row[at] - centre - stands_for) * (key_row[at] - centre - stands_for);
        }
        CHECK(c.errors.size(i) == doctest::Approx(std::sqrt(size)).epsilon(1e-12));
        CHECK(c.errors.error(i) == doctest::Approx(std::sqrt(error)).epsilon(1e-9));
    }
}

TEST_CASE("dlzs.quantiser_error: sums over many keys that nearly cancel lose no bound") {
    // Equal keys whose error is all but orthogonal to a query that is its own code: what is left of
    // the quadratic form is as small as the rounding of 40000 additions, all in one direction.
    struct found {
        float query;
        float first;
        float second;
    };
    for (found const f : {found{34, -2.06488442f, 1.24236286f},
                          {30, -3.10095429f, -0.572626352f},
                          {-15, -2.95447135f, 0.3854765f}}) {
        CAPTURE(f.query);
        query_tensor q({1, 1, 2});
        q(0, 0, 0) = 127.0f;
        q(0, 0, 1) = f.query;
        key_tensor k({40000, 2});
        k(0, 0) = 127.0f; // makes the step 1
        for (index_t i = 1; i < 40000; ++i) {
            k(i, 0) = f.first;
            k(i, 1) = f.second;
        }
        auto const of = count_violations(head_case<dlzs::int8>(std::move(q), std::move(k)), 1.0);
        CHECK(of.keys == 0);
        CHECK(of.prefixes == 0);
    }
}

TEST_CASE("dlzs.quantiser_error: more visible keys only widen the root of the sum") {
    SOFATTN_GENERATOR(random);
    head_case<dlzs::rotated_int8> const c(make(random, data::random, 1, 4, 300, 24));
    for (index_t r = 0; r < 4; ++r) {
        double before = 0;
        for (index_t visible = 1; visible <= 300; ++visible) {
            double const root = c.bounds(0, r, 0.2, visible).root_sum;
            CHECK(root >= before);
            before = root;
        }
        // A short row does not pay for the keys that it does not see.
        CHECK(2.0 * c.bounds(0, r, 0.2, 10).root_sum < 1.3 * before);
    }
}

TEST_CASE("dlzs.quantiser_error: logits scale with the scale, and their bounds with them") {
    SOFATTN_GENERATOR(random);
    head_case<dlzs::rotated_int8> const c(make(random, data::clustered, 1, 1, 90, 24));
    auto const one = c.bounds(0, 0, 0.25, 90);
    auto const two = c.bounds(0, 0, 0.5, 90);
    CHECK(two.line.per_score == 2.0 * one.line.per_score);
    CHECK(two.line.offset == doctest::Approx(2.0 * one.line.offset));
    CHECK(two.per_error == doctest::Approx(2.0 * one.per_error));
    CHECK(two.per_size == doctest::Approx(2.0 * one.per_size));
    CHECK(two.slack == doctest::Approx(2.0 * one.slack));
    CHECK(two.root_sum == doctest::Approx(2.0 * one.root_sum));
    CHECK(two.typical == doctest::Approx(2.0 * one.typical));
}

TEST_CASE("dlzs.quantiser_error: steps per channel have no bounds") {
    SOFATTN_GENERATOR(random);
    static_assert(!dlzs::quantiser_error<dlzs::centred_int4>::is_bounded);
    for (data const kind : all_data) {
        head_case<dlzs::centred_int4> const c(make(random, kind, 1, 2, 70, 8));
        for_prefixes(70, [&](index_t visible) {
            auto const b = c.bounds(0, 1, 0.5, visible);
            CHECK(std::isinf(b.slack));
            CHECK(std::isinf(b.root_sum));
            CHECK(b.line.per_score == 0.5 * c.codes.product_step(1));
            CHECK(std::isinf(b.per_error * c.errors.error(3) + b.per_size * c.errors.size(3) +
                             b.slack));
        });
    }
}

TEST_CASE("dlzs.quantiser_error: nothing is lost where scores are exact") {
    SOFATTN_GENERATOR(random);
    head_case<dlzs::exact> const c(make(random, data::random, 1, 3, 90, 24));
    for (index_t r = 0; r < 3; ++r) {
        auto const b = c.bounds(0, r, 0.2, 90);
        CHECK(b.per_error == 0.0);
        CHECK(b.per_size == 0.0);
        CHECK(b.typical == 0.0);
        CHECK(b.slack <= 1e-12);
        CHECK(b.root_sum <= 1e-11);
        CHECK(b.line.offset == 0.0);
        CHECK(b.line.per_score == 0.2);
    }
}

TEST_CASE_TEMPLATE("dlzs.quantiser_error: the typical error is about that of the keys", P,
                   dlzs::int8, dlzs::int8_per_query, dlzs::rotated_int8, dlzs::int4) {
    SOFATTN_GENERATOR(random);
    for (index_t const dims : {8, 24, 64}) {
        for (index_t const keys : {40, 64, 128, 300}) {
            CAPTURE(dims);
            CAPTURE(keys);
            head_case<P> const c(make(random, data::random, 1, 8, keys, dims));
            for (index_t r = 0; r < 8; ++r) {
                double square = 0;
                for (double const x : c.off(0, r, 0.3)) {
                    square += x * x / static_cast<double>(keys);
                }
                auto const b = c.bounds(0, r, 0.3, keys);
                CHECK(b.typical >= std::sqrt(square) / 3.0);
                CHECK(b.typical <= std::sqrt(square) * 3.0);
                // And what is known of all keys together is far less than key by key.
                double by_key = 0;
                for (index_t i = 0; i < keys; ++i) {
                    double const most =
                        b.per_error * c.errors.error(i) + b.per_size * c.errors.size(i) + b.slack;
                    by_key += most * most;
                }
                CHECK(b.root_sum <= std::sqrt(by_key) * (1.0 + 1e-9));
            }
        }
    }
}
