// SPDX-License-Identifier: MIT
// The selectors' work on vector registers: cuts found by counting instead of sorts of all keys.
#pragma once

#include <sofattn/core/assert.hpp>
#include <sofattn/core/order.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/exec/score_lanes.hpp>
#include <sofattn/exec/short_lanes.hpp>
#include <sofattn/sads/best_cut.hpp>
#include <sofattn/sads/budget.hpp>
#include <sofattn/sads/candidates.hpp>
#include <sofattn/sads/drop_cut.hpp>
#include <sofattn/sads/row_cut.hpp>
#include <sofattn/sads/sort_core.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>

namespace sofattn::sads::detail {

/// Keys of a run that follow each other: forced ones, competing ones, forced and competing ones.
template <exec::lane_score Score>
class dealt_keys {
public:
    dealt_keys(score_run<Score> run, row_rule const& rule, key_range keys,
               register_buffers<Score>& buffers) noexcept
        : run_(run), buffers_(buffers) {
        SOFATTN_ASSERT(std::ssize(buffers.spare) >= run.size());
        auto const [sinks, window] = forced_keys(rule, keys.from, keys.to);
        sinks_ = {sinks.from, sinks.to};
        window_ = {window.from, window.to};
        before_ = {sinks.to, window.from};
        behind_ = {window.to, keys.to};
        forced_ = length(sinks_) + length(window_);
        if (length(before_) == 0 || length(behind_) == 0) {
            competing_ = scores(length(before_) == 0 ? behind_ : before_);
        } else {
            auto const end = std::ranges::copy(scores(before_), buffers.scores.begin()).out;
            std::ranges::copy(scores(behind_), end);
            competing_ = std::span<Score const>(buffers.scores)
                             .first(static_cast<std::size_t>(length(before_) + length(behind_)));
        }
    }

    [[nodiscard]] index_t forced() const noexcept { return forced_; }
    [[nodiscard]] std::array<std::span<Score const>, 2> forced_scores() const noexcept {
        return {scores(sinks_), scores(window_)};
    }
    /// In key order, side by side.
    [[nodiscard]] std::span<Score const> competing() const noexcept { return competing_; }

    /// The forced keys and those of the cut, in key order; returns how many.
    index_t keep(best_cut<Score> cut, ranked<Score>* kept) noexcept {
        index_t filled = keep_all(sinks_, kept);
        filled += keep_cut(before_, cut, kept + filled);
        filled += keep_all(window_, kept + filled);
        filled += keep_cut(behind_, cut, kept + filled);
        return filled;
    }
    index_t keep_forced(ranked<Score>* kept) noexcept {
        index_t const filled = keep_all(sinks_, kept);
        return filled + keep_all(window_, kept + filled);
    }

private:
    [[nodiscard]] static index_t length(key_range keys) noexcept { return keys.to - keys.from; }
    [[nodiscard]] std::span<Score const> scores(key_range keys) const noexcept {
        return run_.scores.subspan(static_cast<std::size_t>(keys.from - run_.first),
                                   static_cast<std::size_t>(length(keys)));
    }
    index_t keep_all(key_range keys, ranked<Score>* kept) const noexcept {
        for (index_t k = keys.from; k < keys.to; ++k) {
            *kept++ = run_.entry(k - run_.first);
        }
        return length(keys);
    }
    index_t keep_cut(key_range keys, best_cut<Score>& cut, ranked<Score>* kept) noexcept {
        return collect(scores(keys), static_cast<key_id>(keys.from), cut, buffers_.collected.data(),
                       kept);
    }

