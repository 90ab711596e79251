// SPDX-License-Identifier: MIT
// The running rule on vector registers: one row's tile is weighed, cut and compressed.
#pragma once

#include <sofattn/core/assert.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/exec/integer_lanes.hpp>
#include <sofattn/exec/xsimd_lanes.hpp>
#include <sofattn/sads/budget.hpp>
#include <sofattn/sads/candidates.hpp>
#include <sofattn/sads/drop_rule.hpp>
#include <sofattn/sads/softmax_weight.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>

namespace sofattn::sads {

/// A row between two tiles.
struct grain_row : running_row<std::int32_t> {
    std::int32_t cut = 0; ///< the first grain that the last tile dropped: where the next one looks
};

/// Selects the same keys as adaptive<grain_by_grain>, from int32 scores.
///
/// A tile costs one pass for the best score, one for the weights, a few short ones until the cut is
/// found (rows change little from tile to tile, so it is looked for where it was), and one that
/// writes what is kept. Nothing is sorted.
///
/// in     scores   [key]  predicted scores of the tile; readable up to a multiple of vector_width
///        first           the tile's first key; `count` of them are visible
///        rule            the row's budget
///        row             what the row's earlier tiles left
/// out    kept()   [key]  kept keys, relative to the tile; the forced ones last
///        dropped  [segment] weights and number of the dropped keys of each 64, for a tail
/// pre    count <= tile_keys; |score| < 2^29 (SOFATTN_ASSERT on the first)
/// error  none
/// events none: this is no circuit
/// exact  bit-identical to adaptive<grain_by_grain> on every executor, the order of kept aside
/// paper  not in the paper; the tile-wise cut takes the place of section III-B's sorting
class tile_selection {
public:
    static constexpr index_t tile_keys = 256;
    static constexpr index_t segment = 64;
    static constexpr index_t segments = tile_keys / segment;

    struct dropped_keys {
        std::uint64_t weight = 0; ///< 2^-30 of the row's best
        index_t count = 0;
    };

    index_t operator()(std::int32_t const* scores, index_t first, index_t count,
                       row_rule const& rule, grain_row& row) noexcept {
        SOFATTN_ASSERT(count > 0 && count <= tile_keys);
        vectors_ = ceil_div(count, exec::vector_width);
        absorb_top(scores, count, rule.drop, row);
        bool const squares = rule.drop.measure == drop_measure::error;
        bool const whole = count % exec::vector_width == 0;
        std::uint64_t const mass =
            squares ? (whole ? weigh<true, true>(scores, count, rule.drop.weights, row.top)
                             : weigh<true, false>(scores, count, rule.drop.weights, row.top))
                    : (whole ? weigh<false, true>(scores, count, rule.drop.weights, row.top)
                             : weigh<false, false>(scores, count, rule.drop.weights, row.top));
        row.mass += mass;
        index_t const forced = take_out_forced(first, count, rule);
        cut_tile(first, count, forced, rule, row);
        put_forced(first, count, rule);
        return kept_count_;
    }

    [[nodiscard]] std::span<std::int32_t const> kept() const noexcept {
        return std::span(kept_).first(static_cast<std::size_t>(kept_count_));
    }
    /// Of segment s of the tile.
    [[nodiscard]] dropped_keys dropped(index_t s) const noexcept {
        return dropped_[static_cast<std::size_t>(s)];
    }

private:
    static constexpr std::int32_t nowhere = std::numeric_limits<std::int32_t>::max();
    static constexpr std::int32_t last_grain =
        (weight_scale::farthest >> weight_scale::grain_bits) + 1; ///< beyond every key

    using vector = exec::vector_int32;

    void absorb_top(std::int32_t const* scores, index_t count, drop_rule const& drop,
                    grain_row& row) noexcept {
        std::int32_t best = 0;
        if (count >= exec::vector_width) {
            vector top = exec::load(scores);
            index_t k = exec::vector_width;
            for (; k + exec::vector_width <= count; k += exec::vector_width) {
                top = exec::larger(top, exec::load(scores + k));
            }
            // The last ones again, from the end.
            top = exec::larger(top, exec::load(scores + count - exec::vector_width));
            best = exec::largest(top);
        } else {
            best = *std::max_element(scores, scores + count);
        }
        if (row.is_empty) {
            row.is_empty = false;
            row.top = best;
        } else if (row.top < best) {
            row.rise(drop, best);
        }
    }

