// SPDX-License-Identifier: MIT
// What all selectors share: runs of scores, scratch, forced keys beside competing ones.
#pragma once

#include <sofattn/core/order.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/exec/executor.hpp>
#include <sofattn/probe/event.hpp>
#include <sofattn/sads/budget.hpp>
#include <sofattn/sads/drop_rule.hpp>
#include <sofattn/sads/register_buffers.hpp>
#include <sofattn/sads/softmax_weight.hpp>
#include <sofattn/sads/sort_core.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

namespace sofattn::sads {

/// Predicted scores of keys first, first + 1, ... of one row; all of them visible to the row.
template <class Score>
struct score_run {
    std::span<Score const> scores; // [key]
    key_id first = 0;

    [[nodiscard]] index_t size() const noexcept { return std::ssize(scores); }
    [[nodiscard]] ranked<Score> entry(index_t at) const noexcept {
        return {scores[static_cast<std::size_t>(at)], static_cast<key_id>(first + at)};
    }
};

/// How a row is cut: `length` keys per contiguous segment, or as many strided segments.
struct segmentation {
    index_t length = 1; ///< keys per segment, the paper's Bc

    /// Segments of a row. Counted from the keys the row sees, not from the sequence: a short causal
    /// row cut into as many strided segments as the longest would be selected by position.
    [[nodiscard]] index_t count(index_t visible) const noexcept {
        return std::max<index_t>(1, ceil_div(visible, length));
    }
};

/// A row between two tiles, for selectors that decide on a tile with what they know so far. Weights
/// are relative to the best score yet (softmax_weight.hpp).
template <class Score>
struct running_row {
    bool is_empty = true;
    Score top{};               ///< best score yet
    std::uint64_t mass = 0;    ///< sum of all weights yet, rounded down
    std::uint64_t dropped = 0; ///< cost of what was dropped, rounded up
    index_t kept = 0;          ///< keys, beside forced ones

    /// Turns the books to a new best score.
    void rise(drop_rule const& drop, Score best) noexcept {
        mass = scaled_down<weight_scale::unit_bits>(mass, drop.weights.weight(best, top));
        dropped = dropped == 0
                      ? 0
                      : scaled_down<weight_scale::unit_bits>(dropped, drop.cost(best, top)) + 1;
        top = best;
    }
};

/// Buffers of a selector, made once for the longest run.
template <class Score>
struct select_scratch {
    select_scratch() = default;
    explicit select_scratch(index_t keys)
        : competing(static_cast<std::size_t>(keys)), taken(static_cast<std::size_t>(keys)),
          registers(keys) {}

    std::vector<ranked<Score>> competing;
    std::vector<char> taken;
    register_buffers<Score> registers;
    /// What the earlier tiles of the row left; set per row where a selector remembers.
    running_row<Score>* row = nullptr;
};

namespace detail {

/// `comes_before` on the numbers an executor computes with.
template <class X, class Score>
[[nodiscard]] constexpr bool precedes(ranked<Score> const& a, ranked<Score> const& b) noexcept {
    using number = typename X::template number<Score>;
    return comes_before(ranked<number>{number(a.score), a.key},
                        ranked<number>{number(b.score), b.key});
}

/// Puts a forced entry in its place among `count` kept ones.
template <class X, class Score>
void insert_forced(std::span<ranked<Score>> kept, index_t count, ranked<Score> entry,
                   sort_cost& cost) noexcept {
    index_t at = count;
    for (; at > 0; --at) {
        ranked<Score> const& before = kept[static_cast<std::size_t>(at - 1)];
        ++cost.compares;
        if (!precedes<X>(entry, before)) {
            break;
        }
        kept[static_cast<std::size_t>(at)] = before;
    }
    kept[static_cast<std::size_t>(at)] = entry;
}

/// Which keys of a run form a segment: `length` of them from `first` on, `stride` apart.
struct segment_shape {
    index_t first = 0;
    index_t stride = 1;
    index_t length = 0;
};

/// Keeps the forced keys of a segment and, with `sorter`, the best of the others while the
/// budget lasts; returns how many, in the total order.
/// sorter(competing, taken, wanted, out, cost) returns how many it found.
template <class X, class Score, class Sorter>
index_t select_segment(score_run<Score> run, segment_shape shape, row_rule const& rule,
                       index_t budget, select_scratch<Score>& scratch,
                       std::span<ranked<Score>> kept, sort_cost& cost, Sorter sorter) noexcept {
    std::size_t competing = 0;
    for (index_t i = 0; i < shape.length; ++i) {
        ranked<Score> const entry = run.entry(shape.first + i * shape.stride);
        if (!rule.is_forced(entry.key)) {
            scratch.competing[competing++] = entry;
        }
    }
    index_t const forced = shape.length - static_cast<index_t>(competing);
    index_t const wanted = std::clamp<index_t>(budget - forced, 0, static_cast<index_t>(competing));
    index_t filled = 0;
    if (wanted > 0) {
        filled = sorter(std::span(scratch.competing).first(competing),
                        std::span(scratch.taken).first(competing),
                        kept.first(static_cast<std::size_t>(wanted)), cost);
    }
    for (index_t i = 0; forced > 0 && i < shape.length; ++i) {
        ranked<Score> const entry = run.entry(shape.first + i * shape.stride);
        if (rule.is_forced(entry.key)) {
            insert_forced<X>(kept, filled++, entry, cost);
        }
    }
    return filled;
}

/// The best of `entries` into `out`, by a partial sort: what every sorter's result is. Only where
/// nobody listens, since no circuit works like this.
template <class Score>
index_t partial_sort_into(std::span<ranked<Score>> entries, std::span<ranked<Score>> out,
                          double radius) noexcept {
    std::partial_sort(entries.begin(), entries.begin() + std::ssize(out), entries.end(),
                      [](auto const& a, auto const& b) { return comes_before(a, b); });
    Score const least = search_radius<Score>(radius).below(entries.front().score);
    std::size_t filled = 0;
    while (filled < out.size() && !(entries[filled].score < least)) {
        out[filled] = entries[filled];
        ++filled;
    }
    return static_cast<index_t>(filled);
}

template <class X>
void emit_selection(X& x, sort_cost const& cost) {
    if constexpr (X::probe_type::enabled) {
        x.probe(probe::stage::selection, probe::event::compare, cost.compares);
        x.probe(probe::stage::selection, probe::event::clipped, cost.clipped);
        x.probe(probe::stage::selection, probe::event::add, cost.adds);
    }
}

} // namespace detail
} // namespace sofattn::sads
