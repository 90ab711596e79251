// SPDX-License-Identifier: MIT
// The machine on data: events of the reference arithmetic, and the analytic model beside them.
#include "attention/random_layer.hpp"
#include "support/generators.hpp"
#include "support/same_bits.hpp"
#include <sofattn/attention/attention.hpp>
#include <sofattn/attention/presets.hpp>
#include <sofattn/core/error.hpp>
#include <sofattn/core/tensor.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/dlzs/policy.hpp>
#include <sofattn/dlzs/rope.hpp>
#include <sofattn/exec/executor.hpp>
#include <sofattn/hw/config.hpp>
#include <sofattn/hw/measured_shares.hpp>
#include <sofattn/hw/run.hpp>
#include <sofattn/hw/workload.hpp>
#include <sofattn/probe/event.hpp>
#include <sofattn/probe/trace.hpp>
#include <sofattn/rass/schedule.hpp>
#include <sofattn/sads/segment_topk.hpp>
#include <sofattn/sufa/sorted_updating.hpp>

#include <doctest/doctest.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

using namespace sofattn;
using hw::activity;
using hw::run_report;
using hw::workload;
using test::layer_shape;

namespace {

using paper_attention = presets::attention<presets::paper, exec::hardware>;

struct recorded {
    probe::trace events;
    attention_result result;
};

workload shape_of(layer_shape const& s, bool causal) {
    workload w;
    w.keys_count = s.keys;
    w.queries_count = s.queries;
    w.first_position_count = causal ? s.keys - s.queries : 0;
    w.heads_count = s.heads;
    w.kv_heads_count = s.kv_heads;
    w.head_dim_count = s.dim;
    w.value_dim_count = s.value_dim;
    w.is_causal = causal;
    w.has_kv_cache = true;
    return w;
}

recorded record(test::random_layer<> const& layer, layer_shape const& s,
                attention_options const& options) {
    exec::hardware x;
    tensor<float, axis::head, axis::query, axis::value_dim> output(
        {s.heads, s.queries, s.value_dim});
    paper_attention const attend(options);
    attention_result const result = attend(x, layer.given(), output.view());
    return {x.probe, result};
}

/// Tokens, projections and queries, for K and V on demand.
struct projected_layer {
    projected_layer(test::generator& random, layer_shape const& s, index_t channels)
        : x(test::random_matrix<float, axis::key, axis::channel>(random, {s.keys, channels})),
          wk(test::random_matrix<float, axis::channel, axis::kv_head, axis::dim>(
              random, {channels, s.kv_heads, s.dim})),
          wv(test::random_matrix<float, axis::channel, axis::kv_head, axis::value_dim>(
              random, {channels, s.kv_heads, s.value_dim})),
          q(test::random_matrix<float, axis::head, axis::query, axis::dim>(
              random, {s.heads, s.queries, s.dim})) {}

    [[nodiscard]] projected_problem<float> given(bool causal) const {
        projected_problem<float> p;
        p.queries = q.view();
        p.tokens = x.view();
        p.key_weights = wk.view();
        p.value_weights = wv.view();
        p.causal = causal;
        return p;
    }

    tensor<float, axis::key, axis::channel> x;
    tensor<float, axis::channel, axis::kv_head, axis::dim> wk;
    tensor<float, axis::channel, axis::kv_head, axis::value_dim> wv;
    tensor<float, axis::head, axis::query, axis::dim> q;
};

} // namespace

TEST_CASE("hw.run on data: what the reference arithmetic did arrives at the machine, all of it") {
    SOFATTN_GENERATOR(random);
    for (int n = 0; n < 12; ++n) {
        bool const causal = random.chance(0.5);
        layer_shape const s{4, random.chance(0.5) ? 2 : 4, random.integer<index_t>(1, 300), 300, 16,
                            24};
        test::random_layer<> layer(random, s, causal);
        attention_options options = presets::paper::options(random.uniform(0.05, 0.5));
        if (random.chance(0.3)) {
            options.scope = selection_scope::per_group;
        }
        workload w = shape_of(s, causal);
        w.is_selection_shared = options.scope == selection_scope::per_group;
        recorded const run = record(layer, s, options);
        run_report const r = hw::run(run.events, w, hw::sofa_28nm());
        probe::ledger const counts = run.events.total();
        using enum probe::stage;
        using probe::event;
        CAPTURE(n);
        CHECK(r.visible_pairs == run.result.visible_pairs);
        CHECK(r.kept_pairs == run.result.kept_pairs);
        CHECK(r.done[activity::key_issue] == run.result.key_loads);
        CHECK(r.done[activity::shift_add_16] ==
              counts.count(score_prediction, event::shift_add_16));
        CHECK(r.done[activity::exp] == counts.count(attention, event::exp));
        CHECK(r.done[activity::divide] == counts.count(attention, event::divide));
        CHECK(r.done[activity::max_update] == counts.count(attention, event::max_update));
        CHECK(r.done[activity::lz_encode] == counts.count(score_prediction, event::lz_encode));
        CHECK(r.done[activity::multiply_add] ==
              run.result.kept_pairs * static_cast<std::uint64_t>(s.dim + s.value_dim));
        CHECK(r.traffic.output_bytes == counts.count(attention, event::output_bytes));
        CHECK(r.traffic.query_bytes == counts.count(attention, event::query_bytes));
        CHECK(r.timing.items == run.events.tiles().size());
        for (auto const& e : r.timing.engines) {
            CHECK((e.busy + e.stalled() + e.idle_before + e.idle_after) == r.timing.total);
        }
    }
}

