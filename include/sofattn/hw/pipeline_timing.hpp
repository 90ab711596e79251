// SPDX-License-Identifier: MIT
// What a pipeline's cycles went into, and who may listen while they pass.
#pragma once

#include <sofattn/core/units.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace sofattn::hw {

/// Why an engine that has begun and has not finished its stream does no work of its own. Of several
/// reasons the first unmet one counts: inputs in the order of the buffers, then outputs, then the
/// resource.
enum class stall_cause {
    input,      ///< a predecessor has not handed over the item (or the last of its row)
    output,     ///< a successor's buffer has no place for it
    resource,   ///< another engine holds the shared resource
    memory,     ///< its own use of the shared resource outlasts its work
    memory_port ///< a memory's ports have not served the items before it
};
inline constexpr std::size_t stall_cause_count = 5;

[[nodiscard]] constexpr std::string_view name(stall_cause cause) noexcept {
    constexpr std::array<std::string_view, stall_cause_count> names{"input", "output", "resource",
                                                                    "memory", "memory port"};
    return names[static_cast<std::size_t>(cause)];
}

struct stall {
    stall_cause cause = stall_cause::input;
    /// Index of the engine to blame: the predecessor, the successor, the holder, or itself.
    std::size_t other = 0;
    cycles lost{};

    friend bool operator==(stall const&, stall const&) = default;
};

/// busy + stalls + idle_before + idle_after = total, for every engine.
struct engine_timing {
    std::string name;
    std::uint64_t items = 0;
    cycles busy{};
    cycles idle_before{}; ///< until it begins its first item
    cycles idle_after{};  ///< from when it has ended its last item
    /// Every cause that the graph allows, also where it cost nothing: the buffers in their order,
    /// the other users of the resource, memory.
    std::vector<stall> stalls;

    [[nodiscard]] cycles stalled() const noexcept {
        cycles sum{};
        for (stall const& s : stalls) {
            sum += s.lost;
        }
        return sum;
    }
    [[nodiscard]] cycles stalled(stall_cause cause) const noexcept {
        cycles sum{};
        for (stall const& s : stalls) {
            sum += s.cause == cause ? s.lost : cycles{};
        }
        return sum;
    }

    friend bool operator==(engine_timing const&, engine_timing const&) = default;
};

/// The most that a buffer held for a cycle: items begun by the producer, not ended by the consumer.
struct buffer_timing {
    std::uint64_t peak_items = 0;
    bytes peak{};

    friend bool operator==(buffer_timing const&, buffer_timing const&) = default;
};

struct pipeline_timing {
    cycles total{}; ///< until the last output is complete
    std::uint64_t items = 0;
    std::uint64_t items_simulated = 0; ///< the others were jumped over
    std::size_t peak_pieces = 0;       ///< of the stream, in memory at a time
    std::vector<engine_timing> engines;
    std::vector<buffer_timing> buffers;
    std::vector<cycles> resources_held;

    /// Equal results, however they were found.
    friend bool operator==(pipeline_timing const& a, pipeline_timing const& b) {
        return a.total == b.total && a.items == b.items && a.engines == b.engines &&
               a.buffers == b.buffers && a.resources_held == b.resources_held;
    }
};

/// Hears what happens, in the order of its end; per engine, intervals follow each other.
class pipeline_listener {
public:
    pipeline_listener() = default;
    pipeline_listener(pipeline_listener const&) = default;
    pipeline_listener(pipeline_listener&&) = default;
    pipeline_listener& operator=(pipeline_listener const&) = default;
    pipeline_listener& operator=(pipeline_listener&&) = default;
    virtual ~pipeline_listener() = default;

    /// The engine was busy with the item in cycles [start, end); never called for no cycles.
    virtual void on_busy(std::size_t /*engine*/, std::uint64_t /*item*/, std::uint64_t /*start*/,
                         std::uint64_t /*end*/) {}
    /// The engine lost cycles [start, end), waiting for the item (memory: while at it).
    virtual void on_stall(std::size_t /*engine*/, std::uint64_t /*item*/, stall /*why*/,
                          std::uint64_t /*start*/, std::uint64_t /*end*/) {}
    /// From this cycle on the buffer holds so much.
    virtual void on_fill(std::size_t /*buffer*/, std::uint64_t /*cycle*/, std::uint64_t /*items*/,
                         std::uint64_t /*bytes*/) {}
};

struct pipeline_options {
    pipeline_listener* listener = nullptr;
    /// The listener hears of items below this number; none are jumped over before.
    std::uint64_t heard_items = unbounded_items;
    /// Jump over repetitions whose outcome is known. The result is the same.
    bool fast_forward = true;

    static constexpr std::uint64_t unbounded_items = ~std::uint64_t{0};
};

} // namespace sofattn::hw
