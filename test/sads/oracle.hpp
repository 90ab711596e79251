// SPDX-License-Identifier: MIT
// What the selectors must select, said again without their code: sort, cut, count.
#pragma once

#include <sofattn/core/order.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/sads/budget.hpp>
#include <sofattn/sads/candidates.hpp>

#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace sofattn::test {

/// score >= best - radius. Integers in exact arithmetic; floating-point scores in their own, whose
/// rounding is part of the contract.
template <class Score>
bool within(Score best, Score score, double radius) {
    if constexpr (std::integral<Score>) {
        auto const gap = static_cast<std::uint64_t>(best) - static_cast<std::uint64_t>(score);
        return radius >= 0x1p62 || gap <= static_cast<std::uint64_t>(radius);
    } else {
        return std::isinf(radius) || score >= best - static_cast<Score>(radius);
    }
}

template <class Score>
void sort_in_total_order(std::vector<ranked<Score>>& entries) {
    std::ranges::stable_sort(entries, [](auto const& a, auto const& b) { return a.key < b.key; });
    std::ranges::stable_sort(entries,
                             [](auto const& a, auto const& b) { return a.score > b.score; });
}

/// The best `wanted` of the entries within the radius of the best of all, best first.
template <class Score>
std::vector<ranked<Score>> best_within(std::vector<ranked<Score>> entries, index_t wanted,
                                       double radius) {
    sort_in_total_order(entries);
    std::vector<ranked<Score>> best;
    for (auto const& entry : entries) {
        if (std::ssize(best) < wanted && within(entries.front().score, entry.score, radius)) {
            best.push_back(entry);
        }
    }
    return best;
}

/// The entries of a row with key 0 first.
template <class Score>
std::vector<ranked<Score>> entries_of(std::vector<Score> const& scores) {
    std::vector<ranked<Score>> entries;
    for (Score score : scores) {
        entries.push_back({score, static_cast<key_id>(entries.size())});
    }
    return entries;
}

/// The contract of a segment: forced entries stay and count against `budget`, the others compete.
template <class Score>
std::vector<ranked<Score>> expected_of_segment(std::vector<ranked<Score>> const& segment,
                                               sads::row_rule const& rule, index_t budget) {
    std::vector<ranked<Score>> forced;
    std::vector<ranked<Score>> competing;
    for (auto const& entry : segment) {
        index_t const to_window_end = rule.visible - rule.after_window - entry.key;
        bool const stays =
            entry.key < rule.sinks || (to_window_end > 0 && to_window_end <= rule.window);
        (stays ? forced : competing).push_back(entry);
    }
    std::vector<ranked<Score>> kept =
        best_within(competing, budget - std::ssize(forced), rule.radius);
    kept.insert(kept.end(), forced.begin(), forced.end());
    sort_in_total_order(kept);
    return kept;
}

/// The contract of a row: segments one after the other, each with its part of rule.keep, which is
/// dealt out so that after t keys ceil(t * keep / visible) have been allowed.
template <class Score>
std::vector<ranked<Score>> expected_of_row(std::vector<Score> const& scores,
                                           sads::row_rule const& rule, sads::segmentation cut,
                                           bool strided) {
    std::vector<std::vector<ranked<Score>>> segments(
        static_cast<std::size_t>(rule.visible / cut.length + 1));
    index_t const used = (rule.visible + cut.length - 1) / cut.length;
    for (auto const& entry : entries_of(scores)) {
        index_t const s = strided ? entry.key % used : entry.key / cut.length;
        segments[static_cast<std::size_t>(s)].push_back(entry);
    }
    std::vector<ranked<Score>> kept;
    index_t seen = 0;
    index_t allowed = 0;
    for (auto const& segment : segments) {
        index_t budget = 0;
        seen += std::ssize(segment);
        while (allowed * rule.visible < seen * rule.keep) {
            ++allowed;
            ++budget;
        }
        auto const part = expected_of_segment(segment, rule, budget);
        kept.insert(kept.end(), part.begin(), part.end());
    }
    return kept;
}

/// Runs a selector on a run of a row that starts at `first`.
template <class Selector, class X, class Score>
std::vector<ranked<Score>> select(X& x, Selector selector, std::span<Score const> scores,
                                  sads::row_rule const& rule, sads::segmentation cut,
                                  index_t first = 0) {
    auto const keys = std::ssize(scores);
    sads::select_scratch<Score> scratch(keys);
    std::vector<ranked<Score>> kept(static_cast<std::size_t>(keys));
    index_t const count = selector(x, sads::score_run<Score>{scores, static_cast<key_id>(first)},
                                   rule, cut, scratch, std::span(kept));
    kept.resize(static_cast<std::size_t>(count));
    return kept;
}

template <class Selector, class X, class Score>
std::vector<ranked<Score>> select(X& x, Selector selector, std::vector<Score> const& scores,
                                  sads::row_rule const& rule, sads::segmentation cut) {
    return select(x, selector, std::span<Score const>(scores), rule, cut);
}

/// Keys in ascending order.
template <class Score>
std::vector<key_id> keys_of(std::vector<ranked<Score>> const& entries) {
    std::vector<key_id> keys;
    for (auto const& entry : entries) {
        keys.push_back(entry.key);
    }
    std::ranges::sort(keys);
    return keys;
}

} // namespace sofattn::test