TEST_CASE("hw.run on data: a schedule that loads keys again and again pays for it, or has them") {
    SOFATTN_GENERATOR(random);
    for (int n = 0; n < 8; ++n) {
        layer_shape const s{2, 2, random.integer<index_t>(100, 300), 300, 16, 24};
        test::random_layer<> layer(random, s, false);
        exec::hardware x;
        tensor<float, axis::head, axis::query, axis::value_dim> output(
            {s.heads, s.queries, s.value_dim});
        attention<dlzs::dlzs16, sads::segment_topk<>, sufa::sorted_updating<>, exec::hardware,
                  rass::left_to_right<>> const attend(presets::paper::options(0.3));
        attention_result const result = attend(x, layer.given(), output.view());
        workload const w = shape_of(s, false);
        REQUIRE(result.key_loads > static_cast<std::uint64_t>(s.heads * s.keys));
        // A head's keys fit: each comes once at most.
        hw::machine m;
        run_report const once = hw::run(x.probe, w, m);
        REQUIRE(once.placed.keys_stay);
        CHECK(once.done[activity::key_issue] == result.key_loads);
        CHECK(once.traffic.key_bytes > 0);
        CHECK(once.traffic.key_bytes <=
              static_cast<std::uint64_t>(s.kv_heads * s.keys * s.dim) * 2);
        m.buffers.token.capacity_bytes = 1024;
        CHECK(hw::run(x.probe, w, m).traffic.key_bytes ==
              result.key_loads * static_cast<std::uint64_t>(s.dim) * 2);
    }
}

TEST_CASE("hw.run on data: rivals attend to what the trace kept, and predict it their way") {
    SOFATTN_GENERATOR(random);
    layer_shape const s{2, 2, 300, 300, 16, 24};
    test::random_layer<> layer(random, s, false);
    recorded const run = record(layer, s, presets::paper::options(0.2));
    workload const w = shape_of(s, false);
    for (char const* name : {"fact", "energon", "sanger", "plain_4bit"}) {
        CAPTURE(name);
        run_report const r = hw::run(run.events, w, hw::find_machine(name));
        CHECK(r.kept_pairs == run.result.kept_pairs);
        CHECK(r.done[activity::key_issue] == run.result.key_loads);
        bool const is_packed = std::string(name) == "sanger";
        CHECK(r.done[activity::max_update] == // a comparison per score
              (is_packed ? 0 : run.result.kept_pairs));
        bool const shifts = std::string(name) == "fact";
        CHECK((r.done[activity::shift_add_16] > 0) == shifts);
        CHECK((r.done[activity::predictor_multiply_add_4] > 0) == !shifts);
        // One selection per row and head, with the first of its tiles.
        auto const& selection =
            r.timing.engines[static_cast<std::size_t>(hw::tile_stage::selection)];
        hw::tile_work row;
        row.row_keys = s.keys;
        row.rows = 128;
        hw::machine const m = hw::find_machine(name);
        auto const each = hw::selection_time(m.selection, row, hw::run_of(row, m)).interval_cycles;
        CHECK(selection.busy.count() == 2 * 3 * each); // heads, blocks of at most 128 rows
    }
    CHECK_THROWS_WITH_AS((void)hw::run(run.events, w, hw::dense_fa2()),
                         "recorded run: selection.kind_name is \"none\", must be a selector: a "
                         "trace tells what was kept",
                         error);
}

