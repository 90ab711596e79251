// SPDX-License-Identifier: MIT
// Where a layer's arrays lie in the DRAM, and what each tile asks of it, request by request.
#pragma once

#include <sofattn/core/split_mix.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/hw/config.hpp>
#include <sofattn/hw/dram.hpp>
#include <sofattn/hw/tile_work.hpp>
#include <sofattn/hw/workload.hpp>
#include <sofattn/probe/event.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace sofattn::hw {

/// What a layer has in the DRAM, in the order in which it lies there.
enum class dram_array {
    queries,     ///< [head, query, dim], 16 bits
    tokens,      ///< X [key, channel], 8 bits: what K^ is predicted from
    kept_tokens, ///< the same in 16 bits: what K and V are made of
    codes,       ///< [kv_head, dim, channel], 4 bits: W_k as leading zeros
    weights,     ///< [kv_head, W_k and W_v], 16 bits
    index,       ///< K^ [kv_head, key, dim]
    keys,        ///< [kv_head, key, dim], 16 bits
    values,      ///< [kv_head, key, value_dim], 16 bits
    scores,      ///< A^ of one block of rows, where it does not fit the chip
    outputs      ///< [head, query, value_dim], 16 bits
};
inline constexpr std::size_t dram_array_count = 10;

/// Arrays one behind the other, each an odd number of 64 KiB long: a row of every bus, so that equal
/// numbers of keys and values lie in different banks. The paper gives no addresses.
class dram_layout {
public:
    static constexpr std::uint64_t alignment = std::uint64_t{1} << 16;

    dram_layout(workload const& w, machine const& m) noexcept {
        using detail::count;
        constexpr std::uint64_t operand = probe::formal_operand_bytes;
        auto const predicted = count(m.prediction.result_bytes);
        std::uint64_t const kv = count(w.kv_heads_count);
        std::uint64_t const key_rows = kv * count(w.keys_count);
        std::uint64_t const query_rows = count(w.heads_count * w.queries_count);
        index_t const block = m.attention.rows_count * w.heads_per_selection();
        std::array<std::uint64_t, dram_array_count> const sizes{
            query_rows * count(w.head_dim_count) * operand,
            count(w.keys_count * w.width_count),
            count(w.keys_count * w.width_count) * operand,
            kv * count(ceil_div(w.width_count * w.head_dim_count, index_t{2})),
            kv * count(w.width_count * (w.head_dim_count + w.value_dim_count)) * operand,
            key_rows * count(w.head_dim_count) * predicted,
            key_rows * count(w.head_dim_count) * operand,
            key_rows * count(w.value_dim_count) * operand,
            count(block * w.keys_count) * predicted,
            query_rows * count(w.value_dim_count) * operand};
        std::uint64_t next = 0;
        for (std::size_t n = 0; n < dram_array_count; ++n) {
            begin_[n] = next;
            size_[n] = sizes[n];
            next += (ceil_div(sizes[n], alignment) | 1) * alignment;
        }
        end_ = next;
    }

    [[nodiscard]] std::uint64_t begin(dram_array a) const noexcept {
        return begin_[static_cast<std::size_t>(a)];
    }
    [[nodiscard]] std::uint64_t bytes(dram_array a) const noexcept {
        return size_[static_cast<std::size_t>(a)];
    }
    /// Bytes of all, gaps included.
    [[nodiscard]] std::uint64_t end() const noexcept { return end_; }

private:
    std::array<std::uint64_t, dram_array_count> begin_{};
    std::array<std::uint64_t, dram_array_count> size_{};
    std::uint64_t end_ = 0;
};

/// Follows the tiles of a run in their order, and says what each moves: as many bytes as its
/// `tile_traffic` counts, at addresses of a dram_layout.
///
/// Tiles say how many keys they load, not which: so many different ones of the tile are drawn at random,
/// the same on every machine and in every run, and loaded in ascending order. Arrival cycles are left 0.
class dram_requests {
public:
    dram_requests(workload const& w, machine const& m) noexcept
        : w_(w), layout_(w, m), predicted_bytes_(detail::count(m.prediction.result_bytes)) {}

    [[nodiscard]] dram_layout const& layout() const noexcept { return layout_; }

    /// f(stage, request) for all that the next tile moves: stages and their requests in order.
    template <class F>
    void operator()(tile_work const& tile, F const& f) {
        move_to(tile);
        emit_fetch(tile, f);
        emit_spill(tile, f);
        emit_gather(tile, f);
        emit_write_back(tile, f);
        first_key_ += tile.keys;
        if (tile.last_of_rows) {
            first_query_ += tile.rows / w_.heads_per_selection();
        }
    }

private:
    static constexpr std::uint64_t operand = probe::formal_operand_bytes;

    /// Rows of an array: where row 0 lies, and how long each is.
    struct rows {
        std::uint64_t at = 0;
        std::uint64_t bytes = 0;
    };
    [[nodiscard]] rows rows_of(dram_array a, index_t first_row,
                               std::uint64_t bytes) const noexcept {
        return {layout_.begin(a) + detail::count(first_row) * bytes, bytes};
    }
    [[nodiscard]] rows key_rows(dram_array a, std::uint64_t row_bytes) const noexcept {
        return rows_of(a, kv_head_ * w_.keys_count + first_key_, row_bytes);
    }

    /// Which KV head, block of queries and keys the tile is about.
    void move_to(tile_work const& tile) noexcept {
        if (tile.head_keys > 0) {
            index_t const selections = w_.group() / w_.heads_per_selection();
            ++selection_;
            kv_head_ = selection_ / selections;
            first_head_ =
                kv_head_ * w_.group() + selection_ % selections * w_.heads_per_selection();
            first_query_ = 0;
        }
        if (tile.row_keys > 0) {
            first_key_ = 0;
            score_bytes_ = 0;
        }
    }

