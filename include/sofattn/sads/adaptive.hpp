// SPDX-License-Identifier: MIT
// Selectors whose count adapts to the row: as many keys as a mass or an error asks for.
#pragma once

#include <sofattn/core/assert.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/exec/executor.hpp>
#include <sofattn/sads/budget.hpp>
#include <sofattn/sads/candidates.hpp>
#include <sofattn/sads/full_sort.hpp>
#include <sofattn/sads/register_select.hpp>
#include <sofattn/sads/sort_core.hpp>

#include <algorithm>
#include <concepts>
#include <cstdint>
#include <span>

namespace sofattn::sads {

/// When keys are decided on.
enum class decision {
    whole_row,   ///< with all scores known: the smallest set that the rule allows
    tile_by_tile ///< with the tiles so far known: never less mass, some keys more
};

/// The exact rule.
struct whole_row {
    static constexpr char const* name = "adaptive";
    static constexpr decision when = decision::whole_row;
    static constexpr bool whole_grains = false;
};
/// The running rule: a tile is decided on when it has been predicted, as cross-stage tiling asks.
struct tile_by_tile : whole_row {
    static constexpr char const* name = "adaptive_running";
    static constexpr decision when = decision::tile_by_tile;
};
/// Whole rows in grains: all keys of an eighth of an octave below the row's best are dropped together
/// or none of them, and scores count by their 16-bit positions (weight_scale::position). A row is
/// then cut by comparing with a threshold, which is found without sorting; what CPUs run
/// (row_cut.hpp).
struct grain_by_grain : whole_row {
    static constexpr char const* name = "adaptive_grains";
    static constexpr bool whole_grains = true;
};

template <class P>
concept adaptive_policy = requires {
    { P::name } -> std::convertible_to<char const*>;
    { P::when } -> std::convertible_to<decision>;
    { P::whole_grains } -> std::convertible_to<bool>;
};

/// Keeps the smallest set of best keys that a budget of mass or error allows (drop_rule): keys are
/// dropped worst first, in the total order, while their cost stays within the allowance.
///
/// The running rule keeps the same books tile by tile: what was dropped so far never exceeds what
/// the mass seen so far allows. As mass only grows, the final allowance holds too; the price is
/// keys kept early that a later, larger maximum would have let go.
///
/// Keys out of the radius go first, whatever the allowance. Sinks and window are kept and their
/// weights count as mass. `at_least` holds against the allowance, not against the radius;
/// `at_most` holds against both (beside the forced keys; first come, first kept when running).
/// Without mass and error in the budget nothing is dropped but by radius and `at_most`.
///
/// In whole grains a radius ends with its grain, `at_most` drops all of the grain that goes over it
/// (the best one too: a row of nearly equal scores may keep only its forced keys), and otherwise a
/// grain stays if it cannot go as a whole.
///
/// in     run    [key]  predicted scores of visible keys: the row, or (running) its next tile
///        rule          the row's budget
///        scratch.row   running: what the row's earlier tiles left
/// out    kept   [key]  in the total order; returns how many
/// pre    whole row: run.first == 0, run has all visible keys; kept has a place per key
///        (SOFATTN_ASSERT)
/// error  none at run time; a bad policy does not satisfy sads::adaptive_policy
/// events compare per comparator of an odd-even merge network over the run's keys but the forced
///        ones, per place a forced key is tried in, per key of the row but its first for the best
///        score, and per key considered for dropping; exp and add per key (its weight into the
///        mass), add per key considered
/// exact  bit-identical on every executor, whatever the lanes, threads or order of summation; the
///        running rule depends on the tiles
/// paper  not in the paper, whose budgets are counts; the fixed count is what costs a model that was
///        not fine-tuned most of its quality
template <adaptive_policy Policy = whole_row>
struct adaptive {
    static_assert(!Policy::whole_grains || Policy::when == decision::whole_row,
                  "adaptive: whole grains are cut when the whole row is known");
    static constexpr bool is_running = Policy::when == decision::tile_by_tile;
    static constexpr char const* name = Policy::name;
    static constexpr bool tile_ready = is_running;
    static constexpr bool sorted = true;
    /// Reads weights, so scores must be calibrated logits.
    static constexpr bool weighs = true;

