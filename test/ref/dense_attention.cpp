// SPDX-License-Identifier: MIT
#include "support/generators.hpp"
#include <sofattn/ref/dense_attention.hpp>

#include <doctest/doctest.h>

#include <cmath>
#include <vector>

using namespace sofattn;
using namespace sofattn::test;

TEST_CASE("ref.row_logits: golden case by hand") {
    // q = (1, 2), keys (3, 4) and (-1, 0.5), scale 0.5: 0.5 * 11 and 0.5 * 0.
    std::vector<float> const q{1, 2};
    std::vector<float> const k{3, 4, -1, 0.5f};
    std::vector<double> logits(2);
    ref::row_logits(view<float const, axis::dim>(q.data(), {2}),
                    key_view<float const>(k.data(), {2, 2}), 0.5, logits);
    CHECK(logits == std::vector{5.5, 0.0});
}

TEST_CASE("ref.softmax: sums to one, keeps ratios, survives large logits") {
    std::vector<double> row{1e4, 1e4 - std::log(3.0), -1e4};
    ref::softmax(row);
    CHECK(row[0] == doctest::Approx(0.75).epsilon(1e-9));
    CHECK(row[1] == doctest::Approx(0.25).epsilon(1e-9));
    CHECK(row[2] == 0.0);
    std::vector<double> none;
    ref::softmax(none);
    CHECK(none.empty());
}

TEST_CASE("ref.weighted_sum: equal weights give the mean, whatever the strides") {
    SOFATTN_GENERATOR(random);
    auto const v = random_matrix<float, axis::key, axis::value_dim>(random, {8, 3});
    for (layout const kind : all_layouts) {
        auto const other = strided(random, v.cview(), kind);
        std::vector<double> const weights(8, 1.0 / 8);
        std::vector<double> out(3, 99.0);
        ref::weighted_sum<float>(weights, other.cview(), out);
        for (index_t d = 0; d < 3; ++d) {
            double mean = 0;
            for (index_t key = 0; key < 8; ++key) {
                mean += static_cast<double>(v(key, d)) / 8;
            }
            CHECK(out[static_cast<std::size_t>(d)] == doctest::Approx(mean));
        }
    }
}
