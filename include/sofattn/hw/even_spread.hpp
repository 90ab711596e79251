// SPDX-License-Identifier: MIT
// Two kinds of things in a row, one kind spread evenly among the other, as nested repetitions.
#pragma once

#include <sofattn/core/assert.hpp>
#include <sofattn/core/types.hpp>

#include <utility>
#include <vector>

namespace sofattn::hw {

namespace detail {

/// Largest depth of nesting. A level at most doubles the pieces and divides what is left uneven;
/// after three no place of 130 is more than two ones ahead or behind (test/hw/expand.cpp).
inline constexpr int spread_depth = 3;

/// `from_front`: place t holds a one where ceil((t + 1) ones / n) > ceil(t ones / n), else where
/// the floors differ; the one word is the other backwards. The gaps between the ones take two
/// lengths, and the longer ones are spread in the same way, the other way round: Euclid's
/// algorithm.
template <class Node>
[[nodiscard]] Node spread(index_t ones, index_t n, Node one, Node zero, bool from_front,
                          int depth) {
    auto const repeated = [](Node node, index_t times) {
        node.times *= times;
        return node;
    };
    if (ones == 0 || ones == n) {
        return repeated(ones == 0 ? std::move(zero) : std::move(one), n);
    }
    auto const with_gap = [&](index_t zeros, index_t ones_before = 1) {
        std::vector<Node> parts;
        if (zeros > 0) {
            parts.push_back(repeated(zero, zeros));
        }
        parts.insert(from_front ? parts.begin() : parts.end(), repeated(one, ones_before));
        return Node::all(std::move(parts));
    };
    index_t const zeros = n / ones - 1;
    index_t const longer = n % ones;
    if (longer == 0) {
        return repeated(with_gap(zeros), ones);
    }
    if (depth == 0) {
        return with_gap(n - ones, ones);
    }
    return spread(longer, ones, with_gap(zeros + 1), with_gap(zeros), !from_front, depth - 1);
}

} // namespace detail

/// `n` nodes, of which `ones` are `one` and the others `zero`: place t holds a one where
/// ceil((t + 1) ones / n) > ceil(t ones / n), as segments' budgets do that are differences of
/// rounded shares. Where the pattern takes more than 16 pieces, the finest are put together and
/// only the coarser are spread. Node: `times` multiplies it, Node::all(parts) joins parts in order.
template <class Node>
[[nodiscard]] Node even_spread(index_t ones, index_t n, Node one, Node zero) {
    SOFATTN_ASSERT(n > 0 && ones >= 0 && ones <= n);
    return detail::spread(ones, n, std::move(one), std::move(zero), true, detail::spread_depth);
}

} // namespace sofattn::hw
