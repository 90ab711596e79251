// SPDX-License-Identifier: MIT
// From the trace of a run on data to the tiles of the machine.
#pragma once

#include <sofattn/core/error.hpp>
#include <sofattn/core/query_mask.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/hw/config.hpp>
#include <sofattn/hw/kinds.hpp>
#include <sofattn/hw/placement.hpp>
#include <sofattn/hw/tile_work.hpp>
#include <sofattn/hw/workload.hpp>
#include <sofattn/probe/event.hpp>
#include <sofattn/probe/ledger.hpp>
#include <sofattn/probe/trace.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace sofattn::hw {

/// The tiles of a trace, of blocks of `query_block` queries, which a machine with fewer rows serves in
/// turns. Shapes (all counts of `workload`, is_causal, has_kv_cache, rope_name, and
/// is_selection_shared) describe the run; shares are not read: what was kept, loaded, generated,
/// skipped and updated comes from the events.
///
/// Two things a trace does not tell. Which tile a product of key prediction belongs to, since the
/// software predicts a head's keys ahead: the machine predicts a tile's keys when a block of
/// queries meets it first. And which of a tile's loads repeat those of earlier blocks, where K and
/// V exist and stay on chip: blocks are taken to choose independently.
class recorded_tiles {
public:
    /// Throws `error` where trace and shapes contradict each other.
    recorded_tiles(probe::trace const& events, workload const& shape, machine const& m)
        : events_(events), w_(shape), m_(m),
          placement_(placement::of(m, w_.keys_count, query_block * w_.heads_per_selection(),
                                   w_.head_dim_count, w_.value_dim_count,
                                   w_.has_kv_cache ? 0 : w_.width_count)),
          total_(events.total()) {
        validate(w_);
        if (kind_of(m_.selection) == selector_kind::none) {
            throw error("recorded run: selection.kind_name", "\"none\"",
                        "a selector: a trace tells what was kept");
        }
        // The keys are those of the run; what it took to predict them is the machine's.
        key_product_ = hw::product_of(
            m_.prediction, product_of(probe::stage::key_prediction, probe::event::shift_add_8));
        score_product_ = hw::product_of(
            m_.prediction, product_of(probe::stage::score_prediction, probe::event::shift_add_16));
    }

    [[nodiscard]] placement const& placed() const noexcept { return placement_; }

    /// Calls f(tile_work) for every tile, in order.
    template <class F>
    void for_each(F f) const {
        auto const& tiles = events_.tiles();
        progress so_far;
        so_far.missed.resize(count_of_tiles());
        for (std::size_t n = 0; n < tiles.size(); ++n) {
            bool const ends_row = n + 1 == tiles.size() || tiles[n + 1].id.first_key == 0;
            f(tile_of(tiles[n], ends_row, so_far));
        }
    }

private:
    struct progress {
        /// Of key prediction; zeros are spread over the predicted keys.
        std::uint64_t products = 0;
        std::uint64_t skipped = 0;
        std::vector<double> missed{}; ///< [tile] share of a KV head's keys that was never loaded
    };
    [[nodiscard]] std::size_t count_of_tiles() const noexcept {
        return static_cast<std::size_t>(ceil_div(w_.keys_count, w_.tile_keys_count));
    }

    static constexpr std::array products{probe::event::shift_add_8, probe::event::shift_add_16,
                                         probe::event::multiply_add_4, probe::event::multiply_add_8,
                                         probe::event::multiply_add_16};

    [[nodiscard]] probe::event product_of(probe::stage s, probe::event otherwise) const noexcept {
        for (probe::event const e : products) {
            if (total_.count(s, e) > 0) {
                return e;
            }
        }
        return otherwise;
    }
    [[nodiscard]] static std::uint64_t products_in(probe::ledger const& of,
                                                   probe::stage s) noexcept {
        std::uint64_t sum = of.count(s, probe::event::skipped_zero);
        for (probe::event const e : products) {
            sum += of.count(s, e);
        }
        return sum;
    }
    [[nodiscard]] static std::uint64_t whole(std::uint64_t count, std::uint64_t unit,
                                             char const* what) {
        if (unit == 0 || count % unit != 0) {
            throw error(std::string("recorded run: ") + what, std::to_string(count),
                        "a multiple of " + std::to_string(unit) + ", as the shapes say");
        }
        return count / unit;
    }

