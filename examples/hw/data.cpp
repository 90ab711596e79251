// SPDX-License-Identifier: MIT
#include "hw/data.hpp"

#include <sofattn/attention/attention.hpp>
#include <sofattn/attention/presets.hpp>
#include <sofattn/core/tensor.hpp>
#include <sofattn/exec/executor.hpp>
#include <sofattn/hw/measured_shares.hpp>
#include <sofattn/hw/recorded.hpp>
#include <sofattn/hw/run.hpp>
#include <sofattn/io/npy.hpp>

namespace sofattn::hw {

named_run run_on_data(recorded_layer const& layer, workload const& settings, machine const& m,
                      pipeline_options const& heard,
                      std::function<void(tile_work const&)> const& on_tile) {
    validate(m);
    auto const q = io::read_npy(layer.q).to_tensor<axis::head, axis::query, axis::dim>();
    auto const k = io::read_npy(layer.k).to_tensor<axis::kv_head, axis::key, axis::dim>();
    auto const v = io::read_npy(layer.v).to_tensor<axis::kv_head, axis::key, axis::value_dim>();
    problem<float> const given{q.view(), k.view(), v.view(), !layer.is_bidirectional};
    problem_shape const shape = given.shape();

    workload w = settings;
    w.keys_count = shape.keys;
    w.queries_count = shape.queries;
    w.first_position_count = shape.causal ? shape.keys - shape.queries : 0;
    w.width_count = shape.heads * shape.dim;
    w.heads_count = shape.heads;
    w.kv_heads_count = shape.kv_heads;
    w.head_dim_count = shape.dim;
    w.value_dim_count = shape.value_dim;
    w.is_causal = shape.causal;
    w.has_kv_cache = true;
    w.rope_name = "none"; // recorded keys are rotated already
    validate(w);

    attention_options options = presets::paper::options(w.kept_share);
    options.tile_keys = w.tile_keys_count;
    options.scope =
        w.is_selection_shared ? selection_scope::per_group : selection_scope::per_query_head;
    tensor<float, axis::head, axis::query, axis::value_dim> output(
        {shape.heads, shape.queries, shape.value_dim});
    exec::hardware x;
    presets::attention<presets::paper, exec::hardware> const attend(options);
    (void)attend(x, given, output.view());
    workload const measured = with_measured_shares(x.probe, w);
    if (on_tile) {
        recorded_tiles(x.probe, measured, m).for_each(on_tile);
    }
    return {layer.q.filename().string(), run(x.probe, measured, m, heard)};
}

} // namespace sofattn::hw
