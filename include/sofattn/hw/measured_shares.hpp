// SPDX-License-Identifier: MIT
// The shares of a workload, as a run on data had them.
#pragma once

#include <sofattn/core/types.hpp>
#include <sofattn/hw/config.hpp>
#include <sofattn/hw/recorded.hpp>
#include <sofattn/hw/tile_work.hpp>
#include <sofattn/hw/workload.hpp>
#include <sofattn/probe/trace.hpp>

#include <algorithm>
#include <cstdint>

namespace sofattn::hw {

/// `shape` with the shares that the trace reports: kept, of the fullest row, of the union of a
/// block's rows, new maxima, zeros. An analytic run of it stands for the run on data. Throws as
/// recorded_tiles.
[[nodiscard]] inline workload with_measured_shares(probe::trace const& events, workload shape) {
    std::uint64_t visible = 0;
    std::uint64_t kept = 0;
    std::uint64_t updates = 0;
    std::uint64_t score_products = 0;
    std::uint64_t score_zeros = 0;
    std::uint64_t key_products = 0;
    std::uint64_t key_zeros = 0;
    index_t keys = 0;
    index_t kept_most = 0;
    index_t loads = 0;
    recorded_tiles(events, shape, sofa_28nm()).for_each([&](tile_work const& w) {
        visible += w.visible_pairs;
        kept += w.kept_pairs;
        updates += w.max_updates;
        score_products += w.score_products();
        score_zeros += w.skipped_score_products;
        key_products += w.key_products();
        key_zeros += w.skipped_key_products;
        keys += w.keys;
        kept_most += w.kept_most;
        loads += w.loads;
    });
    auto const share = [](auto part, auto of) {
        return of == 0 ? 0.0 : static_cast<double>(part) / static_cast<double>(of);
    };
    shape.kept_share = share(kept, visible);
    shape.kept_most_share = share(kept_most, keys);
    shape.union_share = std::min(1.0, share(loads, keys)); // a key may be loaded more than once
    shape.update_share = share(updates, kept);
    shape.zero_key_share = share(key_zeros, key_products);
    shape.zero_score_share = share(score_zeros, score_products);
    return shape;
}

} // namespace sofattn::hw
