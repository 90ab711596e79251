// SPDX-License-Identifier: MIT
// The 16-to-4 sorting network of a SADS core, paper section IV-C and Fig. 13.
#pragma once

#include <sofattn/core/order.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <utility>

namespace sofattn::sads {

/// 12 new entries and the 4 best so far go in, the 4 best come out, every cycle.
inline constexpr std::size_t network_inputs = 16;
inline constexpr std::size_t network_outputs = 4;
inline constexpr std::size_t network_new_inputs = network_inputs - network_outputs;

/// Orders two wires: the better entry goes to `better`.
struct comparator {
    std::uint8_t better;
    std::uint8_t worse;
};

namespace detail {

/// Four groups of four are sorted (5 comparators each); then the best four of two groups are found
/// twice over: the first half-cleaner of a bitonic merge keeps the better half, which is bitonic
/// and is sorted by two more layers. What a half-cleaner puts aside is never ordered: these are the
/// comparators that the paper's core saves against a full 16-input sorter (80).
consteval auto build_network() {
    std::array<comparator, 44> list{};
    std::size_t used = 0;
    auto const add = [&](std::size_t better, std::size_t worse) {
        list[used++] = {static_cast<std::uint8_t>(better), static_cast<std::uint8_t>(worse)};
    };
    auto const sort_bitonic = [&](std::size_t g) {
        add(g, g + 2);
        add(g + 1, g + 3);
        add(g, g + 1);
        add(g + 2, g + 3);
    };
    auto const best_of_two = [&](std::size_t a, std::size_t b) {
        for (std::size_t i = 0; i < 4; ++i) {
            add(a + i, b + 3 - i);
        }
        sort_bitonic(a);
    };
    for (std::size_t g = 0; g < network_inputs; g += 4) {
        add(g, g + 1);
        add(g + 2, g + 3);
        add(g, g + 2);
        add(g + 1, g + 3);
        add(g + 1, g + 2);
    }
    best_of_two(0, 4);
    best_of_two(8, 12);
    best_of_two(0, 8);
    return list;
}

} // namespace detail

/// In order of application; a printer can draw the network from it.
inline constexpr auto network_16_to_4 = detail::build_network();

/// Runs the network on `wires`: the four best, best first, end on wires 0 to 3. Better is
/// `comes_before`; one call of it per comparator, whatever the data.
template <class Entry>
constexpr void best_four(std::array<Entry, network_inputs>& wires) noexcept {
    for (comparator const c : network_16_to_4) {
        if (comes_before(wires[c.worse], wires[c.better])) {
            std::swap(wires[c.worse], wires[c.better]);
        }
    }
}

} // namespace sofattn::sads
