// SPDX-License-Identifier: MIT
// From the description of a layer to its tiles: runs of equal ones, block by block.
#pragma once

#include <sofattn/core/assert.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/hw/config.hpp>
#include <sofattn/hw/even_spread.hpp>
#include <sofattn/hw/kinds.hpp>
#include <sofattn/hw/placement.hpp>
#include <sofattn/hw/tile_work.hpp>
#include <sofattn/hw/workload.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace sofattn::hw {

/// A tile, or parts in order; so many times in a row.
struct tile_run {
    tile_work tile{}; ///< read where there are no parts
    index_t times = 0;
    std::vector<tile_run> parts{};

    [[nodiscard]] static tile_run all(std::vector<tile_run> parts) {
        if (parts.size() == 1) {
            return std::move(parts.front());
        }
        return {.tile = {}, .times = 1, .parts = std::move(parts)};
    }
    /// Calls f(tile, how often) for every tile, in order of the first time.
    template <class F>
    void for_each(F const& f, index_t outer = 1) const {
        if (parts.empty()) {
            f(tile, outer * times);
        }
        for (tile_run const& part : parts) {
            part.for_each(f, outer * times);
        }
    }

    friend bool operator==(tile_run const&, tile_run const&) = default;
};

/// The tiles of a layer, a block of query rows of one selection at a time.
///
/// Rows of equal length keep equally many keys of a tile: of the first t tiles the share of the
/// row's budget, rounded up, so that budgets of q and q + 1 keys alternate as SADS's segments do.
/// Under a causal mask rows differ in length and their roundings fall on different tiles, so a
/// tile's mean is the share and some row of it has rounded up. Either can be given instead, as
/// measured (`kept_most_share`).
///
/// Which keys of a tile a block keeps is an expectation: `union_share` of them, independently of
/// the blocks before, so that 1 - (1 - u)^n of a tile's keys have been loaded after n blocks.
class layer_tiles {
public:
    layer_tiles(workload const& w, machine const& m)
        : w_(w), m_(m), block_rows_(m.attention.rows_count),
          placement_(placement::of(m, w.keys_count, block_rows_ * w.heads_per_selection(),
                                   w.head_dim_count, w.value_dim_count,
                                   w.has_kv_cache ? 0 : w.width_count)) {
        if (kind_of(m.selection) == selector_kind::none) {
            w_.kept_share = 1;
            w_.kept_most_share = 0;
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
        [[maybe_unused]] std::size_t const begin = out.size();
        for (index_t t = 0; t < full;) {
            index_t const alike = next_change(at, t, full) - t;
            add_full(at, t, alike, t + alike == tiles, out);
            t += alike;
        }
        for (index_t t = full; t < tiles; ++t) {
            out.push_back({cut_tile(at, t, t + 1 == tiles), 1, {}});
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

    /// So few tiles are listed one by one, exactly; more are spread evenly.
    static constexpr index_t explicit_tiles = 16;

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

    /// Rows of one tile keep equally many keys of it.
    [[nodiscard]] bool has_equal_rows() const noexcept {
        return !w_.is_causal && w_.kept_most_share == 0;
    }
    /// Of a row that sees all keys: as sads::budget, the nearest count.
    [[nodiscard]] index_t kept_in_row() const noexcept {
        return std::clamp<index_t>(std::llround(w_.kept_share * static_cast<double>(w_.keys_count)),
                                   1, w_.keys_count);
    }
    /// Keys that the fullest row keeps of a whole tile, on average.
    [[nodiscard]] double kept_most() const noexcept {
        auto const keys = static_cast<double>(w_.tile_keys_count);
        double const share = std::max(w_.kept_share, w_.kept_most_share);
        if (w_.kept_most_share > 0) {
            return share * keys;
        }
        // A measured share of whole keys per tile misses them by the rounding of the rows.
        double const rounding = keys / (2 * static_cast<double>(w_.keys_count));
        return std::ceil(share * keys - rounding);
    }
    /// Keys that the fullest row keeps of the first `tiles` whole tiles.
    [[nodiscard]] index_t kept_most_of(index_t tiles) const noexcept {
        if (has_equal_rows()) {
            return ceil_div(kept_in_row() * tiles * w_.tile_keys_count, w_.keys_count);
        }
        return std::llround(kept_most() * static_cast<double>(tiles));
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
        if (kind_of(m_.prediction) == predictor_kind::history) {
            return w_.kept_share; // tokens are kept for a whole head
        }
        return w_.union_share > 0 ? std::max(w_.union_share, w_.kept_share)
                                  : 1 - std::pow(1 - w_.kept_share, static_cast<double>(rows));
    }

    /// Of a tile that all rows see whole. Where rows differ they keep the share on average, and
    /// none more than the fullest: what is lacking where it keeps few is made up for in the other
    /// tiles.
    [[nodiscard]] std::uint64_t kept_pairs_of(tile_work const& w) const noexcept {
        index_t const most = w.rows * w.kept_most;
        if (has_equal_rows()) {
            return detail::count(most);
        }
        double const few = std::floor(kept_most());
        double const more_often = kept_most() - few; // share of the tiles that have a key more
        double const mean = w_.kept_share * static_cast<double>(w.visible_pairs);
        double const in_few = std::min(mean, few * static_cast<double>(w.rows));
        double const kept = static_cast<double>(w.kept_most) > few && more_often > 0
                                ? (mean - (1 - more_often) * in_few) / more_often
                                : in_few;
        return detail::count(std::clamp<index_t>(std::llround(kept), w.kept_most, most));
    }

    /// Tiles t, t + 1, ... that all rows see whole, alike but for how many keys are kept.
    void add_full(block const& at, index_t t, index_t tiles, bool ends_row,
                  std::vector<tile_run>& out) const {
        index_t const most = kept_most_of(t + tiles) - kept_most_of(t);
        index_t const few = most / tiles;
        index_t const more = most % tiles; // of the tiles, with one key more
        tile_work shape = tile_at(at, t, ends_row);
        shape.visible_pairs = detail::count(shape.rows * shape.keys);
        auto const tile = [&](index_t kept_most) {
            tile_work w = shape;
            w.kept_most = kept_most;
            w.kept_pairs = kept_pairs_of(w);
            finish(at, t, ends_row, w);
            return tile_run{w, 1, {}};
        };
        tile_run const one = tile(few + 1);
        tile_run const zero = tile(few);
        if (tiles > explicit_tiles) {
            out.push_back(even_spread(more, tiles, one, zero));
            return;
        }
        for (index_t n = t; n < t + tiles; ++n) {
            bool const has_more = kept_most_of(n + 1) - kept_most_of(n) > few;
            tile_run const& next = has_more ? one : zero;
            if (n > t && out.back().tile.kept_most == next.tile.kept_most) {
                ++out.back().times;
            } else {
                out.push_back(next);
            }
        }
    }

    /// A tile of which rows see different parts, or which is shorter than the others.
    [[nodiscard]] tile_work cut_tile(block const& at, index_t t, bool ends_row) const {
        index_t const heads = w_.heads_per_selection();
        tile_work w = tile_at(at, t, ends_row);
        index_t pairs = 0;
        for (index_t q = at.first_query; q < at.first_query + at.rows; ++q) {
            pairs += seen_of(t, w_.visible(q));
        }
        w.visible_pairs = detail::count(pairs * heads);
        if (has_equal_rows()) {
            w.kept_most = kept_in_row() - kept_most_of(t);
            w.kept_pairs = detail::count(w.rows * w.kept_most);
        } else {
            index_t const least = t == 0 ? 1 : 0; // every row keeps a key at least
            double const part =
                static_cast<double>(w.keys) / static_cast<double>(w_.tile_keys_count);
            w.kept_most = std::clamp<index_t>(std::llround(kept_most() * part), least, w.keys);
            double const kept = w_.kept_share * static_cast<double>(w.visible_pairs);
            w.kept_pairs = detail::count(std::clamp<index_t>(
                std::llround(kept), std::max(w.kept_most, least * w.rows),
                std::min(w.rows * w.kept_most, static_cast<index_t>(w.visible_pairs))));
        }
        finish(at, t, ends_row, w);
        return w;
    }

    /// Of tile `t`, the keys that a row sees which sees so many in all.
    [[nodiscard]] index_t seen_of(index_t t, index_t visible) const noexcept {
        return std::clamp<index_t>(visible - t * w_.tile_keys_count, 0, w_.tile_keys_count);
    }

    /// Everything that does not depend on what is kept.
    [[nodiscard]] tile_work tile_at(block const& at, index_t t, bool ends_row) const {
        tile_work w;
        w.rows = at.rows * w_.heads_per_selection();
        w.keys = seen_of(t, at.last_visible);
        w.dim = w_.head_dim_count;
        w.value_dim = w_.value_dim_count;
        w.channels = w_.has_kv_cache ? 0 : w_.width_count;
        w.key_product = product_of(m_.prediction, w.key_product);
        w.score_product = product_of(m_.prediction, w.score_product);
        bool const predicts = hw::predicts(m_.prediction);
        if (t == 0) {
            w.encoded_values = predicts ? w.rows * w.dim : 0;
            w.row_keys = at.last_visible;
            w.head_keys = at.number == 0 ? w_.keys_count : 0;
        }
        if (!w_.has_kv_cache && at.selection == 0 && predicts) {
            w.predicted_keys = w.keys - seen_of(t, at.visible_before);
        }
        w.rotates_keys = w_.rope_name == "after_key_prediction";
        w.last_of_rows = ends_row;
        w.finished_rows = ends_row ? w.rows : 0;
        return w;
    }

    /// What follows from the pairs that are seen and kept.
    void finish(block const& at, index_t t, bool ends_row, tile_work& w) const {
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
        tile_position position;
        position.first_of_head = at.selection == 0 && at.number == 0 && t == 0;
        position.first_of_rows = t == 0;
        position.last_of_rows = ends_row;
        position.used_again = blocks() * selections() > 1;
        position.is_cached = w_.has_kv_cache;
        position.first_meeting = meetings_before(at, t) == 0;
        set_traffic(w, m_, placement_, position);
    }

    workload w_;
    machine m_;
    index_t block_rows_;
    placement placement_;
};

} // namespace sofattn::hw
