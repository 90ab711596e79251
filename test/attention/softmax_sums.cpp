// SPDX-License-Identifier: MIT
// (m, l) beside outputs, prefixes, and decode by shares.
#include "attention/decode_case.hpp"
#include "attention/dense_outcome.hpp"
#include "support/generators.hpp"
#include <sofattn/attention/decode.hpp>
#include <sofattn/attention/dense.hpp>
#include <sofattn/attention/softmax_sums.hpp>
#include <sofattn/core/bfloat16.hpp>
#include <sofattn/core/error.hpp>
#include <sofattn/core/half.hpp>
#include <sofattn/exec/parallel.hpp>
#include <sofattn/ref/dense_attention.hpp>

#include <doctest/doctest.h>

#include <cmath>
#include <cstddef>
#include <limits>
#include <vector>

using namespace sofattn;
using namespace sofattn::test;

namespace {

/// Logarithm of the sum of a row's exponentials; -inf if it sees no key.
template <class T>
double log_sum(problem<T> const& given, index_t head, index_t query) {
    problem_shape const s = given.shape();
    auto const sees = s.sees(query);
    std::vector<double> logits(static_cast<std::size_t>(sees.to));
    ref::row_logits(
        given.queries.template slice<axis::head>(head).template slice<axis::query>(query),
        given.keys.template slice<axis::kv_head>(head / s.group()), s.scale, logits);
    double sum = 0;
    for (index_t k = sees.from; k < sees.to; ++k) {
        sum += std::exp(logits[static_cast<std::size_t>(k)]);
    }
    return std::log(sum);
}

template <class T>
void check_sums(problem<T> const& given, dense_outcome const& found, double tolerance) {
    problem_shape const s = given.shape();
    for (index_t h = 0; h < s.heads; ++h) {
        for (index_t q = 0; q < s.queries; ++q) {
            double const truth = log_sum(given, h, q);
            float const max = found.max.cview()(h, q);
            float const sum = found.sum.cview()(h, q);
            if (std::isinf(truth)) {
                CHECK(max == -std::numeric_limits<float>::infinity());
                CHECK(sum == 0.0f);
            } else {
                CHECK(sum >= 1.0f - 1e-6f); // the largest weighs 1
                CHECK(std::abs(double{max} + std::log(double{sum}) - truth) <= tolerance);
            }
        }
    }
}

} // namespace

TEST_CASE_TEMPLATE("attention.softmax_sums: of dense attention, every mask", T, float, half,
                   bfloat16) {
    SOFATTN_GENERATOR(random);
    for (bool const causal : {false, true}) {
        for (index_t const queries : {1, 7, 90}) {
            for (index_t const keys : {1, 40, 300}) {
                decode_case<T> layer(random, {2, 3, queries, keys, 16, 8, causal});
                for (index_t const window : {0, 20}) {
                    layer.window = causal ? window : 0;
                    check_sums(layer.given(), dense<dense_products::f32>(layer.given()), 2e-5);
                    check_sums(layer.given(), dense<dense_products::bf16>(layer.given()), 0.1);
                }
                layer.window = 0;
                check_sums(layer.given(), decoded(layer.given()), 2e-5);
            }
        }
    }
    decode_case<T> const longer(random, {1, 2, 2, 5000, 16, 8, true}); // several chunks
    check_sums(longer.given(), decoded(longer.given()), 2e-5);
}

TEST_CASE("attention.softmax_sums: halves of the keys merge to the whole") {
    SOFATTN_GENERATOR(random);
    decode_case<> const layer(random, {2, 2, 3, 400, 32, 32, false});
    auto const part = [&](index_t first, index_t count) {
        problem<float> of = layer.given();
        of.keys = of.keys.range<axis::key>(first, count);
        of.values = of.values.range<axis::key>(first, count);
        return of;
    };
    dense_outcome const whole = decoded(layer.given());
    dense_outcome const a = decoded(part(0, 150));
    dense_outcome const b = dense<dense_products::f32>(part(150, 250));
    int wrong = 0;
    for_each_index(whole.output.cview().extents(), [&](auto const& i) {
        double const m = std::max(a.max.cview()(i[0], i[1]), b.max.cview()(i[0], i[1]));
        auto const weight = [&](dense_outcome const& o) {
            return std::exp(double{o.max.cview()(i[0], i[1])} - m) *
                   double{o.sum.cview()(i[0], i[1])};
        };
        double const merged = (weight(a) * double{at(a.output.cview(), i)} +
                               weight(b) * double{at(b.output.cview(), i)}) /
                              (weight(a) + weight(b));
        wrong += std::abs(merged - double{at(whole.output.cview(), i)}) <= 2e-5 ? 0 : 1;
    });
    CHECK(wrong == 0);
}

TEST_CASE("attention.softmax_sums: asked for or not, the output has the same bits") {
    SOFATTN_GENERATOR(random);
    decode_case<> const layer(random, {2, 2, 40, 400, 32, 32, true});
    problem_shape const s = layer.given().shape();
    decode_output output({s.heads, s.queries, s.value_dim});
    guarded_workspace workspace(dense_workspace_bytes(s, 1));
    dense_attention(layer.given(), output.view(), workspace.span(), exec::serial{});
    CHECK(same_bits(output, dense<dense_products::f32>(layer.given()).output));
}

TEST_CASE("attention.dense: a prefix is seen by every query") {
    SOFATTN_GENERATOR(random);
    for (index_t const queries : {5, 200}) {
        for (index_t const prefix : {0, 1, 60, 199, 1000}) {
            CAPTURE(queries);
            CAPTURE(prefix);
            decode_case<> const layer(random, {1, 2, queries, 200, 16, 16, true});
            problem<float> given = layer.given();
            given.prefix = prefix;
            problem_shape const s = given.shape();
            for (index_t q = 0; q < queries; ++q) {
                CHECK(s.visible(q) ==
                      std::max(std::min<index_t>(prefix, 200), 200 - queries + q + 1));
            }
            CHECK(deviation(given, dense<dense_products::f32>(given).output) <= 2e-5);
            CHECK(deviation(given, decoded(given).output) <= 2e-5);
        }
    }
    decode_case<> const layer(random, {1, 1, 3, 9, 4, 4, false});
    problem<float> given = layer.given();
    given.prefix = 2;
    CHECK_THROWS_WITH_AS((void)given.shape(),
                         "attention: prefix is 2, must be 0 where attention is not causal", error);
    given.causal = true;
    given.window = 1;
    CHECK_THROWS_WITH_AS((void)given.shape(),
                         "attention: prefix is 2, must be 0 where there is a window", error);
    given.prefix = -1;
    CHECK_THROWS_WITH_AS((void)given.shape(), "attention: prefix is -1, must be at least 0", error);
}

TEST_CASE("attention.decode: shares of participants are the whole, to the bit") {
    SOFATTN_GENERATOR(random);
    decode_case<half> const layer(random, {5, 2, 2, 3000, 32, 48, true});
    problem_shape const s = layer.given().shape();
    dense_outcome const whole = decoded(layer.given());
    for (index_t const nth : {1, 2, 3, 7}) {
        dense_outcome shared(s);
        guarded_workspace workspace(decode_workspace_bytes(s, nth));
        for (index_t ith = nth; ith-- > 0;) { // any order
            dense_decode_share(layer.given(), shared.output.view(), workspace.span(), ith, nth,
                               shared.sums());
        }
        CHECK(workspace.kept_outside());
        CHECK(same_bits(shared.output, whole.output));
        CHECK(shared.max.cview()(3, 1) == whole.max.cview()(3, 1));
    }
}
