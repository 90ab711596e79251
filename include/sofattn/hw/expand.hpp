// SPDX-License-Identifier: MIT
// From the description of a layer to its tiles: runs of equal ones, block by block.
#pragma once

#include <sofattn/core/assert.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/hw/config.hpp>
#include <sofattn/hw/kinds.hpp>
#include <sofattn/hw/placement.hpp>
#include <sofattn/hw/tile_work.hpp>
#include <sofattn/hw/workload.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

namespace sofattn::hw {

/// A tile, so many times in a row.
struct tile_run {
    tile_work tile{};
    index_t times = 0;

    friend bool operator==(tile_run const&, tile_run const&) = default;
};

/// The tiles of a layer, a block of query rows of one selection at a time.
///
/// Kept keys are spread over a row's full tiles as evenly as integers allow (q + 1 in the first
/// ones, then q), as contiguous segments of equal budgets yield. Which keys of a tile a block keeps
/// is an expectation: `union_share` of them, independently of the blocks before, so that
/// 1 - (1 - u)^n of a tile's keys have been loaded after n blocks.
class layer_tiles {
public:
    layer_tiles(workload const& w, machine const& m)
        : w_(w), m_(m), block_rows_(m.attention.rows_count),
          placement_(placement::of(m, w.keys_count, block_rows_ * w.heads_per_selection(),
                                   w.head_dim_count, w.value_dim_count,
                                   w.has_kv_cache ? 0 : w.width_count)) {
        if (kind_of(m.selection) == selector_kind::none) {
            w_.kept_share = 1;
        }
    }

    [[nodiscard]] placement const& placed() const noexcept { return placement_; }
    [[nodiscard]] index_t blocks() const noexcept {
        return ceil_div(w_.queries_count, block_rows_);
    }
    /// Selections that share one KV head.
    [[nodiscard]] index_t selections() const noexcept {
        return w_.group() / w_.heads_per_selection();
    }

    /// Appends the runs of block `b` of the `selection`-th selection of a KV head, in order.
    void append_block(index_t selection, index_t b, std::vector<tile_run>& out) const {
        block const at = block_at(selection, b);
        index_t const tiles = ceil_div(at.last_visible, w_.tile_keys_count);
        index_t const full = at.first_visible / w_.tile_keys_count; // seen whole by every row
        index_t const kept = kept_in(full * w_.tile_keys_count);
        [[maybe_unused]] std::size_t const begin = out.size();
        for (index_t t = 0; t < full;) {
            index_t const each = kept / full + (t < kept % full ? 1 : 0);
            index_t const end = t < kept % full ? kept % full : full;
            index_t const alike = std::min(end, next_change(at, t, full)) - t;
            add(at, t, each, alike, t + alike == tiles, out);
            t += alike;
        }
        for (index_t t = full; t < tiles; ++t) {
            add(at, t, -1, 1, t + 1 == tiles, out);
        }
        [[maybe_unused]] tile_run const& last = out.back();
        SOFATTN_DASSERT(out.size() > begin && last.tile.last_of_rows && last.times == 1);
    }

private:
    struct block {
        index_t selection = 0;
        index_t number = 0;
        index_t first_query = 0;
        index_t rows = 0; ///< queries
        index_t first_visible = 0;
        index_t last_visible = 0;
        index_t visible_before = 0; ///< to the block before
    };

    [[nodiscard]] block block_at(index_t selection, index_t b) const noexcept {
        block at;
        at.selection = selection;
        at.number = b;
        at.first_query = b * block_rows_;
        at.rows = std::min(block_rows_, w_.queries_count - at.first_query);
        at.first_visible = w_.visible(at.first_query);
        at.last_visible = w_.visible(at.first_query + at.rows - 1);
        at.visible_before = b == 0 ? 0 : w_.visible(at.first_query - 1);
        return at;
    }

    /// Of the first `keys` keys of a row.
    [[nodiscard]] index_t kept_in(index_t keys) const noexcept {
        return std::clamp<index_t>(std::llround(w_.kept_share * static_cast<double>(keys)),
                                   std::min<index_t>(1, keys), keys);
    }

