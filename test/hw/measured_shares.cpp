// SPDX-License-Identifier: MIT
// The analytic model beside runs on recorded layers, whose shares it is given.
#include "hw/recorded_layer.hpp"
#include <sofattn/attention/attention.hpp>
#include <sofattn/attention/presets.hpp>
#include <sofattn/core/tensor.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/exec/executor.hpp>
#include <sofattn/hw/config.hpp>
#include <sofattn/hw/measured_shares.hpp>
#include <sofattn/hw/run.hpp>
#include <sofattn/hw/workload.hpp>
#include <sofattn/probe/event.hpp>
#include <sofattn/probe/trace.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <tuple>
#include <vector>

using namespace sofattn;
using hw::workload;

namespace {

/// What the paper's preset did on a layer, its shapes, and the fullest rows as the selections say.
struct observed {
    probe::trace events;
    workload shape;
    std::vector<std::uint64_t> kept_most; ///< [tile]
};

observed observe(problem<float> const& given, double kept_share) {
    problem_shape const s = given.shape();
    workload w;
    w.keys_count = s.keys;
    w.queries_count = s.queries;
    w.first_position_count = s.causal ? s.keys - s.queries : 0;
    w.width_count = s.heads * s.dim;
    w.heads_count = s.heads;
    w.kv_heads_count = s.kv_heads;
    w.head_dim_count = s.dim;
    w.value_dim_count = s.value_dim;
    w.is_causal = s.causal;
    w.has_kv_cache = true;
    exec::hardware x;
    tensor<float, axis::head, axis::query, axis::value_dim> output(
        {s.heads, s.queries, s.value_dim});
    presets::attention<presets::paper, exec::hardware> const attend(
        presets::paper::options(kept_share));
    std::map<std::tuple<index_t, index_t, index_t>, std::uint64_t> most; // by head, block, tile
    (void)attend(x, given, output.view(), [&](index_t h, index_t q, auto kept) {
        if (!kept.empty()) {
            auto& fullest = most[{h, q / 128, kept.front().key / 128}];
            fullest = std::max(fullest, std::uint64_t{kept.size()});
        }
    });
    observed run{x.probe, w, {}};
    for (auto const& tile : x.probe.tiles()) {
        run.kept_most.push_back(
            most[{tile.id.head, tile.id.first_query / 128, tile.id.first_key / 128}]);
    }
    return run;
}

} // namespace

TEST_CASE("hw.with_measured_shares: the analytic model agrees with recorded layers within 2 %") {
    for (test::recorded_name const& name : test::recorded_layers()) {
        test::recorded_layer const layer = name.read(640);
        for (double const kept_share : {0.05, 0.1}) {
            observed const run = observe(layer.given(), kept_share);
            for (std::size_t t = 0; t < run.kept_most.size(); ++t) {
                CHECK(run.events.tiles()[t].kept_most == run.kept_most[t]);
            }
            workload const w = hw::with_measured_shares(run.events, run.shape);
            hw::run_report const data = hw::run(run.events, run.shape, hw::sofa_28nm());
            hw::run_report const model = hw::run(w, hw::sofa_28nm());
            CAPTURE(name.name);
            CAPTURE(kept_share);
            CHECK(w.kept_share == data.kept_share());
            CHECK(w.kept_most_share >= w.kept_share);
            CHECK(model.timing.items == data.timing.items);
            CHECK(static_cast<double>(model.timing.total.count()) ==
                  doctest::Approx(static_cast<double>(data.timing.total.count())).epsilon(0.02));
            CHECK(model.picojoules() == doctest::Approx(data.picojoules()).epsilon(0.02));
            CHECK(static_cast<double>(model.traffic.total()) ==
                  doctest::Approx(static_cast<double>(data.traffic.total())).epsilon(0.02));
            CHECK(static_cast<double>(model.kept_pairs) ==
                  doctest::Approx(static_cast<double>(data.kept_pairs)).epsilon(0.005));
            for (std::size_t e = 0; e < hw::tile_stage_count; ++e) {
                CAPTURE(data.timing.engines[e].name);
                CHECK(static_cast<double>(model.timing.engines[e].busy.count()) ==
                      doctest::Approx(static_cast<double>(data.timing.engines[e].busy.count()))
                          .epsilon(0.03));
            }
        }
    }
}

TEST_CASE("hw.with_measured_shares: shares are those of the events, and shapes stay") {
    test::recorded_layer const layer = test::sample_layers().front().read(200);
    observed const run = observe(layer.given(), 0.07);
    workload const w = hw::with_measured_shares(run.events, run.shape);
    probe::ledger const counts = run.events.total();
    using enum probe::stage;
    using probe::event;
    auto const pairs = static_cast<double>(12 * 200 * 512);
    auto const kept = static_cast<double>(counts.count(attention, event::exp));
    CHECK(w.kept_share == kept / pairs);
    CHECK(w.update_share == static_cast<double>(counts.count(attention, event::max_update)) / kept);
    CHECK(w.zero_score_share ==
          static_cast<double>(counts.count(score_prediction, event::skipped_zero)) / (pairs * 32));
    // 36 of 512 keys in four tiles of 128, for every row: 9 each.
    CHECK(w.kept_most_share == 9.0 / 128);
    CHECK(w.union_share > w.kept_share);
    CHECK(w.union_share < 1);
    CHECK(w.keys_count == 512);
    CHECK(w.queries_count == 200);
    CHECK(w.heads_count == 12);
}