    [[nodiscard]] tile_work tile_of(probe::trace::tile const& tile, bool ends_row,
                                    progress& so_far) const {
        probe::tile_id const id = tile.id;
        probe::ledger const& counts = tile.counts;
        using detail::count;
        using enum probe::stage;
        using probe::event;
        if (id.first_query >= w_.queries_count || id.first_key >= w_.keys_count ||
            id.head >= w_.heads_count) {
            throw error("recorded run: a tile at head, query, key",
                        std::to_string(id.head) + ", " + std::to_string(id.first_query) + ", " +
                            std::to_string(id.first_key),
                        "below heads_count, queries_count, keys_count of the workload");
        }
        tile_work w;
        index_t const queries = std::min(query_block, w_.queries_count - id.first_query);
        index_t const last_visible = w_.visible(id.first_query + queries - 1);
        auto const seen_by = [&](index_t visible) {
            return std::clamp<index_t>(visible - id.first_key, 0, w_.tile_keys_count);
        };
        w.rows = queries * w_.heads_per_selection();
        w.keys = seen_by(last_visible);
        w.dim = w_.head_dim_count;
        w.value_dim = w_.value_dim_count;
        w.channels = w_.has_kv_cache ? 0 : w_.width_count;
        w.key_product = key_product_;
        w.score_product = score_product_;
        w.rotates_keys = w_.rope_name == "after_key_prediction";
        bool const leads = id.head % w_.group() == 0; // of a KV head
        if (id.first_key == 0 && total_.count(score_prediction, event::lz_encode) > 0) {
            w.encoded_values = w.rows * w.dim;
        }
        if (id.first_key == 0) {
            w.row_keys = last_visible;
            w.head_keys = id.first_query == 0 ? w_.keys_count : 0;
        }
        index_t const seen_before =
            id.first_query == 0 ? 0 : seen_by(w_.visible(id.first_query - 1));
        if (!w_.has_kv_cache && leads) {
            w.predicted_keys = w.keys - seen_before;
        }
        w.skipped_key_products = take_skipped(w.key_products(), so_far);
        w.skipped_score_products = counts.count(score_prediction, event::skipped_zero);
        w.visible_pairs =
            whole(products_in(counts, score_prediction), count(w.dim), "predicted products");

        if (w.visible_pairs > count(w.rows * w.keys)) {
            throw error("recorded run: pairs predicted in a tile", std::to_string(w.visible_pairs),
                        "at most its rows times keys, " + std::to_string(w.rows * w.keys) +
                            "; tile_keys_count is that of the run, or keys_count where rows are "
                            "not cut into tiles");
        }
        w.kept_pairs = counts.count(attention, event::exp);
        w.kept_most = static_cast<index_t>(tile.kept_most);
        if (w.kept_most > w.keys || w.kept_pairs > count(w.rows) * tile.kept_most) {
            throw error("recorded run: keys that the fullest row of a tile kept",
                        std::to_string(w.kept_most),
                        "at most its " + std::to_string(w.keys) + " keys, and as many as its " +
                            std::to_string(w.kept_pairs) + " kept pairs need");
        }
        constexpr std::uint64_t operand = probe::formal_operand_bytes;
        // An attender that reuses scores loads fewer keys than values; the machine loads pairs.
        w.loads = static_cast<index_t>(std::max(
            whole(counts.count(schedule, event::key_bytes), count(w.dim) * operand, "key bytes"),
            whole(counts.count(schedule, event::value_bytes), count(w.value_dim) * operand,
                  "value bytes")));
        if (!w_.has_kv_cache) {
            w.generated_keys =
                static_cast<index_t>(whole(counts.count(kv_generation, event::token_bytes),
                                           count(w.channels) * operand, "bytes of kept tokens"));
        }
        bool const is_first_meeting = leads && seen_before == 0;
        if (leads && id.first_query == 0 && id.first_key == 0) {
            so_far.missed.assign(count_of_tiles(), 1.0);
        }
        double& missed = so_far.missed[static_cast<std::size_t>(id.first_key / w_.tile_keys_count)];
        auto const keys = static_cast<double>(std::max<index_t>(1, w.keys));
        // A schedule without reuse loads a key more than once.
        double const still_missed = missed * std::max(0.0, 1 - static_cast<double>(w.loads) / keys);
        w.fresh_loads = w_.has_kv_cache
                            ? std::min<index_t>(w.loads, std::llround(keys * missed) -
                                                             std::llround(keys * still_missed))
                            : w.generated_keys;
        missed = still_missed;
        w.max_updates = counts.count(attention, event::max_update);
        w.last_of_rows = ends_row;
        w.finished_rows =
            static_cast<index_t>(counts.count(attention, event::divide) / count(w.value_dim));

        tile_position position;
        position.first_of_head = leads && id.first_query == 0 && id.first_key == 0;
        position.first_of_rows = id.first_key == 0;
        position.last_of_rows = ends_row;
        position.used_again =
            w_.queries_count > query_block || w_.group() > w_.heads_per_selection();
        position.is_cached = w_.has_kv_cache;
        position.first_meeting = is_first_meeting;
        set_traffic(w, m_, placement_, position);
        return w;
    }

    /// Of the zeros that key prediction met, those of the next `products` ones.
    [[nodiscard]] std::uint64_t take_skipped(std::uint64_t wanted,
                                             progress& so_far) const noexcept {
        auto const all = static_cast<double>(products_in(total_, probe::stage::key_prediction));
        if (all == 0) {
            return 0;
        }
        double const share = static_cast<double>(total_.count(probe::stage::key_prediction,
                                                              probe::event::skipped_zero)) /
                             all;
        so_far.products += wanted;
        auto const due =
            static_cast<std::uint64_t>(std::llround(share * static_cast<double>(so_far.products)));
        std::uint64_t const taken = std::min(wanted, due - so_far.skipped);
        so_far.skipped += taken;
        return taken;
    }

    probe::trace const& events_;
    workload w_;
    machine m_;
    placement placement_;
    probe::ledger total_;
    probe::event key_product_{};
    probe::event score_product_{};
};

} // namespace sofattn::hw
