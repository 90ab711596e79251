// SPDX-License-Identifier: MIT
#include "attend/evaluate.hpp"

#include "support/generators.hpp"

#include <doctest/doctest.h>

#include <mutex>
#include <vector>

using namespace sofattn;
using namespace sofattn::attend;

namespace {

layer random_layer(test::generator& random) {
    layer l;
    l.info.causal = true;
    l.info.heads = 4;
    l.info.kv_heads = 2;
    l.q = test::random_matrix<float, axis::head, axis::query, axis::dim>(random, {4, 60, 8});
    l.k = test::random_matrix<float, axis::kv_head, axis::key, axis::dim>(random, {2, 60, 8});
    l.v = test::random_matrix<float, axis::kv_head, axis::key, axis::value_dim>(random, {2, 60, 8});
    return l;
}

} // namespace

TEST_CASE("attend.evaluate: dense is exact, and a policy keeps what its budget says") {
    SOFATTN_GENERATOR(random);
    layer const given = random_layer(random);
    std::vector policies{find_policy("dense"), find_policy("int8/full_topk/sufa"),
                         find_policy("exact/full_topk/two_pass")};
    double last = 0;
    std::mutex mutex;
    auto const outcomes = evaluate(layer_views::of(given), policies, 3, 20, [&](double share) {
        std::scoped_lock const lock(mutex);
        last = std::max(last, share);
    });
    CHECK(last == 1.0);
    auto const dense = mean_quality::of(outcomes[0].heads);
    CHECK(dense.kept_share == 1.0);
    CHECK(dense.recall == 1.0);
    CHECK(dense.output_error_relative < 1e-6);
    auto const exact = mean_quality::of(outcomes[2].heads);
    CHECK(exact.recall == 1.0);
    CHECK(exact.kept_share == doctest::Approx(0.1).epsilon(0.1));
    auto const int8 = mean_quality::of(outcomes[1].heads);
    CHECK(int8.recall < 1.0);
    CHECK(int8.mass <= exact.mass);
    CHECK(outcomes[1].counts.count(probe::event::multiply_add_8) > 0);
    CHECK(outcomes[2].counts == probe::ledger{}); // the oracle is not counted
}

TEST_CASE("attend.evaluate: policies beyond the judged ones are only counted") {
    SOFATTN_GENERATOR(random);
    layer const given = random_layer(random);
    std::vector policies{find_policy("paper"), find_policy("dlzs8/sads/sufa")};
    auto const outcomes = evaluate(layer_views::of(given), policies, 1, 0, [](double) {});
    CHECK(outcomes[0].heads.size() == 4);
    CHECK(outcomes[1].heads.empty());
    CHECK(outcomes[1].counts.count(probe::event::shift_add_8) > 0);
}

TEST_CASE("attend.evaluate: an error inside a head group reaches the caller") {
    SOFATTN_GENERATOR(random);
    layer const given = random_layer(random);
    std::vector policies{find_policy("paper")};
    policies[0].options.tile_keys = 0;
    CHECK_THROWS_AS((void)evaluate(layer_views::of(given), policies, 1, 0, [](double) {}), error);
}

TEST_CASE("attend.runner: every name in the lists makes a policy, others are refused") {
    for (char const* predictor : {"dlzs8", "dlzs16", "two_sided", "lz_keys", "int8",
                                  "int8_per_query", "int4", "centred_int4", "exact"}) {
        for (char const* selector : {"sads", "sads_strided", "full_topk", "threshold"}) {
            for (char const* attender :
                 {"sufa", "sufa_ascending", "flash_attention_2", "two_pass"}) {
                auto const policy =
                    find_policy(std::string(predictor) + "/" + selector + "/" + attender);
                CHECK((policy.run != nullptr));
                CHECK(list_policies().predictors.find(predictor) != std::string::npos);
            }
        }
    }
    for (char const* wrong : {"", "papers", "int8/full_topk", "int9/full_topk/sufa",
                              "int8/full/sufa", "int8/full_topk/sufas", "a/b/c/d"}) {
        CHECK_THROWS_AS((void)find_policy(wrong), error);
    }
}