    score_run<Score> run_;
    register_buffers<Score>& buffers_;
    key_range sinks_;
    key_range before_;
    key_range window_;
    key_range behind_;
    index_t forced_ = 0;
    std::span<Score const> competing_;
};

template <exec::lane_score Score>
index_t sorted(std::span<ranked<Score>> kept, index_t filled,
               register_buffers<Score>& buffers) noexcept {
    put_best_first(kept.first(static_cast<std::size_t>(filled)), std::span(buffers.spare));
    return filled;
}

/// The cut of the `wanted` best, within the radius of the best of them.
template <exec::lane_score Score>
[[nodiscard]] best_cut<Score> cut_within(std::span<Score const> competing, index_t wanted,
                                         double radius) noexcept {
    auto const range = exec::extremes(competing);
    return cut_of_best(competing, wanted, range)
        .and_at_least(search_radius<Score>(radius).below(range.most));
}

/// select_segment with a partial sort.
template <exec::lane_score Score>
index_t select_segment_on_registers(score_run<Score> run, segment_shape shape, row_rule const& rule,
                                    index_t budget, register_buffers<Score>& buffers,
                                    std::span<ranked<Score>> kept) noexcept {
    if (shape.stride == 1) {
        index_t const first = run.first + shape.first;
        dealt_keys<Score> keys(run, rule, {first, first + shape.length}, buffers);
        index_t const wanted =
            std::clamp<index_t>(budget - keys.forced(), 0, std::ssize(keys.competing()));
        index_t const filled =
            wanted == 0 ? keys.keep_forced(kept.data())
                        : keys.keep(cut_within(keys.competing(), wanted, rule.radius), kept.data());
        return sorted(kept, filled, buffers);
    }
    std::size_t competing = 0;
    for (index_t i = 0; i < shape.length; ++i) {
        ranked<Score> const entry = run.entry(shape.first + i * shape.stride);
        buffers.scores[competing] = entry.score;
        competing += rule.is_forced(entry.key) ? 0 : 1;
    }
    auto const scores = std::span<Score const>(buffers.scores).first(competing);
    index_t const forced = shape.length - std::ssize(scores);
    index_t const wanted = std::clamp<index_t>(budget - forced, 0, std::ssize(scores));
    best_cut<Score> cut{std::numeric_limits<Score>::max(), 0};
    if (wanted > 0) {
        cut = cut_within(scores, wanted, rule.radius);
    }
    std::size_t filled = 0;
    for (index_t i = 0; i < shape.length; ++i) {
        ranked<Score> const entry = run.entry(shape.first + i * shape.stride);
        bool const is_forced = rule.is_forced(entry.key);
        bool const is_tied = !is_forced && entry.score == cut.above && cut.ties > 0;
        cut.ties -= is_tied ? 1 : 0;
        if (is_forced || is_tied || entry.score > cut.above) {
            kept[filled++] = entry;
        }
    }
    return sorted(kept, static_cast<index_t>(filled), buffers);
}

/// `threshold`.
template <exec::lane_score Score>
index_t select_within_on_registers(score_run<Score> run, row_rule const& rule,
                                   register_buffers<Score>& buffers,
                                   std::span<ranked<Score>> kept) noexcept {
    auto const range = exec::extremes(run.scores);
    Score const least = std::max(range.least, search_radius<Score>(rule.radius).below(range.most));
    dealt_keys<Score> keys(run, rule, {run.first, run.first + run.size()}, buffers);
    return keys.keep({static_cast<Score>(least - 1), 0}, kept.data());
}

/// `adaptive`, but for whole grains. `least`: competing keys that stay, if `at_most` lets them.
template <exec::lane_score Score>
index_t select_adaptive_on_registers(score_run<Score> run, row_rule const& rule,
                                     running_row<Score>& row, index_t least_with_forced,
                                     register_buffers<Score>& buffers,
                                     std::span<ranked<Score>> kept) noexcept {
    Score const best = exec::extremes(run.scores).most;
    if (row.is_empty) {
        row.is_empty = false;
        row.top = best;
    } else if (row.top < best) {
        row.rise(rule.drop, best);
    }
    dealt_keys<Score> keys(run, rule, {run.first, run.first + run.size()}, buffers);
    for (auto const& scores : keys.forced_scores()) {
        row.mass += weigh_scores(rule.drop, row.top, scores, nullptr);
    }
    auto const competing = keys.competing();
    if (competing.empty()) {
        return sorted(kept, keys.keep_forced(kept.data()), buffers);
    }
    row.mass += weigh_scores(rule.drop, row.top, competing, buffers.costs.data());
    drop_limits limits;
    limits.dropped = row.dropped;
    limits.allowance = rule.drop.allowance(row.mass);
    limits.least = least_with_forced - keys.forced();
    limits.most = std::max<index_t>(0, rule.at_most - row.kept);
    limits.drops_for_weight = rule.drop.measure != drop_measure::nothing;
    auto const left = drop_worst(competing, buffers.costs.data(),
                                 search_radius<Score>(rule.radius).below(row.top), limits);
    row.dropped = left.dropped;
    row.kept += left.kept;
    return sorted(kept, keys.keep(left.cut, kept.data()), buffers);
}

/// `adaptive` in whole grains, without a maximum count.
template <exec::lane_score Score>
index_t select_grains_on_registers(score_run<Score> run, row_rule const& rule,
                                   register_buffers<Score>& buffers,
                                   std::span<ranked<Score>> kept) noexcept {
    index_t const keys = run.size();
    SOFATTN_ASSERT(std::ssize(buffers.spare) >= keys);
    put_positions(rule.drop.weights, run.scores, buffers.positions.data());
    auto const positions =
        std::span(buffers.positions)
            .first(static_cast<std::size_t>(ceil_div(keys, exec::short_width) * exec::short_width));
    row_cut const cut = buffers.cut(positions, rule);
    auto const [sinks, window] = forced_keys(rule, 0, keys);
    std::size_t filled = 0;
    auto const keep = [&](index_t from, index_t to) {
        for (index_t k = from; k < to; ++k) {
            kept[filled++] = run.entry(k);
        }
    };
    keep(sinks.from, sinks.to);
    bool in_front = true; // of the window
    exec::vector_int16 const limit = exec::all_shorts(cut.limit);
    for (index_t at = 0; at < keys; at += exec::short_width) {
        // Forced keys and places behind the last are no_key and never above.
        auto above = exec::lanes_above(exec::load(positions.data() + at), limit);
        for (; above != 0; above &= above - 1) {
            index_t const key = at + std::countr_zero(above);
            if (in_front && key >= window.to) {
                keep(window.from, window.to);
                in_front = false;
            }
            kept[filled++] = run.entry(key);
        }
    }
    if (in_front) {
        keep(window.from, window.to);
    }
    return sorted(kept, static_cast<index_t>(filled), buffers);
}

} // namespace sofattn::sads::detail
