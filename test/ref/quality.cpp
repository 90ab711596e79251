// SPDX-License-Identifier: MIT
#include "support/generators.hpp"
#include <sofattn/ref/quality.hpp>

#include <doctest/doctest.h>

#include <cmath>
#include <vector>

using namespace sofattn;
using namespace sofattn::test;

namespace {

/// One dimension, query 1: logits are the keys' values themselves.
struct row_case {
    std::vector<float> q{1.0f};
    std::vector<float> k;
    std::vector<float> v;

    [[nodiscard]] ref::row_truth truth(index_t visible) const {
        auto const keys = static_cast<index_t>(k.size());
        return ref::row_truth(view<float const, axis::dim>(q.data(), {1}),
                              key_view<float const>(k.data(), {keys, 1}),
                              value_view<float const>(v.data(), {keys, 1}), visible, 1.0);
    }
};

} // namespace

TEST_CASE("ref.quality: golden case by hand") {
    // Weights of ln 4, ln 3, ln 2, ln 1: 0.4, 0.3, 0.2, 0.1. Dense output 0.4 * 1 + 0.1 * 5 = 0.9.
    row_case const row{
        {1.0f}, {0.0f, std::log(4.0f), std::log(3.0f), std::log(2.0f)}, {5.0f, 1.0f, 0.0f, 0.0f}};
    auto const truth = row.truth(4);
    CHECK(truth.best_first()[0] == 1);
    CHECK(truth.best_first()[3] == 0);
    std::vector<key_id> const kept{1, 3}; // ranks 1 and 3: one of the two best
    std::vector<float> const output{0.6f};
    auto const q = truth.judge(kept, output);
    CHECK(q.recall() == 0.5);
    CHECK(q.mass() == doctest::Approx(0.6));
    CHECK(q.kept_share() == 0.5);
    CHECK(q.error() == doctest::Approx(0.3 / 0.9).epsilon(1e-6));
}

TEST_CASE("ref.quality: everything kept is perfect, nothing kept is nothing") {
    SOFATTN_GENERATOR(random);
    row_case row;
    for (int i = 0; i < 50; ++i) {
        row.k.push_back(static_cast<float>(random.normal()));
        row.v.push_back(static_cast<float>(random.normal()));
    }
    auto const truth = row.truth(40);
    std::vector<key_id> all(40);
    std::iota(all.begin(), all.end(), 0);
    std::vector<float> const dense{static_cast<float>(truth.output()[0])};
    auto const q = truth.judge(all, dense);
    CHECK(q.recall() == 1.0);
    CHECK(q.mass() == doctest::Approx(1.0));
    CHECK(q.error() < 1e-7);
    std::vector<float> const zero{0.0f};
    auto const none = truth.judge({}, zero);
    CHECK(none.recall() == 0.0);
    CHECK(none.mass() == 0.0);
    CHECK(none.error() == doctest::Approx(1.0));
}

TEST_CASE("ref.quality: ties are ranked by index, keys beyond the visible ones do not count") {
    row_case const row{{1.0f}, {2.0f, 2.0f, 2.0f, 9.0f}, {1.0f, 1.0f, 1.0f, 1.0f}};
    auto const truth = row.truth(3);
    CHECK(std::vector<key_id>(truth.best_first().begin(), truth.best_first().end()) ==
          std::vector<key_id>{0, 1, 2});
    CHECK(truth.weights()[0] == doctest::Approx(1.0 / 3));
}

TEST_CASE("ref.quality: rows add up, and no rows make no figures") {
    ref::quality sum;
    CHECK(sum.recall() == 0.0);
    CHECK(sum.error() == 0.0);
    CHECK(sum.kept_share() == 0.0);
    ref::quality one;
    one.rows = 1;
    one.recall_sum = 1;
    one.mass_sum = 0.5;
    one.kept = 1;
    one.visible = 10;
    one.error_square = 9;
    one.output_square = 25;
    ref::quality other = one;
    other.recall_sum = 0;
    other.error_square = 7;
    sum += one;
    sum += other;
    CHECK(sum.recall() == 0.5);
    CHECK(sum.mass() == 0.5);
    CHECK(sum.kept_share() == doctest::Approx(0.1));
    CHECK(sum.error() == doctest::Approx(std::sqrt(16.0 / 50.0)));
}
