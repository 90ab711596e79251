// SPDX-License-Identifier: MIT
// Random descriptions of layers, and all tiles of one.
#pragma once

#include "support/generators.hpp"
#include <sofattn/core/types.hpp>
#include <sofattn/hw/config.hpp>
#include <sofattn/hw/expand.hpp>
#include <sofattn/hw/tile_work.hpp>
#include <sofattn/hw/workload.hpp>

#include <algorithm>
#include <vector>

namespace sofattn::test {

inline hw::workload random_workload(generator& random) {
    hw::workload w;
    w.is_causal = random.chance(0.5);
    w.queries_count = random.integer<index_t>(1, 700);
    w.first_position_count =
        w.is_causal && random.chance(0.5) ? random.integer<index_t>(0, 500) : 0;
    w.keys_count =
        w.is_causal ? w.first_position_count + w.queries_count : random.integer<index_t>(1, 900);
    w.kv_heads_count = random.integer<index_t>(1, 3);
    w.heads_count = w.kv_heads_count * random.integer<index_t>(1, 4);
    w.head_dim_count = 16 * random.integer<index_t>(1, 8);
    w.value_dim_count = 16 * random.integer<index_t>(1, 8);
    w.width_count = 64 * random.integer<index_t>(1, 8);
    w.tile_keys_count = random.chance(0.5) ? 128 : random.integer<index_t>(1, 200);
    w.kept_share = random.uniform(0.01, 1.0);
    w.kept_most_share =
        random.chance(0.3) ? std::min(1.0, w.kept_share + random.uniform(0.0, 0.2)) : 0.0;
    w.union_share = random.chance(0.5) ? random.uniform(0.0, 1.0) : 0.0;
    w.update_share = random.uniform(0.0, 0.2);
    w.zero_key_share = random.uniform(0.0, 0.3);
    w.zero_score_share = random.uniform(0.0, 0.3);
    w.has_kv_cache = random.chance(0.5);
    w.is_selection_shared = random.chance(0.3);
    w.rope_name = random.chance(0.5) ? "none" : "after_key_prediction";
    return w;
}

/// The runs that a tree of repetitions stands for, in order.
inline void append_flat(hw::tile_run const& run, std::vector<hw::tile_run>& into) {
    if (run.parts.empty()) {
        into.push_back(run);
        return;
    }
    for (index_t n = 0; n < run.times; ++n) {
        for (hw::tile_run const& part : run.parts) {
            append_flat(part, into);
        }
    }
}
inline std::vector<hw::tile_run> runs_of(hw::layer_tiles const& tiles, index_t selection,
                                         index_t block) {
    std::vector<hw::tile_run> nested;
    tiles.append_block(selection, block, nested);
    std::vector<hw::tile_run> runs;
    for (hw::tile_run const& run : nested) {
        append_flat(run, runs);
    }
    return runs;
}
/// The runs of all blocks of the selections of one KV head.
inline std::vector<hw::tile_run> runs_of(hw::workload const& w, hw::machine const& m) {
    hw::layer_tiles const tiles(w, m);
    std::vector<hw::tile_run> runs;
    for (index_t s = 0; s < tiles.selections(); ++s) {
        for (index_t b = 0; b < tiles.blocks(); ++b) {
            auto const more = runs_of(tiles, s, b);
            runs.insert(runs.end(), more.begin(), more.end());
        }
    }
    return runs;
}

} // namespace sofattn::test
