// SPDX-License-Identifier: MIT
#include "attention/layer_case.hpp"
#include <sofattn/attention/presets.hpp>

#include <doctest/doctest.h>

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

TEST_CASE("attention.presets: recommended keeps the sink, the window and at least 32 keys") {
    SOFATTN_GENERATOR(random);
    layer_case const layer(random, {.queries = 200, .keys = 200}, true);
    auto const record =
        run(presets::attention<presets::recommended>(presets::recommended::options(0.05)),
            layer.given());
    for (index_t r = 0; r < 200; ++r) {
        auto const& kept = record.kept[static_cast<std::size_t>(r)];
        CHECK(std::ssize(kept) == std::min<index_t>(r + 1, 32));
        CHECK(std::ranges::find(kept, 0) != kept.end());
        CHECK(std::ranges::find(kept, static_cast<key_id>(r)) != kept.end());
    }
    CHECK(deviation(layer, record) <= 2e-6);
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
