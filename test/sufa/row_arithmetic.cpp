// SPDX-License-Identifier: MIT
#include "sufa/attend_case.hpp"
#include "support/generators.hpp"
#include <sofattn/core/bfloat16.hpp>
#include <sofattn/core/element.hpp>
#include <sofattn/core/half.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/exec/executor.hpp>
#include <sofattn/sufa/row_arithmetic.hpp>

#include <doctest/doctest.h>

#include <cstddef>
#include <span>
#include <vector>

namespace {

using namespace sofattn;

template <index_t Width>
using silent_lanes = exec::executor<exec::scalar_lanes<Width>, probe::silent, double>;

template <class X, class Inputs>
std::vector<double> logits_of(Inputs const& in, std::vector<key_id> const& keys) {
    auto const kept = test::as_kept(keys);
    std::vector<double> logits(keys.size());
    sufa::detail::kept_logits<X>(in, std::span<ranked<int> const>(kept), std::span(logits));
    return logits;
}

} // namespace

TEST_CASE("sufa.row_arithmetic: a logit is scale * q.k, summed in order of dimensions") {
    SOFATTN_GENERATOR(random);
    for (index_t dim : {1, 2, 63, 64, 256}) {
        test::attend_case<float> const c(random, 40, dim, 8);
        auto const keys = test::random_keys(random, 40, 17);
        auto const logits = logits_of<exec::reference>(c.inputs(), keys);
        for (std::size_t i = 0; i < keys.size(); ++i) {
            double sum = 0.0;
            for (index_t d = 0; d < dim; ++d) {
                sum += static_cast<double>(c.query(d)) * static_cast<double>(c.keys(keys[i], d));
            }
            CHECK(logits[i] == sum * c.scale); // the same bits
            CHECK(logits[i] == doctest::Approx(c.logit(keys[i])).epsilon(1e-12));
        }
    }
}

TEST_CASE_TEMPLATE("sufa.row_arithmetic: lanes go across keys, so their number changes no bit", X,
                   silent_lanes<4>, silent_lanes<8>, silent_lanes<16>) {
    SOFATTN_GENERATOR(random);
    test::attend_case<float> const c(random, 64, 48, 8);
    for (index_t count : {0, 1, 3, 4, 5, 7, 8, 9, 15, 16, 17, 64}) {
        auto const keys = test::random_keys(random, 64, count);
        CHECK(logits_of<X>(c.inputs(), keys) == logits_of<exec::reference>(c.inputs(), keys));
    }
}

TEST_CASE("sufa.row_arithmetic: logits do not depend on how the inputs lie in memory") {
    SOFATTN_GENERATOR(random);
    test::attend_case<half> const c(random, 20, 24, 8);
    auto const keys = test::random_keys(random, 20, 20);
    auto const expected = logits_of<exec::reference>(c.inputs(), keys);
    for (test::layout kind : test::all_layouts) {
        auto const query = test::strided(random, c.query.view(), kind);
        auto const key_rows = test::strided(random, c.keys.view(), kind);
        auto const values = test::strided(random, c.values.view(), kind);
        sufa::attend_inputs<half, half, half> const in{query.cview(), key_rows.cview(),
                                                       values.cview(), c.scale};
        CHECK(logits_of<exec::reference>(in, keys) == expected);
        CHECK(logits_of<silent_lanes<8>>(in, keys) == expected);
    }
}

TEST_CASE("sufa.row_arithmetic: queries, keys and values may be stored in different types") {
    SOFATTN_GENERATOR(random);
    test::attend_case<float> const c(random, 10, 16, 8);
    auto const keys = test::converted<bfloat16>(c.keys.view());
    auto const values = test::converted<half>(c.values.view());
    sufa::attend_inputs<float, bfloat16, half> const in{c.query.view(), keys.view(), values.view(),
                                                        0.5};
    auto const logits = logits_of<exec::reference>(in, {7});
    double sum = 0.0;
    for (index_t d = 0; d < 16; ++d) {
        sum += static_cast<double>(c.query(d)) * static_cast<double>(to_float(keys(7, d)));
    }
    CHECK(logits[0] == 0.5 * sum);
}