    template <class F>
    static void emit(F const& f, tile_stage stage, std::uint64_t address, std::uint64_t bytes,
                     memory_access kind = memory_access::read) {
        if (bytes > 0) {
            f(stage, memory_request{.address = address, .bytes = bytes, .kind = kind});
        }
    }
    /// The block's rows of a [head, query, channel] array.
    template <class F>
    void emit_rows(F const& f, tile_stage stage, dram_array a, std::uint64_t bytes,
                   memory_access kind) const {
        index_t const heads = w_.heads_per_selection();
        std::uint64_t const each = bytes / detail::count(heads);
        std::uint64_t const row =
            layout_.bytes(a) / detail::count(w_.heads_count * w_.queries_count);
        for (index_t h = 0; h < heads; ++h) {
            rows const of = rows_of(a, (first_head_ + h) * w_.queries_count + first_query_, row);
            emit(f, stage, of.at, each, kind);
        }
    }

    template <class F>
    void emit_fetch(tile_work const& tile, F const& f) const {
        tile_traffic const& t = tile.traffic;
        constexpr auto stage = tile_stage::fetch;
        emit_rows(f, stage, dram_array::queries, t.query_bytes, memory_access::read);
        index_t const known = tile.keys - tile.predicted_keys; // K^ of these exists
        auto const channels = detail::count(tile.channels);
        emit(f, stage, rows_of(dram_array::tokens, first_key_ + known, channels).at, t.token_bytes);
        emit(f, stage,
             rows_of(dram_array::codes, kv_head_,
                     layout_.bytes(dram_array::codes) / detail::count(w_.kv_heads_count))
                 .at,
             t.code_bytes);
        emit(f, stage, key_rows(dram_array::index, detail::count(tile.dim) * predicted_bytes_).at,
             t.index_bytes);
    }
    /// Scores of a block lie one tile behind the other.
    template <class F>
    void emit_spill(tile_work const& tile, F const& f) {
        std::uint64_t const bytes = tile.traffic.spilled_score_bytes;
        std::uint64_t const at = layout_.begin(dram_array::scores) + score_bytes_;
        emit(f, tile_stage::spill, at, bytes, memory_access::write);
        emit(f, tile_stage::spill, at, bytes);
        score_bytes_ += bytes;
    }
    template <class F>
    void emit_gather(tile_work const& tile, F const& f) {
        tile_traffic const& t = tile.traffic;
        constexpr auto stage = tile_stage::gather;
        std::uint64_t const token = detail::count(tile.channels) * operand;
        std::uint64_t const key = detail::count(tile.dim) * operand;
        std::uint64_t const value = detail::count(tile.value_dim) * operand;
        std::uint64_t const weights =
            layout_.bytes(dram_array::weights) / detail::count(w_.kv_heads_count);
        emit(f, stage, rows_of(dram_array::weights, kv_head_, weights).at, t.weight_bytes);
        if (t.kept_token_bytes > 0) {
            draw(tile.keys, t.kept_token_bytes / token);
            rows const of = rows_of(dram_array::kept_tokens, first_key_, token);
            for (std::uint64_t const k : drawn_) {
                emit(f, stage, of.at + k * token, token);
            }
        }
        // A key may be loaded more than once, in different phases.
        for (std::uint64_t left = t.key_bytes / key; left > 0;) {
            std::uint64_t const some = std::min(left, detail::count(tile.keys));
            draw(tile.keys, some);
            for (std::uint64_t const k : drawn_) {
                emit(f, stage, key_rows(dram_array::keys, key).at + k * key, key);
                emit(f, stage, key_rows(dram_array::values, value).at + k * value, value);
            }
            left -= some;
        }
    }
    template <class F>
    void emit_write_back(tile_work const& tile, F const& f) {
        constexpr auto stage = tile_stage::write_back;
        constexpr auto kind = memory_access::write;
        if (tile.traffic.stored_bytes > 0) {
            std::uint64_t const predicted = detail::count(tile.dim) * predicted_bytes_;
            std::uint64_t const key = detail::count(tile.dim) * operand;
            std::uint64_t const value = detail::count(tile.value_dim) * operand;
            auto const known = detail::count(tile.keys - tile.predicted_keys);
            emit(f, stage, key_rows(dram_array::index, predicted).at + known * predicted,
                 detail::count(tile.predicted_keys) * predicted, kind);
            draw(tile.keys, detail::count(tile.generated_keys));
            for (std::uint64_t const k : drawn_) {
                emit(f, stage, key_rows(dram_array::keys, key).at + k * key, key, kind);
                emit(f, stage, key_rows(dram_array::values, value).at + k * value, value, kind);
            }
        }
        emit_rows(f, stage, dram_array::outputs, tile.traffic.output_bytes, kind);
    }

    /// `wanted` different numbers below `keys`, ascending, each set as likely as any other.
    void draw(index_t keys, std::uint64_t wanted) {
        drawn_.clear();
        for (std::uint64_t k = 0, left = detail::count(keys); wanted > 0 && left > 0; ++k, --left) {
            if (random_() % left < wanted) {
                drawn_.push_back(k);
                --wanted;
            }
        }
    }
    workload w_;
    dram_layout layout_;
    std::uint64_t predicted_bytes_;
    index_t selection_ = -1;
    index_t kv_head_ = 0;
    index_t first_head_ = 0; ///< of the selection
    index_t first_query_ = 0;
    index_t first_key_ = 0;
    std::uint64_t score_bytes_ = 0; ///< of the block's tiles before
    split_mix random_;
    std::vector<std::uint64_t> drawn_;
};

} // namespace sofattn::hw