    /// Distances, weights and costs; returns the mass.
    template <bool Squares, bool Whole>
    std::uint64_t weigh(std::int32_t const* scores, index_t count, weight_scale scale,
                        std::int32_t top) noexcept {
        exec::vector_float const steps(scale.steps_per_score());
        exec::vector_float const farthest(static_cast<float>(weight_scale::farthest));
        vector const top_score(top);
        exec::wide_sum weights;
        index_t const per_segment = segment / exec::vector_width;
        for (index_t s = 0; s * per_segment < vectors_; ++s) {
            index_t const end = std::min(vectors_, (s + 1) * per_segment);
            for (index_t v = s * per_segment; v < end; ++v) {
                vector const score = exec::load(scores + v * exec::vector_width);
                // (top - score) is exact; two roundings, as in weight_scale::distance.
                exec::vector_float const away =
                    exec::smaller(exec::to_float(top_score - score) * steps, farthest);
                vector distance = exec::truncated(away);
                if constexpr (!Whole) {
                    distance = exec::if_below(
                        exec::lane_numbers() + vector(static_cast<int>(v * exec::vector_width)),
                        vector(static_cast<int>(count)), distance, vector(nowhere));
                }
                vector const octaves = distance >> weight_scale::step_bits;
                // A fraction of 2^16, so that products are high halves.
                vector const f = (distance << (16 - weight_scale::step_bits)) & vector(0xffff);
                vector r =
                    constant(weight_scale::c2) - exec::high_product(constant(weight_scale::c3), f);
                r = constant(weight_scale::c1) - exec::high_product(r, f);
                r = vector(1 << 16) - exec::high_product(r, f);
                vector const weight =
                    exec::shifted_right(r << (weight_scale::unit_bits - 16), octaves);
                weights.add(weight);
                vector cost = weight;
                if constexpr (Squares) {
                    vector const half = r >> 1;
                    cost = exec::shifted_right(half * half, octaves + octaves);
                }
                at(distance_, v, distance);
                at(weight_, v, weight);
                if constexpr (Squares) {
                    at(cost_, v, cost);
                }
            }
            dropped_[static_cast<std::size_t>(s)].count = std::min(segment, count - s * segment);
        }
        costs_ = Squares ? cost_.data() : weight_.data();
        return weights.total();
    }

    [[nodiscard]] static vector constant(std::uint32_t c) noexcept {
        return vector(static_cast<std::int32_t>(c));
    }
    template <class Array>
    static void at(Array& array, index_t v, vector x) noexcept {
        exec::store(array.data() + v * exec::vector_width, x);
    }
    [[nodiscard]] vector distance(index_t v) const noexcept {
        return exec::load(distance_.data() + v * exec::vector_width);
    }

    struct key_run {
        index_t from;
        index_t to;
    };
    /// The tile's forced keys: sinks, and the window behind them.
    [[nodiscard]] static std::array<key_run, 2> forced_keys(index_t first, index_t count,
                                                            row_rule const& rule) noexcept {
        index_t const sinks = std::clamp<index_t>(rule.sinks - first, 0, count);
        index_t const end = std::clamp<index_t>(rule.visible - rule.after_window - first, 0, count);
        index_t const window =
            std::clamp<index_t>(rule.visible - rule.after_window - rule.window - first, 0, end);
        return {key_run{0, sinks}, key_run{std::max(sinks, window), std::max(sinks, end)}};
    }

    /// Forced keys are far from any cut, weigh and cost nothing.
    index_t take_out_forced(index_t first, index_t count, row_rule const& rule) noexcept {
        index_t forced = 0;
        for (key_run const run : forced_keys(first, count, rule)) {
            for (index_t key = run.from; key < run.to; ++key) {
                auto const k = static_cast<std::size_t>(key);
                distance_[k] = nowhere;
                weight_[k] = 0;
                costs_[k] = 0;
            }
            // Not one by one in the loop above: Clang 14 vectorises that, and counts a key in eight.
            for (index_t s = 0; s * segment < count; ++s) {
                index_t const from = std::max(run.from, s * segment);
                index_t const to = std::min(run.to, (s + 1) * segment);
                dropped_[static_cast<std::size_t>(s)].count -= std::max<index_t>(0, to - from);
            }
            forced += run.to - run.from;
        }
        return forced;
    }

