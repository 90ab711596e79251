// SPDX-License-Identifier: MIT
// Distributed top-k of predicted scores (SADS), paper section III-B, Fig. 8 and 9.
#pragma once

#include <sofattn/core/assert.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/exec/executor.hpp>
#include <sofattn/sads/budget.hpp>
#include <sofattn/sads/candidates.hpp>
#include <sofattn/sads/register_select.hpp>
#include <sofattn/sads/sort_core.hpp>

#include <algorithm>
#include <concepts>
#include <span>

namespace sofattn::sads {

/// How keys are dealt to segments.
enum class segment_layout {
    contiguous, ///< key j in segment j / Bc: the paper's, and ready tile by tile
    strided     ///< key j in segment j mod n: keeps recall on rows whose big scores lie together
};

/// The paper's segments.
struct contiguous {
    static constexpr segment_layout layout = segment_layout::contiguous;
};
/// Not in the paper: contiguous segments lose half of the top-k of a clustered row.
struct strided {
    static constexpr segment_layout layout = segment_layout::strided;
};

template <class P>
concept policy = requires {
    { P::layout } -> std::convertible_to<segment_layout>;
};

/// Selects per segment: of the competing entries with score >= best of them - radius, the best m.
/// Forced keys (sinks, window) do not compete: they are kept, and count against m.
///
/// in     run    [key]  predicted scores of visible keys; contiguous: whole segments (the row's
///                      last may be cut short); strided: the whole row
///        rule          the row's budget; m is the difference of two shares (row_rule::share)
///        cut           segment length, keys
/// out    kept   [key]  segment after segment, each in the total order; returns how many
/// pre    contiguous: run.first % cut.length == 0; strided: run.first == 0; kept and scratch have a
///        place per key of the run (SOFATTN_ASSERT)
/// error  none at run time; a bad policy does not satisfy sads::policy
/// events compare per comparator of the network, clip and threshold comparison, and comparison that
///        puts a forced key in its place; clipped; add per subtraction max - r
/// exact  bit-identical on every executor, whatever the lanes, threads or tiles
/// paper  SADS, section III-B, Fig. 8 and 9; circuit: section IV-C, Fig. 13 (sort_core)
template <policy Policy = contiguous>
struct segment_topk {
    static constexpr bool is_contiguous = Policy::layout == segment_layout::contiguous;
    static constexpr char const* name = is_contiguous ? "sads" : "sads_strided";
    /// A tile of keys is selected as soon as it is predicted.
    static constexpr bool tile_ready = is_contiguous;
    /// Each segment's keys come out in the total order.
    static constexpr bool sorted = true;

    template <exec::executor_like X, class Score>
    index_t operator()(X& x, score_run<Score> run, row_rule const& rule, segmentation cut,
                       select_scratch<Score>& scratch,
                       std::span<ranked<Score>> kept) const noexcept {
        index_t const keys = run.size();
        SOFATTN_ASSERT(std::ssize(kept) >= keys && std::ssize(scratch.competing) >= keys);
        SOFATTN_ASSERT(run.first + keys <= rule.visible);
        SOFATTN_ASSERT(is_contiguous ? run.first % cut.length == 0
                                     : run.first == 0 && keys == rule.visible);
        index_t const segments =
            is_contiguous ? ceil_div(keys, cut.length) : cut.count(rule.visible);
        sort_cost cost;
        index_t filled = 0;
        index_t seen = run.first;
        for (index_t s = 0; s < segments; ++s) {
            detail::segment_shape const shape =
                is_contiguous ? detail::segment_shape{s * cut.length, 1,
                                                      std::min(cut.length, keys - s * cut.length)}
                              : detail::segment_shape{s, segments, ceil_div(keys - s, segments)};
            index_t const budget = rule.share(seen + shape.length) - rule.share(seen);
            auto const places = kept.subspan(static_cast<std::size_t>(filled));
            if constexpr (exec::on_registers<X> && exec::lane_score<Score>) {
                filled += detail::select_segment_on_registers(run, shape, rule, budget,
                                                              scratch.registers, places);
            } else {
                auto const sorter = [&](auto entries, auto taken, auto out, sort_cost& spent) {
                    return best_of(x, entries, taken, rule.radius, out, spent);
                };
                filled += detail::select_segment<X>(run, shape, rule, budget, scratch, places, cost,
                                                    sorter);
            }
            seen += shape.length;
        }
        detail::emit_selection(x, cost);
        return filled;
    }

private:
    template <class X, class Score>
    static index_t best_of(X&, std::span<ranked<Score>> entries, std::span<char> taken,
                           double radius, std::span<ranked<Score>> out, sort_cost& cost) noexcept {
        if constexpr (X::probe_type::enabled) {
            using core = sort_core<Score, typename X::template number<Score>>;
            std::ranges::fill(taken, char{0});
            return core(radius)(entries, taken, out, cost);
        } else {
            return detail::partial_sort_into(entries, out, radius);
        }
    }
};

} // namespace sofattn::sads
