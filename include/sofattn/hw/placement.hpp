// SPDX-License-Identifier: MIT
// What stays on chip between tiles, and what a tile therefore moves.
#pragma once

#include <sofattn/core/types.hpp>
#include <sofattn/hw/config.hpp>
#include <sofattn/hw/kinds.hpp>
#include <sofattn/hw/tile_work.hpp>
#include <sofattn/probe/event.hpp>

#include <cstdint>

namespace sofattn::hw {

/// Whether things that are used more than once fit where they are kept. A memory that is too small is
/// read through: what does not fit comes from the DRAM each time. The paper gives capacities and
/// does not say what they hold; this is the reading that moves least.
struct placement {
    bool codes_stay = false;   ///< codes of one head's W_k, in the weight memory
    bool weights_stay = false; ///< its W_k and W_v, 16 bits, beside them
    bool keys_stay = false;    ///< K^, K and V of one head, in the token memory
    bool scores_stay = true;   ///< A^ of one block of rows, in the temporary memory

    /// For heads of `keys` keys; `channels` 0 where nothing is predicted from X; `rows` of a block.
    [[nodiscard]] static placement of(machine const& m, index_t keys, index_t rows, index_t dim,
                                      index_t value_dim, index_t channels) noexcept {
        auto const operand = static_cast<index_t>(probe::formal_operand_bytes);
        bool const predicts = hw::predicts(m.prediction);
        index_t const codes = predicts ? ceil_div(channels * dim, index_t{2}) : 0;
        index_t const weights = channels * (dim + value_dim) * operand;
        index_t const head =
            keys * ((predicts ? dim * m.prediction.result_bytes : 0) + (dim + value_dim) * operand);
        placement p;
        p.codes_stay = codes <= m.buffers.weight.capacity_bytes;
        p.weights_stay = codes + weights <= m.buffers.weight.capacity_bytes;
        p.keys_stay = head <= m.buffers.token.capacity_bytes;
        p.scores_stay =
            m.pipeline.hand_over_name == "tile_ready" || !predicts ||
            rows * keys * m.prediction.result_bytes <= m.buffers.temporary.capacity_bytes;
        return p;
    }
};

/// Where a tile stands.
struct tile_position {
    bool first_of_head = false; ///< of a KV head
    bool first_of_rows = false;
    bool last_of_rows = false;
    bool used_again = false;    ///< later blocks of queries meet the same keys
    bool is_cached = false;     ///< K^, K and V exist
    bool first_meeting = false; ///< no block before met this tile
};

/// Fills in the traffic of a tile whose counts are known.
inline void set_traffic(tile_work& w, machine const& m, placement const& p,
                        tile_position const& at) noexcept {
    using detail::count;
    constexpr std::uint64_t operand = probe::formal_operand_bytes;
    auto const predicted_bytes = count(m.prediction.result_bytes);
    tile_traffic& t = w.traffic;
    t = {};
    if (at.first_of_rows) {
        t.query_bytes = count(w.rows * w.dim) * operand;
    }
    if (w.predicted_keys > 0) {
        t.token_bytes = count(w.predicted_keys * w.channels);
        if (!p.codes_stay || at.first_of_head) {
            t.code_bytes = count(ceil_div(w.channels * w.dim, index_t{2}));
        }
    }
    if (w.generated_keys > 0) {
        t.kept_token_bytes = count(w.generated_keys * w.channels) * operand;
        if (!p.weights_stay || at.first_of_head) {
            t.weight_bytes = count(w.channels * (w.dim + w.value_dim)) * operand;
        }
    }
    bool const reads_index = at.is_cached ? !p.keys_stay || at.first_meeting : !p.keys_stay;
    if (reads_index && predicts(m.prediction)) {
        t.index_bytes = count((w.keys - w.predicted_keys) * w.dim) * predicted_bytes;
    }
    // Made here: on chip. Loaded before: on chip if a head's keys stay.
    index_t const read = at.is_cached ? (p.keys_stay ? w.fresh_loads : w.loads)
                                      : (p.keys_stay ? 0 : w.loads - w.generated_keys);
    t.key_bytes = count(read * w.dim) * operand;
    t.value_bytes = count(read * w.value_dim) * operand;
    if (!p.keys_stay && at.used_again) {
        t.stored_bytes = count(w.predicted_keys * w.dim) * predicted_bytes +
                         count(w.generated_keys * (w.dim + w.value_dim)) * operand;
    }
    if (!p.scores_stay) {
        t.spilled_score_bytes = w.visible_pairs * predicted_bytes;
    }
    if (at.last_of_rows) {
        t.output_bytes = count(w.rows * w.value_dim) * operand;
    }
}

} // namespace sofattn::hw
