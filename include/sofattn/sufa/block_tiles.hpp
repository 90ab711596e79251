// SPDX-License-Identifier: MIT
// How the dense blocks are cut for the caches of a machine.
#pragma once

#include <sofattn/core/types.hpp>

namespace sofattn::sufa {

/// Sizes that change how long dense attention takes, and its results by rounding only: rows do not
/// depend on `rows`, and on `keys` as any sum does on its order. Each block has defaults; what is best
/// on the machine at hand is measured by sofattn-tune.
struct block_tiles {
    index_t keys; ///< of a tile: its values and a panel's logits are in the caches at once
    /// Rows of a block at most, where a row's query and output have 256 dimensions together or fewer;
    /// else fewer in proportion. More share the packing of a tile, and take more of the second cache.
    index_t rows;

    static constexpr index_t keys_step =
        48; ///< whole groups of keys, of any products on any target
    static constexpr index_t keys_least = 48;
    static constexpr index_t keys_most = 576;
    static constexpr index_t rows_least = 1; ///< less than a panel is one
    static constexpr index_t rows_most = 1536;

    [[nodiscard]] constexpr bool is_valid() const noexcept {
        return keys >= keys_least && keys <= keys_most && keys % keys_step == 0 &&
               rows >= rows_least && rows <= rows_most;
    }
    friend constexpr bool operator==(block_tiles, block_tiles) noexcept = default;
};

} // namespace sofattn::sufa
