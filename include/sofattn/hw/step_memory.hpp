// SPDX-License-Identifier: MIT
// What a pipeline does from one item of its first engine to the next, remembered by what it follows from.
#pragma once

#include <sofattn/hw/work_cursor.hpp>

#include <cstddef>
#include <cstdint>
#include <deque>
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
    std::vector<std::uint32_t> items{}; ///< [engine] by which it moves on
};

/// One that is simulated.
struct step_begun {
    std::uint32_t place = 0;
    std::uint64_t content = 0; ///< of the item that comes in
    std::uint64_t index = 0;   ///< of the first engine
    std::uint64_t cycle = 0;
    std::vector<std::uint64_t> counters{};
    std::vector<std::uint64_t> items{}; ///< [engine] index
};

/// Contents of the items from the slowest engine's to the first engine's, and of the one after.
class items_in_flight {
public:
    explicit items_in_flight(work_stream& stream) : next_(stream) { advance(stream); }

    /// The first engine moves on.
    void advance(work_stream& stream) {
        if (next_.item() != nullptr) {
            contents_.push_back(next_.content());
            next_.advance(stream);
        }
    }
    void forget_before(std::uint64_t item) {
        while (next_.index() - contents_.size() < item && !contents_.empty()) {
            contents_.pop_front();
        }
    }
    /// All engines move by whole repetitions, to equal items.
    void skip(std::size_t depth, std::uint64_t repetitions) noexcept {
        next_.skip(depth, repetitions);
    }

    /// Whether there is no item after the first engine's.
    [[nodiscard]] bool is_over() const noexcept { return next_.item() == nullptr; }
    [[nodiscard]] std::uint64_t content() const noexcept { return next_.content(); }
    void append_contents(std::vector<std::uint64_t>& to) const {
        to.insert(to.end(), contents_.begin(), contents_.end());
    }

private:
    work_cursor next_;
    std::deque<std::uint64_t> contents_;
};

/// A place is a state of the pipeline, relative to now, together with the contents of the items in
/// flight: all that the next step depends on, but for the content of the item that comes in. Streams
/// whose rows are nearly alike come through the same places again and again without repeating
/// themselves (rows under a causal mask, each a tile longer than the one before).
class step_memory {
public:
    /// About 3 kB each with nine engines.
    static constexpr std::size_t most_places = 4096;
    /// Longer windows of items in flight, of rows handed over whole, are not worth comparing.
    static constexpr std::uint64_t most_items = 64;

    /// By its state and contents; a new one if there is room.
    [[nodiscard]] std::optional<std::uint32_t> place_of(std::vector<std::uint64_t> const& key) {
        if (auto const found = numbers_.find(key); found != numbers_.end()) {
            return found->second;
        }
        if (keys_.size() == most_places) {
            return std::nullopt;
        }
        auto const number = static_cast<std::uint32_t>(keys_.size());
        keys_.push_back(&numbers_.emplace(key, number).first->first);
        steps_.emplace_back();
        return number;
    }
    /// What place_of was given; it stays where it is.
    [[nodiscard]] std::vector<std::uint64_t> const& key(std::uint32_t place) const {
        return *keys_[place];
    }
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
    std::vector<std::vector<std::pair<std::uint64_t, pipeline_step>>> steps_;     // [place]
};

} // namespace sofattn::hw::detail
