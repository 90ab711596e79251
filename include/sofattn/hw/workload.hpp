// SPDX-License-Identifier: MIT
// What is to be attended, as numbers: shapes, kept shares, where K and V come from.
#pragma once

#include <sofattn/core/error.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/hw/field.hpp>

#include <boost/hana/adapt_struct.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <string>

namespace sofattn::hw {

/// One attention layer. Shares are means over rows and tiles; everything else is exact.
struct workload {
    index_t keys_count = 4096;
    index_t queries_count = 4096;
    index_t first_position_count = 0;
    index_t width_count = 4096;
    index_t heads_count = 32;
    index_t kv_heads_count = 32;
    index_t head_dim_count = 128;
    index_t value_dim_count = 128;
    index_t tile_keys_count = 128;
    double kept_share = 0.1;
    double kept_most_share = 0;
    double union_share = 0;
    double update_share = 0.01;
    double zero_key_share = 0;
    double zero_score_share = 0;
    bool is_causal = false;
    bool has_kv_cache = false;
    bool is_selection_shared = false;
    std::string rope_name = "none";

    static constexpr std::array fields{
        field{"keys_count", "Tokens that can be attended, S", "workload", 1, 1 << 24},
        field{"queries_count", "Tokens that attend, T: S in prefill, 1 when decoding", "workload",
              1, 1 << 24},
        field{"first_position_count", "Tokens before the first query: chunked prefill, decoding",
              "workload", 0, 1 << 24},
        field{"width_count", "Channels of X, H", "workload", 1, 1 << 20},
        field{"heads_count", "Query heads", "workload", 1, 4096},
        field{"kv_heads_count", "Heads of K and V: fewer with grouped queries", "workload", 1,
              4096},
        field{"head_dim_count", "Channels of a query and a key", "workload", 1, 4096},
        field{"value_dim_count", "Channels of a value", "workload", 1, 4096},
        field{"tile_keys_count", "Keys per tile, Bc", "section III-D: chosen per layer", 1,
              1 << 30},
        field{"kept_share", "Of the visible pairs, those attended", "Fig. 18", 1e-9, 1},
        field{
            "kept_most_share",
            "Of a tile's keys, those that its fullest row keeps, for which the others wait; 0: as "
            "rows of equal budgets do",
            "measured on data, or 0", 0, 1},
        field{"union_share",
              "Of a tile's keys, those that some query of a block keeps; 0: as if queries chose "
              "independently",
              "measured on data, or 0", 0, 1},
        field{"update_share", "Of the kept pairs, those that exceed the row's maximum out of order",
              "measured on recorded data: 0.15 to 2 %", 0, 1},
        field{"zero_key_share", "Products of key prediction that a zero removes", "data, or 0", 0,
              1},
        field{"zero_score_share", "Products of score prediction that a zero removes", "data, or 0",
              0, 1},
        field{"is_causal", "Query i sees first_position + i + 1 keys", "not in the paper"},
        field{"has_kv_cache", "K^, K and V exist in the DRAM already; else they are made on demand",
              "not in the paper"},
        field{"is_selection_shared", "The query heads of a KV head select together",
              "not in the paper"},
        field{"rope_name",
              "K^ is rotated after key prediction (two multiplications per element), predicted "
              "without rotation, or there is none",
              "not in the paper", 0, 0, "none|after_key_prediction|left_out"},
    };

    [[nodiscard]] constexpr index_t group() const noexcept { return heads_count / kv_heads_count; }
    /// Query heads that select together.
    [[nodiscard]] constexpr index_t heads_per_selection() const noexcept {
        return is_selection_shared ? group() : 1;
    }
    /// Keys that query `q` sees.
    [[nodiscard]] constexpr index_t visible(index_t q) const noexcept {
        return is_causal ? std::min(keys_count, first_position_count + q + 1) : keys_count;
    }
    /// (query, key) pairs of one head that the mask leaves.
    [[nodiscard]] constexpr double visible_pairs() const noexcept {
        auto const q = static_cast<double>(queries_count);
        if (!is_causal) {
            return q * static_cast<double>(keys_count);
        }
        return q * static_cast<double>(first_position_count) + q * (q + 1) / 2;
    }
};

} // namespace sofattn::hw

// clang-format off
BOOST_HANA_ADAPT_STRUCT(sofattn::hw::workload,
    keys_count, queries_count, first_position_count, width_count, heads_count, kv_heads_count,
    head_dim_count, value_dim_count, tile_keys_count, kept_share, kept_most_share, union_share, update_share,
    zero_key_share, zero_score_share, is_causal, has_kv_cache, is_selection_shared, rope_name);
// clang-format on

namespace sofattn::hw {

/// Throws `error` naming field, value and limit.
inline void validate(workload const& w) {
    check_fields(w, "workload: ");
    auto const require = [](bool holds, char const* what, index_t value, std::string limit) {
        if (!holds) {
            throw error(std::string("workload: ") + what, detail::number_text(value),
                        std::move(limit));
        }
    };
    require(w.heads_count % w.kv_heads_count == 0, "kv_heads_count", w.kv_heads_count,
            "a divisor of heads_count, " + detail::number_text(w.heads_count));
    require(!w.is_causal || w.first_position_count + w.queries_count <= w.keys_count,
            "first_position_count + queries_count", w.first_position_count + w.queries_count,
            "at most keys_count, " + detail::number_text(w.keys_count) +
                ", where is_causal is true");
    require(w.is_causal || w.first_position_count == 0, "first_position_count",
            w.first_position_count, "0 where is_causal is false");
    // Sums of products, and of the bits that they move, stay within 64 bits.
    constexpr double most = 0x1p56;
    auto const of = [](index_t n) { return static_cast<double>(n); };
    double const dims = of(w.head_dim_count + w.value_dim_count);
    require(of(w.heads_count) * of(w.keys_count) * of(w.queries_count) * dims <= most,
            "heads_count", w.heads_count,
            "so few that heads * queries * keys * (head_dim + value_dim) stays below 2^56");
    require(of(w.kv_heads_count) * of(w.keys_count) * of(w.width_count) * dims <= most,
            "width_count", w.width_count,
            "so few that kv_heads * keys * width * (head_dim + value_dim) stays below 2^56");
    // Tiles that a causal mask cuts are expanded one by one.
    constexpr index_t rows = 128;
    require(ceil_div(w.queries_count, rows) * (rows / w.tile_keys_count + 8) <= index_t{1} << 21,
            "tile_keys_count", w.tile_keys_count,
            "larger for so many queries: a run would hold more than 2^21 different tiles");
}

} // namespace sofattn::hw
