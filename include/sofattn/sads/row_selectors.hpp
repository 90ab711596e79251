// SPDX-License-Identifier: MIT
// Selectors that SADS is compared with: full sort, threshold, and keeping everything.
#pragma once

#include <sofattn/core/assert.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/exec/executor.hpp>
#include <sofattn/sads/budget.hpp>
#include <sofattn/sads/candidates.hpp>
#include <sofattn/sads/full_sort.hpp>
#include <sofattn/sads/register_select.hpp>
#include <sofattn/sads/sort_core.hpp>

#include <cstddef>
#include <cstdint>
#include <span>

namespace sofattn::sads {

/// Sorts the whole row and keeps the best: exact top-k, and the selector of earlier designs.
///
/// in     run    [key]  predicted scores of the whole row
///        rule          the row's budget; radius is measured from the row's best competing score
/// out    kept   [key]  in the total order; returns how many
/// pre    run.first == 0, run has all visible keys; kept and scratch have a place per key
///        (SOFATTN_ASSERT)
/// error  none
/// events compare per comparator of an odd-even merge network over the row, per threshold
///        comparison, and per comparison that puts a forced key in its place
/// exact  bit-identical on every executor
/// paper  the full sort of Fig. 17's baseline; needs the row, so scores are spilled (section II)
struct full_topk {
    static constexpr char const* name = "full_topk";
    static constexpr bool tile_ready = false;
    static constexpr bool sorted = true;

    template <exec::executor_like X, class Score>
    index_t operator()(X& x, score_run<Score> run, row_rule const& rule, segmentation,
                       select_scratch<Score>& scratch,
                       std::span<ranked<Score>> kept) const noexcept {
        SOFATTN_ASSERT(run.first == 0 && run.size() == rule.visible);
        SOFATTN_ASSERT(std::ssize(kept) >= run.size() &&
                       std::ssize(scratch.competing) >= run.size());
        if constexpr (exec::on_registers<X> && exec::lane_score<Score>) {
            return detail::select_segment_on_registers(run, {0, 1, run.size()}, rule, rule.keep,
                                                       scratch.registers, kept);
        }
        sort_cost cost;
        auto const sorter = [&](auto entries, auto, auto out, sort_cost& spent) {
            if constexpr (X::probe_type::enabled) {
                spent.compares += sort_by_network(entries, [](auto const& a, auto const& b) {
                    return detail::precedes<X>(a, b);
                });
                using number = typename X::template number<Score>;
                search_radius<Score, number> const reach(rule.radius);
                number const least = reach.below(number(entries.front().score));
                spent.adds += reach.is_limited() ? 1 : 0;
                std::size_t filled = 0;
                for (; filled < out.size(); ++filled) {
                    spent.compares += reach.is_limited() ? 1 : 0;
                    if (reach.is_limited() && number(entries[filled].score) < least) {
                        break;
                    }
                    out[filled] = entries[filled];
                }
                return static_cast<index_t>(filled);
            } else {
                return detail::partial_sort_into(entries, out, rule.radius);
            }
        };
        index_t const filled = detail::select_segment<X>(run, {0, 1, run.size()}, rule, rule.keep,
                                                         scratch, kept, cost, sorter);
        detail::emit_selection(x, cost);
        return filled;
    }
};

/// Keeps every key within `radius` of the row's best score, however many they are. The count of
/// the budget is not looked at.
///
/// in     run    [key]  predicted scores of the whole row
///        rule          radius, sinks and window
/// out    kept   [key]  in key order, not sorted; returns how many
/// pre    run.first == 0, run has all visible keys; kept has a place per key (SOFATTN_ASSERT)
/// error  none
/// events compare per key twice: for the maximum (one less) and against the threshold; add for
///        max - r
/// exact  bit-identical on every executor
/// paper  not in the paper: the threshold rule of earlier designs
struct threshold {
    static constexpr char const* name = "threshold";
    static constexpr bool tile_ready = false;
    static constexpr bool sorted = false;

    template <exec::executor_like X, class Score>
    index_t operator()(X& x, score_run<Score> run, row_rule const& rule, segmentation,
                       [[maybe_unused]] select_scratch<Score>& scratch,
                       std::span<ranked<Score>> kept) const noexcept {
        SOFATTN_ASSERT(run.first == 0 && run.size() == rule.visible);
        SOFATTN_ASSERT(std::ssize(kept) >= run.size());
        if (run.size() == 0) {
            return 0;
        }
        if constexpr (exec::on_registers<X> && exec::lane_score<Score>) {
            return detail::select_within_on_registers(run, rule, scratch.registers, kept);
        }
        using number = typename X::template number<Score>;
        number best(run.entry(0).score);
        for (index_t k = 1; k < run.size(); ++k) {
            number const score(run.entry(k).score);
            best = best < score ? score : best;
        }
        search_radius<Score, number> const reach(rule.radius);
        number const least = reach.below(best);
        index_t filled = 0;
        for (index_t k = 0; k < run.size(); ++k) {
            ranked<Score> const entry = run.entry(k);
            bool const beyond = number(entry.score) < least;
            if (rule.is_forced(entry.key) || !beyond) {
                kept[static_cast<std::size_t>(filled++)] = entry;
            }
        }
        sort_cost cost;
        cost.adds = reach.is_limited() ? 1 : 0;
        cost.compares = static_cast<std::uint64_t>(2 * run.size() - 1);
        detail::emit_selection(x, cost);
        return filled;
    }
};

/// Keeps every visible key: dense attention through the same pipeline.
///
/// in     run    [key]  any scores; rule is not looked at
/// out    kept   [key]  in key order; returns how many
/// pre    kept has a place per key (SOFATTN_ASSERT)
/// error  none
/// events none
/// exact  bit-identical on every executor
/// paper  not in the paper: the dense rival
struct keep_all {
    static constexpr char const* name = "keep_all";
    static constexpr bool tile_ready = true;
    static constexpr bool sorted = false;

    template <exec::executor_like X, class Score>
    index_t operator()(X&, score_run<Score> run, row_rule const&, segmentation,
                       select_scratch<Score>&, std::span<ranked<Score>> kept) const noexcept {
        SOFATTN_ASSERT(std::ssize(kept) >= run.size());
        for (index_t k = 0; k < run.size(); ++k) {
            kept[static_cast<std::size_t>(k)] = run.entry(k);
        }
        return run.size();
    }
};

} // namespace sofattn::sads
