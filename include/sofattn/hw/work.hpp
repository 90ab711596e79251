// SPDX-License-Identifier: MIT
// What a pipeline is given to do: items in order, and repetitions of them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <utility>
#include <vector>

namespace sofattn::hw {

/// One item of the stream, a tile say. Every engine takes every item, in order; one with nothing to
/// do for it takes 0 cycles.
struct work_item {
    /// [engine] cycles until the engine can begin the next item.
    std::vector<std::uint64_t> busy_cycles{};
    /// [engine] cycles from the beginning until the output is complete; no less than the engine is
    /// occupied, and no sooner than the item before. Empty: as long as it is occupied.
    std::vector<std::uint64_t> latency_cycles{};
    /// [engine] cycles, from the beginning, for which the engine holds its shared resource; none
    /// needs none. Empty: as long as it is busy.
    std::vector<std::uint64_t> resource_cycles{};
    /// [buffer] bytes that the item takes in each buffer. Empty: none.
    std::vector<std::uint64_t> output_bytes{};
    /// The last item of a row block, for which a row-ready buffer waits.
    bool ends_row = false;

    friend bool operator==(work_item const&, work_item const&) = default;
};

/// A piece of a stream: an item, or parts in order; `times` over. Nesting says what repeats (equal
/// tiles in a row, equal rows in a head, heads), and whatever repeats is fast-forwarded.
struct work {
    std::uint64_t times = 1; ///< none is allowed: no work
    work_item item{};        ///< read where there are no parts
    std::vector<work> parts{};

    [[nodiscard]] static work of(work_item item, std::uint64_t times = 1) {
        return {.times = times, .item = std::move(item), .parts = {}};
    }
    [[nodiscard]] static work all(std::vector<work> parts, std::uint64_t times = 1) {
        // An empty list would be read as an item.
        return {.times = parts.empty() ? 0 : times, .item = {}, .parts = std::move(parts)};
    }

    friend bool operator==(work const&, work const&) = default;
};

/// Called for the next piece when an engine gets that far; empty at the end. Memory stays with the
/// pieces between the slowest engine and the first.
using work_source = std::function<std::optional<work>()>;

/// The pieces of `of`, one.
[[nodiscard]] inline work_source source_of(work of) {
    return [next = std::optional<work>(std::move(of))]() mutable {
        return std::exchange(next, std::nullopt);
    };
}

} // namespace sofattn::hw