TEST_CASE("hw.run on data: keys and values on demand") {
    SOFATTN_GENERATOR(random);
    for (bool const causal : {false, true}) {
        layer_shape const s{4, 2, 200, 200, 16, 24};
        index_t const channels = 64;
        projected_layer const layer(random, s, channels);
        exec::hardware x;
        tensor<float, axis::head, axis::query, axis::value_dim> output(
            {s.heads, s.queries, s.value_dim});
        paper_attention const attend(presets::paper::options(0.1));
        attention_result const result = attend(x, layer.given(causal), output.view());
        workload w = shape_of(s, causal);
        w.has_kv_cache = false;
        w.width_count = channels;
        run_report const r = hw::run(x.probe, w, hw::sofa_28nm());
        probe::ledger const counts = x.probe.total();
        using enum probe::stage;
        using probe::event;
        CHECK(r.done[activity::shift_add_8] == counts.count(key_prediction, event::shift_add_8));
        CHECK(r.done[activity::kv_multiply_add] ==
              result.generated * static_cast<std::uint64_t>(channels * (s.dim + s.value_dim)));
        CHECK(r.traffic.kept_token_bytes == counts.count(kv_generation, event::token_bytes));
        CHECK(r.traffic.token_bytes == counts.count(key_prediction, event::token_bytes));
        // Both fit the weight memory: they come once per KV head, as the software counts.
        CHECK(r.placed.weights_stay);
        CHECK(r.traffic.code_bytes == counts.count(key_prediction, event::weight_bytes));
        CHECK(r.traffic.weight_bytes == counts.count(kv_generation, event::weight_bytes));
    }
}

TEST_CASE("hw.run: the analytic model agrees with data within 2 % where both apply") {
    SOFATTN_GENERATOR(random);
    for (bool const causal : {false, true}) {
        for (double const kept : {0.1, 0.25}) {
            layer_shape const s{2, 2, 1024, 1024, 32, 32};
            test::random_layer<> layer(random, s, causal);
            layer.plant_matches(random, 1.0);
            recorded const run = record(layer, s, presets::paper::options(kept));
            workload w = shape_of(s, causal);
            run_report const data = hw::run(run.events, w, hw::sofa_28nm());
            // The shares are measured; everything else is the model's.
            w = hw::with_measured_shares(run.events, w);
            w.union_share = 0; // random keys: chosen independently
            run_report const model = hw::run(w, hw::sofa_28nm());
            CAPTURE(causal);
            CAPTURE(kept);
            CHECK(model.timing.items == data.timing.items);
            CHECK(static_cast<double>(model.timing.total.count()) ==
                  doctest::Approx(static_cast<double>(data.timing.total.count())).epsilon(0.02));
            CHECK(model.picojoules() == doctest::Approx(data.picojoules()).epsilon(0.02));
            CHECK(static_cast<double>(model.traffic.total()) ==
                  doctest::Approx(static_cast<double>(data.traffic.total())).epsilon(0.02));
            for (std::size_t b = 0; b < hw::block_count; ++b) {
                CAPTURE(std::string(hw::name(static_cast<hw::block>(b))));
                CHECK(model.dynamic_picojoules[b] ==
                      doctest::Approx(data.dynamic_picojoules[b]).epsilon(0.03));
            }
        }
    }
}

TEST_CASE("hw.run on data: shapes that contradict the trace are refused") {
    SOFATTN_GENERATOR(random);
    layer_shape const s{2, 2, 40, 40, 16, 16};
    test::random_layer<> layer(random, s, false);
    recorded const run = record(layer, s, presets::paper::options(0.2));
    workload w = shape_of(s, false);
    w.heads_count = w.kv_heads_count = 1;
    CHECK_THROWS_WITH_AS((void)hw::run(run.events, w, hw::sofa_28nm()),
                         "recorded run: a tile at head, query, key is 1, 0, 0, must be below "
                         "heads_count, queries_count, keys_count of the workload",
                         error);
    w = shape_of(s, false);
    w.tile_keys_count = 16; // the run's is 128
    CHECK_THROWS_WITH_AS(
        (void)hw::run(run.events, w, hw::sofa_28nm()),
        "recorded run: pairs predicted in a tile is 1600, must be at most its rows "
        "times keys, 640; tile_keys_count is that of the run, or keys_count where "
        "rows are not cut into tiles",
        error);
    w = shape_of(s, false);
    probe::trace untold; // as above, but nobody said what the rows kept
    untold.begin_tile(run.events.tiles().front().id);
    for (std::size_t n = 0; n < probe::stage_count * probe::event_count; ++n) {
        auto const at = static_cast<probe::stage>(n / probe::event_count);
        auto const e = static_cast<probe::event>(n % probe::event_count);
        untold(at, e, run.events.tiles().front().counts.count(at, e));
    }
    CHECK_THROWS_WITH_AS((void)hw::run(untold, w, hw::sofa_28nm()),
                         "recorded run: keys that the fullest row of a tile kept is 0, must be at "
                         "most its 40 keys, and as many as its 320 kept pairs need",
                         error);
    w.head_dim_count = 13;
    CHECK_THROWS_AS((void)hw::run(run.events, w, hw::sofa_28nm()), error);
}
