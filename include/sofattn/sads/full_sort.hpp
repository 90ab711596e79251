// SPDX-License-Identifier: MIT
// A sorter for whole rows, as earlier designs use it: the rival of SADS in Fig. 17.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

namespace sofattn::sads {

/// Sorts into the total order with Batcher's odd-even merge network (Knuth 5.2.2, algorithm M),
/// which has the fewest comparators of the regular networks, so the rival is not made worse than
/// it is. Comparators that would touch a wire beyond the row do not exist. Calls `before(a, b)`
/// once per comparator and returns their number.
template <class Entry, class Before>
constexpr std::uint64_t sort_by_network(std::span<Entry> wires, Before before) noexcept {
    std::uint64_t comparators = 0;
    auto const count = wires.size();
    if (count < 2) {
        return comparators;
    }
    std::size_t const top = std::bit_floor(count - 1);
    for (std::size_t p = top; p > 0; p /= 2) {
        std::size_t q = top;
        std::size_t r = 0;
        for (std::size_t distance = p;;) {
            for (std::size_t i = 0; i + distance < count; ++i) {
                if ((i & p) != r) {
                    continue;
                }
                ++comparators;
                if (before(wires[i + distance], wires[i])) {
                    std::swap(wires[i], wires[i + distance]);
                }
            }
            if (q == p) {
                break;
            }
            distance = q - p;
            q /= 2;
            r = p;
        }
    }
    return comparators;
}

} // namespace sofattn::sads