    /// The first block that meets tile `t`.
    [[nodiscard]] index_t met_first_by(index_t t) const noexcept {
        index_t const key = t * w_.tile_keys_count;
        return w_.is_causal && key >= w_.first_position_count
                   ? (key - w_.first_position_count) / block_rows_
                   : 0;
    }
    /// Blocks, of all selections before and of this one, that met tile `t` before block `at`.
    [[nodiscard]] index_t meetings_before(block const& at, index_t t) const noexcept {
        index_t const first = met_first_by(t);
        return at.selection * (blocks() - first) + at.number - first;
    }
    /// Of `keys` keys of a tile, how many have been loaded after `meetings` full blocks and then one
    /// that keeps `share` of them.
    [[nodiscard]] index_t loaded_after(index_t meetings, double keys, double share) const noexcept {
        double const full = share_of_union(block_rows_ * w_.heads_per_selection());
        return std::llround(keys *
                            (1 - std::pow(1 - full, static_cast<double>(meetings)) * (1 - share)));
    }
    /// Tiles from t on that are alike in all that depends on their place: the first of the block
    /// and the last stand alone, and so do those that still see keys for the first time.
    [[nodiscard]] index_t next_change(block const& at, index_t t, index_t full) const noexcept {
        bool const is_last_block_tile = ceil_div(at.last_visible, w_.tile_keys_count) == full;
        index_t end = is_last_block_tile && t < full - 1 ? full - 1 : full;
        if (t == 0) {
            return 1;
        }
        // The tile that the block before saw in part.
        index_t const begun = at.visible_before / w_.tile_keys_count;
        for (index_t const change : {begun, begun + 1}) {
            end = t < change ? std::min(end, change) : end;
        }
        if (!w_.is_causal) {
            return end; // all tiles have met equally many blocks
        }
        // Under a causal mask later tiles have met fewer blocks; and of those met by all, equally
        // many.
        index_t const limit = settled_after();
        auto const is_settled = [&](index_t tile) { return meetings_before(at, tile) >= limit; };
        if (!is_settled(t)) {
            index_t const same = met_first_by(t);
            index_t next = t + 1;
            while (next < end && met_first_by(next) == same) {
                ++next;
            }
            return next;
        }
        // meetings_before falls with the tile's number: find the last settled one.
        index_t low = t;
        index_t high = end;
        while (high - low > 1) {
            index_t const middle = low + (high - low) / 2;
            (is_settled(middle) ? low : high) = middle;
        }
        return low + 1;
    }
    /// Meetings after which a tile yields no new key.
    [[nodiscard]] index_t settled_after() const noexcept {
        double const share = share_of_union(block_rows_ * w_.heads_per_selection());
        auto const keys = static_cast<double>(w_.tile_keys_count);
        if (share >= 1) {
            return 1;
        }
        return std::max<index_t>(
            1, static_cast<index_t>(std::ceil(std::log(0.5 / keys) / std::log1p(-share))) + 1);
    }
    [[nodiscard]] double share_of_union(index_t rows) const noexcept {
        return w_.union_share > 0 ? std::max(w_.union_share, w_.kept_share)
                                  : 1 - std::pow(1 - w_.kept_share, static_cast<double>(rows));
    }

    /// `kept` keys of every row, or -1 where rows see different parts of the tile.
    void add(block const& at, index_t t, index_t kept, index_t times, bool ends_row,
             std::vector<tile_run>& out) const {
        index_t const heads = w_.heads_per_selection();
        index_t const first_key = t * w_.tile_keys_count;
        auto const seen_by = [&](index_t visible) {
            return std::clamp<index_t>(visible - first_key, 0, w_.tile_keys_count);
        };
        tile_work w;
        w.rows = at.rows * heads;
        w.keys = seen_by(at.last_visible);
        w.dim = w_.head_dim_count;
        w.value_dim = w_.value_dim_count;
        w.channels = w_.has_kv_cache ? 0 : w_.width_count;
        w.key_product = product_of(m_.prediction, w.key_product);
        w.score_product = product_of(m_.prediction, w.score_product);
        bool const predicts = kind_of(m_.prediction) != predictor_kind::none;
        if (t == 0) {
            w.encoded_values = predicts ? w.rows * w.dim : 0;
            w.row_keys = at.last_visible;
        }
        if (!w_.has_kv_cache && at.selection == 0 && predicts) {
            w.predicted_keys = w.keys - seen_by(at.visible_before);
        }
        w.rotates_keys = w_.rope_name == "after_key_prediction";
        index_t pairs = 0;
        for (index_t q = at.first_query; kept < 0 && q < at.first_query + at.rows; ++q) {
            pairs += seen_by(w_.visible(q));
        }
        if (kept >= 0) {
            pairs = at.rows * w.keys;
            w.kept_most = kept;
            w.kept_pairs = detail::count(kept * w.rows);
        } else {
            auto const share = [&](index_t n) {
                return static_cast<index_t>(std::llround(w_.kept_share * static_cast<double>(n)));
            };
            bool const is_first = first_key == 0; // every row keeps a key at least
            w.kept_most = std::max<index_t>(is_first ? 1 : 0, share(w.keys));
            w.kept_pairs = detail::count(
                heads * std::min(at.rows * w.kept_most,
                                 std::max(share(pairs), is_first ? at.rows : w.kept_most)));
        }
        w.visible_pairs = detail::count(pairs * heads);
        auto const of = [](double share, std::uint64_t n) {
            return static_cast<std::uint64_t>(std::llround(share * static_cast<double>(n)));
        };
        w.skipped_key_products = of(w_.zero_key_share, w.key_products());
        w.skipped_score_products = of(w_.zero_score_share, w.score_products());
        w.max_updates = of(w_.update_share, w.kept_pairs);
        if (w.kept_most > 0) {
            double const share = share_of_union(w.rows);
            auto const keys = static_cast<double>(w.keys);
            index_t const most = std::min<index_t>(w.keys, static_cast<index_t>(w.kept_pairs));
            w.loads = std::clamp<index_t>(std::llround(share * keys), w.kept_most, most);
            index_t const met = meetings_before(at, t);
            w.fresh_loads = std::clamp<index_t>(
                loaded_after(met, keys, share) - loaded_after(met, keys, 0), 0, w.loads);
            w.generated_keys = w_.has_kv_cache ? 0 : w.fresh_loads;
        }
        w.last_of_rows = ends_row;
        w.finished_rows = ends_row ? w.rows : 0;
        tile_position position;
        position.first_of_head = at.selection == 0 && at.number == 0 && t == 0;
        position.first_of_rows = t == 0;
        position.last_of_rows = ends_row;
        position.used_again = blocks() * selections() > 1;
        position.is_cached = w_.has_kv_cache;
        position.first_meeting = meetings_before(at, t) == 0;
        set_traffic(w, m_, placement_, position);
        out.push_back({w, times});
    }

    workload w_;
    machine m_;
    index_t block_rows_;
    placement placement_;
};

} // namespace sofattn::hw
