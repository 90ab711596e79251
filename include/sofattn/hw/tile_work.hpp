// SPDX-License-Identifier: MIT
// What a tile asks of the engines, and what an engine answers.
#pragma once

#include <sofattn/core/types.hpp>
#include <sofattn/probe/event.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace sofattn::hw {

/// What a tile passes, in this order: the engines of Fig. 11 and the transfers between them.
enum class tile_stage {
    fetch,         ///< queries, tokens, weight codes and K^ from the DRAM
    prediction,    ///< DLZS: K^, then A^
    spill,         ///< A^ to the DRAM and back, where whole rows are handed over and do not fit
    selection,     ///< SADS
    schedule,      ///< RASS
    gather,        ///< kept keys and values, or the tokens they are made of, from the DRAM
    kv_generation, ///< exact K and V
    attention,     ///< SU-FA
    write_back     ///< outputs, and K^, K and V that later blocks of queries read again
};
inline constexpr std::size_t tile_stage_count = 9;

namespace detail {
inline constexpr std::array<std::string_view, tile_stage_count> tile_stage_names{
    "fetch",  "prediction",    "spill",     "selection", "schedule",
    "gather", "kv_generation", "attention", "write_back"};
} // namespace detail
[[nodiscard]] constexpr std::string_view name(tile_stage s) noexcept {
    return detail::tile_stage_names[static_cast<std::size_t>(s)];
}

/// The on-chip memories, whose ports stand behind the stages in a pipeline: each serves what a tile
/// moves through it, all stages together.
enum class chip_memory { token, weight, temporary };
inline constexpr std::size_t chip_memory_count = 3;

namespace detail {
inline constexpr std::array<std::string_view, chip_memory_count> chip_memory_names{
    "token", "weight", "temporary"};
} // namespace detail
[[nodiscard]] constexpr std::string_view name(chip_memory m) noexcept {
    return detail::chip_memory_names[static_cast<std::size_t>(m)];
}

/// Bytes that a tile moves between DRAM and chip.
struct tile_traffic {
    std::uint64_t query_bytes = 0;
    std::uint64_t token_bytes = 0;         ///< X for key prediction, 8 bits per channel
    std::uint64_t code_bytes = 0;          ///< leading-zero codes of W_k
    std::uint64_t index_bytes = 0;         ///< K^ read again
    std::uint64_t kept_token_bytes = 0;    ///< X of kept tokens, 16 bits per channel
    std::uint64_t weight_bytes = 0;        ///< W_k and W_v, 16 bits
    std::uint64_t key_bytes = 0;           ///< exact K
    std::uint64_t value_bytes = 0;         ///< exact V
    std::uint64_t spilled_score_bytes = 0; ///< A^ that waits in the DRAM: written, and read again
    std::uint64_t stored_bytes = 0;        ///< K^, K and V written for later blocks of queries
    std::uint64_t output_bytes = 0;

    /// Before prediction.
    [[nodiscard]] constexpr std::uint64_t fetched() const noexcept {
        return query_bytes + token_bytes + code_bytes + index_bytes;
    }
    /// Between selection and attention.
    [[nodiscard]] constexpr std::uint64_t gathered() const noexcept {
        return kept_token_bytes + weight_bytes + key_bytes + value_bytes;
    }
    [[nodiscard]] constexpr std::uint64_t read() const noexcept {
        return fetched() + gathered() + spilled_score_bytes;
    }
    [[nodiscard]] constexpr std::uint64_t written() const noexcept {
        return stored_bytes + output_bytes + spilled_score_bytes;
    }
    [[nodiscard]] constexpr std::uint64_t total() const noexcept { return read() + written(); }

    constexpr tile_traffic& add_times(tile_traffic const& other, std::uint64_t times) noexcept {
        query_bytes += times * other.query_bytes;
        token_bytes += times * other.token_bytes;
        code_bytes += times * other.code_bytes;
        index_bytes += times * other.index_bytes;
        kept_token_bytes += times * other.kept_token_bytes;
        weight_bytes += times * other.weight_bytes;
        key_bytes += times * other.key_bytes;
        value_bytes += times * other.value_bytes;
        spilled_score_bytes += times * other.spilled_score_bytes;
        stored_bytes += times * other.stored_bytes;
        output_bytes += times * other.output_bytes;
        return *this;
    }
    friend constexpr bool operator==(tile_traffic const&, tile_traffic const&) noexcept = default;
};

/// A block of query rows of one selection against a tile of keys. Plain counts, whether measured on
/// data or derived from a description.
struct tile_work {
    index_t rows = 0;      ///< query rows of the block, of all heads that select together
    index_t keys = 0;      ///< keys that the longest row sees of the tile
    index_t dim = 0;       ///< of Q and K
    index_t value_dim = 0; ///< of V and O
    index_t channels = 0;  ///< of X; 0 where K and V exist already

    index_t encoded_values = 0; ///< query elements turned into leading-zero codes here
    index_t predicted_keys = 0; ///< K^ made here
    bool rotates_keys = false;  ///< K^ is rotated (RoPE)
    /// Which product the predictor computes: of K^ and of scores.
    probe::event key_product = probe::event::shift_add_8;
    probe::event score_product = probe::event::shift_add_16;
    std::uint64_t skipped_key_products = 0;
    std::uint64_t skipped_score_products = 0;

    std::uint64_t visible_pairs = 0; ///< (row, key) that are scored
    std::uint64_t kept_pairs = 0;
    index_t kept_most = 0; ///< of one row

    index_t loads = 0;          ///< key vectors that RASS issues, each with its value vector
    index_t fresh_loads = 0;    ///< of them, loaded for the first time
    index_t generated_keys = 0; ///< of them, K and V made here

    std::uint64_t max_updates = 0;
    index_t finished_rows = 0; ///< rows whose outputs are divided here

    index_t row_keys = 0;      ///< of the block's first tile: keys that the longest row sees in all
    index_t head_keys = 0;     ///< of a selection's first tile: all keys
    bool last_of_rows = false; ///< the block's last tile
    tile_traffic traffic{};

    [[nodiscard]] constexpr std::uint64_t key_products() const noexcept {
        return static_cast<std::uint64_t>(predicted_keys * channels * dim);
    }
    [[nodiscard]] constexpr std::uint64_t score_products() const noexcept {
        return visible_pairs * static_cast<std::uint64_t>(dim);
    }
    friend constexpr bool operator==(tile_work const&, tile_work const&) noexcept = default;
};

/// When an engine that begins a tile now takes the next one, and when its results are complete.
/// Both 0: the tile asks nothing of this engine.
struct stage_time {
    std::uint64_t interval_cycles = 0;
    std::uint64_t latency_cycles = 0;

    friend constexpr bool operator==(stage_time, stage_time) noexcept = default;
};

/// Of all stages.
using tile_times = std::array<stage_time, tile_stage_count>;

namespace detail {
[[nodiscard]] constexpr std::uint64_t count(index_t n) noexcept {
    return static_cast<std::uint64_t>(n);
}
} // namespace detail

} // namespace sofattn::hw
