// SPDX-License-Identifier: MIT
// The first tiles of a layer one by one, in the order in which a run passes them.
#pragma once

#include <sofattn/core/types.hpp>
#include <sofattn/hw/config.hpp>
#include <sofattn/hw/expand.hpp>
#include <sofattn/hw/tile_work.hpp>
#include <sofattn/hw/workload.hpp>

#include <algorithm>
#include <cstddef>
#include <vector>

namespace sofattn::hw {

namespace detail {

inline void append_in_order(tile_run const& run, std::size_t most, std::vector<tile_work>& to) {
    for (index_t n = 0; n < run.times && to.size() < most; ++n) {
        if (run.parts.empty()) {
            to.push_back(run.tile);
        }
        for (tile_run const& part : run.parts) {
            append_in_order(part, most, to);
        }
    }
}

} // namespace detail

/// As `run` of the same description expands them; fewer than `most` if the layer has fewer.
[[nodiscard]] inline std::vector<tile_work> first_tiles(workload const& of, machine const& on,
                                                        std::size_t most) {
    validate(on);
    validate(of);
    layer_tiles const tiles(of, on);
    std::vector<tile_work> found;
    std::vector<tile_run> runs;
    for (index_t s = 0; s < of.kv_heads_count * tiles.selections(); ++s) {
        // The first selection of a KV head makes what the others find.
        index_t const selection = std::min<index_t>(s % tiles.selections(), 1);
        for (index_t b = 0; b < tiles.blocks() && found.size() < most; ++b) {
            runs.clear();
            tiles.append_block(selection, b, runs);
            for (tile_run const& run : runs) {
                detail::append_in_order(run, most, found);
            }
        }
    }
    return found;
}

} // namespace sofattn::hw
