// SPDX-License-Identifier: MIT
#include "attention/layer_case.hpp"
#include <sofattn/attention/presets.hpp>

#include <doctest/doctest.h>

#include <cmath>
#include <type_traits>

using namespace sofattn;
using namespace sofattn::test;

TEST_CASE("attention.presets: paper is a composition like any other") {
    SOFATTN_GENERATOR(random);
    layer_case const layer(random, {.queries = 200, .keys = 200}, true);
    auto const options = presets::paper::options(0.2);
    auto const preset = run(presets::attention<presets::paper>(options), layer.given());
    auto const composed = run(attention<dlzs::dlzs16, sads::segment_topk<sads::contiguous>,
                                        sufa::sorted_updating<sufa::descending>>(options),
                              layer.given());
    CHECK(same(preset, composed));
    CHECK(preset.result.kept_share() == doctest::Approx(0.2).epsilon(0.02));
}

TEST_CASE("attention.presets: what most people write is the recommended composition") {
    static_assert(std::is_same_v<presets::attention_on<exec::simd>,
                                 presets::attention<presets::recommended, exec::simd>>);
    static_assert(std::is_same_v<presets::attention_on<exec::hardware>::selector,
                                 presets::recommended::selector>);
    CHECK(presets::recommended::options(0.25).budget.output_error == 0.25);
}

TEST_CASE("attention.presets: recommended keeps the sink, the window and at least 32 keys") {
    SOFATTN_GENERATOR(random);
    layer_case const layer(random, {.queries = 200, .keys = 200}, true);
    // An error of 100 spreads allows anything: what stays is what is always kept.
    auto const least =
        run(presets::attention<presets::recommended>(presets::recommended::options(100)),
            layer.given());
    auto const record = run(
        presets::attention<presets::recommended>(presets::recommended::options()), layer.given());
    for (index_t r = 0; r < 200; ++r) {
        auto const& kept = least.kept[static_cast<std::size_t>(r)];
        CHECK(std::ssize(kept) == std::min<index_t>(r + 1, 32));
        CHECK(std::ranges::find(kept, 0) != kept.end());
        CHECK(std::ranges::find(kept, static_cast<key_id>(r)) != kept.end());
        CHECK(record.kept[static_cast<std::size_t>(r)].size() >= kept.size());
    }
    CHECK(record.result.kept_pairs > least.result.kept_pairs);
}

TEST_CASE("attention.presets: recommended comes as close to dense attention as it is asked to") {
    SOFATTN_GENERATOR(random);
    layer_case const layer(random, {.queries = 300, .keys = 300}, false);
    auto const dense = run(
        attention<dlzs::unpredicted, sads::keep_all, sufa::flash_attention_2>(attention_options{}),
        layer.given());
    double last = 1e9;
    for (double const error : {0.1, 0.02, 0.004, 0.0008}) {
        auto const record =
            run(presets::attention<presets::recommended>(presets::recommended::options(error)),
                layer.given());
        double square = 0;
        double count = 0;
        for_each_index(record.output.view().extents(), [&](auto const& i) {
            double const off = static_cast<double>(at(record.output.view(), i)) -
                               static_cast<double>(at(dense.output.view(), i));
            square += off * off;
            count += 1;
        });
        // Values are standard normal: a spread is sqrt(value_dim), so this is in spreads. Beyond
        // the dropped keys' share there is the predictor's error in their weights.
        double const in_spreads = std::sqrt(square / count);
        CHECK(in_spreads <= 1.2 * error + 2e-4);
        CHECK(in_spreads < last);
        last = in_spreads;
    }
}

TEST_CASE("attention.presets: the counting executor runs them too") {
    SOFATTN_GENERATOR(random);
    layer_case const layer(random, {}, true);
    exec::counting x;
    auto const counted =
        run(presets::attention<presets::paper, exec::counting>(presets::paper::options()), x,
            layer.given());
    auto const plain =
        run(presets::attention<presets::paper>(presets::paper::options()), layer.given());
    CHECK(same(counted, plain));
    CHECK(x.probe.count(probe::event::shift_add_16) > 0);
}
