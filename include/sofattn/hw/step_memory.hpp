// SPDX-License-Identifier: MIT
// What a pipeline does from one item to the next, remembered by what it follows from.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <unordered_map>
#include <utility>
#include <vector>

namespace sofattn::hw::detail {

/// A step to the next item, and what it adds to whatever only grows.
struct pipeline_step {
    std::uint32_t to = 0; ///< place
    std::uint64_t cycles = 0;
    std::vector<std::uint64_t> counters{};
};

/// One that is simulated.
struct step_begun {
    std::uint32_t place = 0;
    std::uint64_t content = 0; ///< of the item that comes in
    std::uint64_t index = 0;   ///< of the first engine
    std::uint64_t cycle = 0;
    std::vector<std::uint64_t> counters{};
};

/// A place is a state of the pipeline, relative to now, together with the contents of the items in
/// flight: all that the next step depends on, but for the content of the item that comes in.
/// Streams whose rows are nearly alike come through the same places again and again without
/// repeating themselves (rows under a causal mask, each a tile longer than the one before).
class step_memory {
public:
    /// About 3 kB each with nine engines.
    static constexpr std::size_t most_places = 4096;
    /// Longer windows of items in flight, of rows handed over whole, are not worth comparing.
    static constexpr std::uint64_t most_items = 64;

    /// By its state and contents, which tell `items_behind`; a new one if there is room.
    [[nodiscard]] std::optional<std::uint32_t> place_of(std::vector<std::uint64_t> const& key,
                                                        std::uint32_t items_behind) {
        if (auto const found = numbers_.find(key); found != numbers_.end()) {
            return found->second;
        }
        if (keys_.size() == most_places) {
            return std::nullopt;
        }
        auto const number = static_cast<std::uint32_t>(keys_.size());
        keys_.push_back(&numbers_.emplace(key, number).first->first);
        behind_.push_back(items_behind);
        steps_.emplace_back();
        return number;
    }
    /// What place_of was given; it stays where it is.
    [[nodiscard]] std::vector<std::uint64_t> const& key(std::uint32_t place) const {
        return *keys_[place];
    }
    /// By which the slowest engine is behind the first.
    [[nodiscard]] std::uint32_t items_behind(std::uint32_t place) const { return behind_[place]; }
    /// Where an item of that content leads, if that happened before.
    [[nodiscard]] pipeline_step const* find(std::uint32_t from, std::uint64_t content) const {
        for (auto const& [what, step] : steps_[from]) {
            if (what == content) {
                return &step;
            }
        }
        return nullptr;
    }
    void learn(std::uint32_t from, std::uint64_t content, pipeline_step step) {
        if (find(from, content) == nullptr) {
            steps_[from].emplace_back(content, std::move(step));
        }
    }

private:
    struct hash {
        [[nodiscard]] std::size_t operator()(std::vector<std::uint64_t> const& key) const noexcept {
            std::uint64_t h = key.size();
            for (std::uint64_t const word : key) {
                h = (h ^ word) * 0x9e3779b97f4a7c15u;
                h ^= h >> 32;
            }
            return static_cast<std::size_t>(h);
        }
    };

    std::unordered_map<std::vector<std::uint64_t>, std::uint32_t, hash> numbers_; // keys stay put
    std::vector<std::vector<std::uint64_t> const*> keys_;                         // [place]
    std::vector<std::uint32_t> behind_;                                           // [place]
    std::vector<std::vector<std::pair<std::uint64_t, pipeline_step>>> steps_;     // [place]
};

} // namespace sofattn::hw::detail
