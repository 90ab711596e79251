// SPDX-License-Identifier: MIT
// Engines, the buffers between them and what they share.
#pragma once

#include <sofattn/core/error.hpp>
#include <sofattn/hw/work.hpp>

#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <vector>

namespace sofattn::hw {

inline constexpr std::uint64_t unbounded = std::numeric_limits<std::uint64_t>::max();

/// When what one engine made is there for the next one.
enum class hand_over {
    tile, ///< each item when it is complete (SOFA)
    row   ///< a row block's items together, when the last one is complete (earlier designs)
};

struct engine {
    std::string name;
    /// Index of the resource that it shares with other engines.
    std::optional<std::size_t> resource{};
    /// The ports of a memory, busy with what an item moves through them. Who waits for room before
    /// them waits for a `memory_port`.
    bool is_port = false;

    friend bool operator==(engine const&, engine const&) = default;
};

/// Memory between two engines. The producer takes an item's place when it begins the item, the
/// consumer gives it back when it is no longer busy with it; so 2 slots are a double buffer, and
/// with 1 the engines take turns.
struct buffer {
    std::size_t from = 0; ///< index of the producer
    std::size_t to = 0;   ///< index of the consumer, greater than the producer's
    std::uint64_t slots = 2;
    std::uint64_t capacity_bytes = unbounded;
    hand_over ready = hand_over::tile;

    friend bool operator==(buffer const&, buffer const&) = default;
};

/// Any acyclic graph: engines stand in topological order. An engine without incoming buffers is fed
/// at once. A resource (an array used for two purposes, a memory port) serves one engine at a time,
/// first come first served; who asks in the same cycle is served in the order of the engines.
/// Paper: Fig. 11 has a chain; forks, joins and shared arrays are what its text describes.
struct pipeline_graph {
    static constexpr std::size_t max_engines = 64;

    std::vector<engine> engines{};
    std::vector<buffer> buffers{};
    std::vector<std::string> resources{};

    /// Throws `error` for a graph that nothing can run on.
    void validate() const {
        if (engines.empty() || engines.size() > max_engines) {
            throw error("pipeline: number of engines", std::to_string(engines.size()),
                        "from 1 to " + std::to_string(max_engines));
        }
        for (engine const& e : engines) {
            if (e.resource && *e.resource >= resources.size()) {
                throw error("pipeline: shared resource of engine " + e.name,
                            std::to_string(*e.resource),
                            "below the number of resources, " + std::to_string(resources.size()));
            }
        }
        for (std::size_t b = 0; b < buffers.size(); ++b) {
            buffer const& one = buffers[b];
            if (one.from >= engines.size() || one.to >= engines.size() || one.from >= one.to) {
                throw error("pipeline: engines joined by buffer " + std::to_string(b),
                            std::to_string(one.from) + " to " + std::to_string(one.to),
                            "ascending, below " + std::to_string(engines.size()));
            }
            if (one.slots == 0 || one.capacity_bytes == 0) {
                throw error("pipeline: " + std::string(one.slots == 0 ? "slots" : "bytes") +
                                " of the buffer from " + name_of(b),
                            "0", "at least 1");
            }
        }
    }

    /// Throws `error` for an item of the wrong shape, or one that some buffer can never hold.
    void validate(work_item const& item) const {
        check_length("busy cycles", item.busy_cycles.size(), engines.size(), false);
        check_length("latencies", item.latency_cycles.size(), engines.size(), true);
        check_length("resource cycles", item.resource_cycles.size(), engines.size(), true);
        check_length("bytes", item.output_bytes.size(), buffers.size(), true);
        for (std::size_t b = 0; b < item.output_bytes.size(); ++b) {
            if (item.output_bytes[b] > buffers[b].capacity_bytes) {
                throw error("pipeline: bytes of an item in the buffer from " + name_of(b),
                            std::to_string(item.output_bytes[b]),
                            "at most its capacity, " + std::to_string(buffers[b].capacity_bytes));
            }
        }
    }

    /// "from to to", for messages and legends.
    [[nodiscard]] std::string name_of(std::size_t b) const {
        return engines[buffers[b].from].name + " to " + engines[buffers[b].to].name;
    }

    friend bool operator==(pipeline_graph const&, pipeline_graph const&) = default;

private:
    static void check_length(char const* what, std::size_t found, std::size_t wanted,
                             bool may_lack) {
        if (found != wanted && !(may_lack && found == 0)) {
            throw error(std::string("pipeline: number of an item's ") + what, std::to_string(found),
                        (may_lack ? "0 or " : "") + std::to_string(wanted));
        }
    }
};

} // namespace sofattn::hw