    [[nodiscard]] static vector limit_of(std::int32_t grain) noexcept {
        return vector(grain << weight_scale::grain_bits);
    }

    /// Lists the keys nearer than `grain`, in order, and sums what all others cost.
    void find_near(std::int32_t grain) noexcept {
        // From here on the costs of a lane sum to less than 2^32 over a tile.
        constexpr std::int32_t far_octaves =
            std::bit_width(static_cast<std::uint64_t>(tile_keys / exec::vector_width)) - 2;
        vector const limit = limit_of(grain);
        vector keys = exec::lane_numbers();
        index_t filled = 0;
        auto const each = [&](auto add) {
            for (index_t v = 0; v < vectors_; ++v) {
                vector const away = distance(v);
                exec::lane_mask const mask = exec::lanes_below(away, limit);
                vector const cost = exec::load(costs_ + v * exec::vector_width);
                filled += exec::compress(mask, keys, near_.data() + filled);
                keys = keys + vector(static_cast<int>(exec::vector_width));
                add(away, cost);
            }
        };
        exec::wide_sum wide;
        if (grain >= far_octaves << (weight_scale::step_bits - weight_scale::grain_bits)) {
            vector sum(0);
            each([&](vector away, vector cost) { sum = exec::add_from(sum, away, limit, cost); });
            wide.add(sum);
        } else {
            each([&](vector away, vector cost) {
                wide.add(exec::add_from(vector(0), away, limit, cost));
            });
        }
        near_count_ = filled;
        near_end_ = grain;
        far_cost_ = wide.total();
    }

    /// The lowest grain from which on no more than `allowed` is dropped. Leaves all keys before it
    /// in near_.
    [[nodiscard]] std::int32_t cheapest_cut(std::int32_t hint, std::uint64_t allowed) noexcept {
        // Cuts around the hint are tried all at once, without a branch. Seldom it is none of them.
        constexpr std::int32_t cuts = exec::limit_sums::limits;
        std::int32_t at = std::clamp(hint - cuts / 2, 0, last_grain - cuts);
        std::int32_t least = 0;         // no lower one will do
        std::int32_t most = last_grain; // will do
        for (std::int32_t step = cuts;; step *= 2) {
            find_near(at + cuts);
            exec::limit_sums costs(at << weight_scale::grain_bits, 1 << weight_scale::grain_bits,
                                   far_cost_);
            costs.add(near_.data(), near_count_, distance_.data(), costs_);
            // With the last cut everything near stays.
            int const dear = far_cost_ > allowed ? cuts + 1 : costs.above(allowed);
            std::int32_t const cut = at + dear;
            if (dear > cuts) {
                least = cut;
            } else if (dear == 0 && at > least) {
                most = at;
            } else {
                return cut;
            }
            // In growing steps; halving, once there is an end on either side.
            std::int32_t const next = most == last_grain ? at + step
                                      : least == 0       ? at - step
                                                         : least + (most - least) / 2 - cuts / 2;
            at = std::clamp(next, least, std::max(least, last_grain - cuts));
        }
    }

    /// Finds the lowest grain from which on all may go (adaptive::drop_worst says which).
    void cut_tile(index_t first, index_t count, index_t forced, row_rule const& rule,
                  grain_row& row) noexcept {
        std::int32_t cut = last_grain;
        std::uint64_t const allowance = rule.drop.allowance(row.mass);
        if (rule.drop.measure != drop_measure::nothing && row.dropped <= allowance) {
            cut = cheapest_cut(row.cut, allowance - row.dropped);
            row.cut = cut;
            index_t const least =
                rule.least_share(first + count) - rule.least_share(first) - forced;
            for (std::int32_t step = 8; near_count_ < least && near_end_ < last_grain; step *= 2) {
                find_near(std::min(near_end_ + step, last_grain));
            }
            if (keep_near(cut) < least) {
                cut = cut_keeping(least, cut);
                keep_near(cut);
            }
        } else {
            find_near(last_grain);
            keep_near(cut);
        }
        if (rule.at_most != std::numeric_limits<index_t>::max()) {
            index_t const most = std::max<index_t>(0, rule.at_most - row.kept);
            while (kept_count_ > most && cut > 0) {
                keep_near(--cut);
            }
        }
        if (std::int32_t const reach = rule.grains(); cut > reach + 1) {
            cut = reach + 1;
            keep_near(cut);
        }
        row.dropped += far_cost_ + near_dropped_;
        row.kept += kept_count_;
        sum_dropped(limit_of(cut));
    }