    template <exec::executor_like X, class Score>
    index_t operator()(X& x, score_run<Score> run, row_rule const& rule, segmentation,
                       select_scratch<Score>& scratch,
                       std::span<ranked<Score>> kept) const noexcept {
        index_t const keys = run.size();
        SOFATTN_ASSERT(is_running ? scratch.row != nullptr
                                  : run.first == 0 && keys == rule.visible);
        SOFATTN_ASSERT(run.first + keys <= rule.visible);
        SOFATTN_ASSERT(std::ssize(kept) >= keys);
        if (keys == 0) {
            return 0;
        }
        running_row<Score> fresh;
        running_row<Score>& row = is_running ? *scratch.row : fresh;
        index_t const stay = is_running
                                 ? rule.least_share(run.first + keys) - rule.least_share(run.first)
                                 : rule.at_least;
        if constexpr (exec::on_registers<X> && exec::lane_score<Score>) {
            if constexpr (!Policy::whole_grains) {
                return detail::select_adaptive_on_registers(run, rule, row, stay, scratch.registers,
                                                            kept);
            } else if (rule.at_most == row_rule{}.at_most) {
                return detail::select_grains_on_registers(run, rule, scratch.registers, kept);
            }
        }
        std::uint64_t compares = absorb<X>(run, rule.drop, row);

        index_t competing = 0;
        for (index_t i = 0; i < keys; ++i) {
            ranked<Score> const entry = run.entry(i);
            if (!rule.is_forced(entry.key)) {
                kept[static_cast<std::size_t>(competing++)] = entry;
            }
        }
        index_t const forced = keys - competing;
        auto const entries = kept.first(static_cast<std::size_t>(competing));
        compares += sort_best_first<X>(entries);

        std::uint64_t considered = 0;
        index_t filled = drop_worst<X>(entries, rule, row, stay - forced, considered);

        sort_cost cost;
        cost.compares = compares + considered;
        cost.adds = static_cast<std::uint64_t>(keys) + considered;
        row.kept += filled;
        filled = put_forced<X>(run, rule, forced, kept, filled, cost);
        detail::emit_selection(x, cost);
        if constexpr (X::probe_type::enabled) {
            x.probe(probe::stage::selection, probe::event::exp, static_cast<std::uint64_t>(keys));
        }
        return filled;
    }

private:
    /// Takes a run's weights into the books, which are first turned to a new best score.
    template <class X, class Score>
    static std::uint64_t absorb(score_run<Score> run, drop_rule const& rule,
                                running_row<Score>& row) noexcept {
        using number = typename X::template number<Score>;
        number best(run.entry(0).score);
        for (index_t i = 1; i < run.size(); ++i) {
            number const score(run.entry(i).score);
            best = best < score ? score : best;
        }
        auto const top = static_cast<Score>(best);
        auto compares = static_cast<std::uint64_t>(run.size() - 1);
        compares += row.is_empty ? 0 : 1;
        if (row.is_empty) {
            row.is_empty = false;
            row.top = top;
        } else if (number(row.top) < best) {
            row.rise(rule, top);
        }
        for (index_t i = 0; i < run.size(); ++i) {
            row.mass += weight_scale::weight_at(away(rule, row.top, run.entry(i).score));
        }
        return compares;
    }

    template <class X, class Score>
    static std::uint64_t sort_best_first(std::span<ranked<Score>> entries) noexcept {
        if constexpr (X::probe_type::enabled) {
            return sort_by_network(
                entries, [](auto const& a, auto const& b) { return detail::precedes<X>(a, b); });
        } else {
            std::ranges::sort(entries,
                              [](auto const& a, auto const& b) { return comes_before(a, b); });
            return 0;
        }
    }

    /// Returns how many of the sorted entries stay.
    template <class X, class Score>
    static index_t drop_worst(std::span<ranked<Score>> entries, row_rule const& rule,
                              running_row<Score>& row, index_t least,
                              std::uint64_t& considered) noexcept {
        using number = typename X::template number<Score>;
        Score const reach = search_radius<Score>(rule.radius).below(row.top);
        std::uint64_t const allowance = rule.drop.allowance(row.mass);
        index_t const most = std::max<index_t>(0, rule.at_most - row.kept);
        index_t count = std::ssize(entries);
        while (count > 0) {
            Score const worst = entries[static_cast<std::size_t>(count - 1)].score;
            index_t from = count - 1; // of what goes or stays together
            std::uint64_t after = row.dropped + cost(rule, row.top, worst);
            ++considered;
            if constexpr (Policy::whole_grains) {
                for (; from > 0; --from) {
                    Score const score = entries[static_cast<std::size_t>(from - 1)].score;
                    if (grain(rule, row.top, score) != grain(rule, row.top, worst)) {
                        break;
                    }
                    after += cost(rule, row.top, score);
                    ++considered;
                }
            }
            bool const is_out = Policy::whole_grains ? grain(rule, row.top, worst) > rule.grains()
                                                     : number(worst) < number(reach);
            bool const must_go = is_out || count > most;
            bool const may_go =
                rule.drop.measure != drop_measure::nothing && from >= least && after <= allowance;
            if (!must_go && !may_go) {
                break;
            }
            row.dropped = after;
            count = from;
        }
        return count;
    }

    /// Steps from the top, as the policy measures them.
    template <class Score>
    static std::int32_t away(drop_rule const& rule, Score top, Score score) noexcept {
        if constexpr (Policy::whole_grains) {
            return weight_scale::position_distance(rule.weights.position(top),
                                                   rule.weights.position(score));
        } else {
            return rule.weights.distance(top, score);
        }
    }
    template <class Score>
    static std::uint64_t cost(row_rule const& rule, Score top, Score score) noexcept {
        return rule.drop.cost_at(away(rule.drop, top, score));
    }
    template <class Score>
    static std::int32_t grain(row_rule const& rule, Score top, Score score) noexcept {
        return away(rule.drop, top, score) >> weight_scale::grain_bits;
    }

    template <class X, class Score>
    static index_t put_forced(score_run<Score> run, row_rule const& rule, index_t forced,
                              std::span<ranked<Score>> kept, index_t filled,
                              sort_cost& cost) noexcept {
        for (index_t i = 0; forced > 0 && i < run.size(); ++i) {
            ranked<Score> const entry = run.entry(i);
            if (rule.is_forced(entry.key)) {
                detail::insert_forced<X>(kept, filled++, entry, cost);
            }
        }
        return filled;
    }
};

} // namespace sofattn::sads
