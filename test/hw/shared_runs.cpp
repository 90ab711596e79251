// SPDX-License-Identifier: MIT
// Runs that share prediction and selection: counts as if each attender and schedule had its own.
#include "hw/shared_runs.hpp"

#include "attention/random_layer.hpp"
#include "support/generators.hpp"
#include <sofattn/attention/attention.hpp>
#include <sofattn/attention/presets.hpp>
#include <sofattn/dlzs/policy.hpp>
#include <sofattn/exec/executor.hpp>
#include <sofattn/probe/trace.hpp>
#include <sofattn/rass/schedule.hpp>
#include <sofattn/sads/row_selectors.hpp>
#include <sofattn/sads/segment_topk.hpp>
#include <sofattn/sufa/rivals.hpp>
#include <sofattn/sufa/sorted_updating.hpp>

#include <doctest/doctest.h>

#include <utility>

using namespace sofattn;

namespace {

using descends = sufa::sorted_updating<sufa::descending>;
using ascends = sufa::sorted_updating<sufa::ascending>;
using fa2 = sufa::flash_attention_2;
using segments = sads::segment_topk<>;

hw::layer random_layer(test::generator& random, bool is_causal) {
    test::layer_shape const s{4, 2, random.integer<index_t>(1, 200), 200, 16, 24};
    test::random_layer<> layer(random, s, is_causal);
    layer.plant_matches(random, 1.0);
    return {std::move(layer.q), std::move(layer.k), std::move(layer.v), is_causal};
}

} // namespace

TEST_CASE_TEMPLATE("hw.shared_runs: other attenders count as in runs of their own", Selector,
                   segments, sads::full_topk) {
    SOFATTN_GENERATOR(random);
    for (bool const is_causal : {false, true}) {
        hw::layer const layer = random_layer(random, is_causal);
        index_t const tile = random.chance(0.5) ? 16 : 128;
        auto const shared =
            hw::count<dlzs::dlzs8, Selector, fa2, descends, ascends>(layer, 0.2, tile);
        REQUIRE(shared.others.size() == 2);
        CHECK(shared.counts == hw::count<dlzs::dlzs8, Selector, fa2>(layer, 0.2, tile).counts);
        CHECK(shared.others[0] ==
              hw::count<dlzs::dlzs8, Selector, descends>(layer, 0.2, tile).counts);
        CHECK(shared.others[1] ==
              hw::count<dlzs::dlzs8, Selector, ascends>(layer, 0.2, tile).counts);
        CHECK(!(shared.others[0] == shared.counts));
    }
}

TEST_CASE("hw.shared_runs: another schedule gives the trace of a run with it") {
    SOFATTN_GENERATOR(random);
    for (bool const is_causal : {false, true}) {
        using ranges = rass::left_to_right<rass::load_rule::range>;
        hw::layer const layer = random_layer(random, is_causal);
        problem<float> const given = layer.given();
        problem_shape const shape = given.shape();
        hw::wishes wanted(16);
        auto const run =
            hw::attend<exec::hardware, dlzs::dlzs16, segments, descends>(layer, 0.2, 16, &wanted);
        probe::trace const other = hw::scheduled_by<ranges>(run.counts, wanted, shape);

        attention_options options = presets::paper::options(0.2);
        options.tile_keys = 16;
        tensor<float, axis::head, axis::query, axis::value_dim> output(
            {shape.heads, shape.queries, shape.value_dim});
        exec::hardware x;
        attention<dlzs::dlzs16, segments, descends, exec::hardware, ranges> const attend(options);
        auto const own = attend(x, given, output.view());
        CHECK(other == x.probe);
        CHECK(hw::key_loads(other, shape) == own.key_loads);
        CHECK(own.key_loads > run.result.key_loads);
        CHECK(hw::scheduled_by<rass::reuse_aware>(run.counts, wanted, shape) == run.counts);
    }
}