    /// The lowest grain above `low` before which `least` keys lie. pre: as many are near
    [[nodiscard]] std::int32_t cut_keeping(index_t least, std::int32_t low) const noexcept {
        if (least == 1) { // as in most tiles of long rows
            vector nearest((near_end_ - 1) << weight_scale::grain_bits);
            for (index_t v = 0; v < vectors_; ++v) {
                nearest = exec::smaller(nearest, distance(v));
            }
            return (exec::smallest(nearest) >> weight_scale::grain_bits) + 1;
        }
        std::int32_t high = near_end_;
        while (low + 1 < high) {
            std::int32_t const middle = low + (high - low) / 2;
            vector const limit = limit_of(middle);
            index_t kept = 0;
            for (index_t v = 0; v < vectors_; ++v) {
                kept += std::popcount(exec::lanes_below(distance(v), limit));
            }
            (kept < least ? low : high) = middle;
        }
        return high;
    }

    /// What each segment has lost; forced keys weigh nothing here.
    void sum_dropped(vector limit) noexcept {
        constexpr index_t per_segment = segment / exec::vector_width;
        static_assert(per_segment % 2 == 0);
        for (index_t s = 0; s * per_segment < vectors_; ++s) {
            exec::wide_sum weights;
            index_t kept = 0;
            index_t const end = std::min(vectors_, (s + 1) * per_segment);
            auto const lost = [&](index_t v) {
                vector const away = distance(v);
                kept += std::popcount(exec::lanes_below(away, limit));
                return exec::add_from(vector(0), away, limit,
                                      exec::load(weight_.data() + v * exec::vector_width));
            };
            index_t v = s * per_segment;
            for (; v + 2 <= end; v += 2) {
                weights.add(lost(v) + lost(v + 1)); // 2^31 at most
            }
            if (v < end) {
                weights.add(lost(v));
            }
            auto& d = dropped_[static_cast<std::size_t>(s)];
            d.weight = weights.total();
            d.count -= kept;
        }
    }

    /// Keeps the near keys before a cut, and sums what the others cost; returns how many stay.
    index_t keep_near(std::int32_t cut) noexcept {
        std::int32_t const limit = cut << weight_scale::grain_bits;
        std::size_t filled = 0;
        std::uint64_t dropped = 0;
        for (std::int32_t const key :
             std::span(near_).first(static_cast<std::size_t>(near_count_))) {
            // All ones where it stays: a branch would be guessed wrong for every other key.
            auto const stays = static_cast<std::uint32_t>(
                (distance_[static_cast<std::size_t>(key)] - limit) >> 31);
            kept_[filled] = key;
            filled += stays & 1;
            dropped += static_cast<std::uint32_t>(costs_[key]) & ~stays;
        }
        kept_count_ = static_cast<index_t>(filled);
        near_dropped_ = dropped;
        return kept_count_;
    }

    void put_forced(index_t first, index_t count, row_rule const& rule) noexcept {
        for (key_run const run : forced_keys(first, count, rule)) {
            for (index_t key = run.from; key < run.to; ++key) {
                kept_[static_cast<std::size_t>(kept_count_++)] = static_cast<std::int32_t>(key);
            }
        }
    }

    static constexpr std::size_t places = static_cast<std::size_t>(tile_keys);

    index_t vectors_ = 0;
    index_t near_count_ = 0;
    std::int32_t near_end_ = 0;      ///< grain before which keys are near
    std::uint64_t far_cost_ = 0;     ///< of all others
    std::uint64_t near_dropped_ = 0; ///< cost of near keys that are not kept
    index_t kept_count_ = 0;
    std::int32_t* costs_ = nullptr;
    alignas(64) std::array<std::int32_t, places> distance_;
    alignas(64) std::array<std::int32_t, places> weight_;
    alignas(64) std::array<std::int32_t, places> cost_;
    using list = std::array<std::int32_t, places + static_cast<std::size_t>(exec::vector_width)>;
    list near_; ///< keys before the highest cut that was tried
    list kept_;
    std::array<dropped_keys, static_cast<std::size_t>(segments)> dropped_;
};

} // namespace sofattn::sads
