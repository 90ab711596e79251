// SPDX-License-Identifier: MIT
// A machine on recorded queries, keys and values: the paper's preset in the reference arithmetic, its
// events on the machine.
#pragma once

#include "hw/report.hpp"
#include <sofattn/hw/config.hpp>
#include <sofattn/hw/pipeline_timing.hpp>
#include <sofattn/hw/tile_work.hpp>

#include <filesystem>
#include <functional>

namespace sofattn::hw {

/// Arrays of a layer, .npy: queries [heads, tokens, dim], keys and values [kv_heads, tokens, dim].
struct recorded_layer {
    std::filesystem::path q;
    std::filesystem::path k;
    std::filesystem::path v;
    bool is_bidirectional = false;
};

/// Keeps `kept_share` of `settings`, in tiles of its `tile_keys_count`; shapes are the arrays'. The
/// report's workload has the shares that the data gave. on_tile hears every tile, in order, if it is there.
/// Throws `error` for files and shapes that make no attention.
[[nodiscard]] named_run run_on_data(recorded_layer const& layer, workload const& settings,
                                    machine const& m, pipeline_options const& options = {},
                                    std::function<void(tile_work const&)> const& on_tile = {});

} // namespace sofattn::hw
