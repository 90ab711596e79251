// SPDX-License-Identifier: MIT
// What a pipeline need not simulate: repetitions, and steps that it has made before.
#pragma once

#include <sofattn/hw/item_window.hpp>
#include <sofattn/hw/pipeline_state.hpp>
#include <sofattn/hw/steady_state.hpp>
#include <sofattn/hw/step_memory.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

namespace sofattn::hw::detail {

/// Beside a run, whose state it moves on by whole items of the first engine. Where a stream repeats
/// itself it jumps to the last repetition (steady_state); where it only resembles itself it repeats
/// single steps (step_memory). Both give the cycles that a simulation would.
class pipeline_repetitions {
public:
    pipeline_repetitions(pipeline_state& state, item_window& items)
        : state_(state), items_(items) {}

    [[nodiscard]] std::uint64_t items_skipped() const noexcept { return items_skipped_; }
    [[nodiscard]] std::size_t peak_pieces() const noexcept { return peak_pieces_; }

    /// If the first engine has an item behind it, does what is known to follow.
    /// `may_skip(earliest)` says whether all items from that on may pass unheard.
    template <class MaySkip>
    void moved_on(MaySkip may_skip) {
        std::optional<std::uint32_t> place;
        bool is_replayed = false;
        std::uint64_t earliest = 0; // as long as nothing is replayed
        std::uint64_t latest = 0;
        while (state_.engines.front().index != first_index_) {
            first_index_ = state_.engines.front().index;
            if (is_replayed) {
                earliest = first_index_ - memory_.items_behind(*place);
            } else {
                earliest = latest = first_index_;
                for (engine_state const& self : state_.engines) {
                    earliest = std::min(earliest, self.index);
                    latest = std::max(latest, self.index);
                }
            }
            items_.forget_before(earliest);
            if (!may_skip(earliest)) {
                return;
            }
            if (!is_replayed) {
                peak_pieces_ = std::max(peak_pieces_, items_.programs_held());
                place = arrive(earliest, latest);
            }
            // At equal places the window's cursor stands equally far ahead.
            (void)items_.item(first_index_ + 1);
            jump(earliest, place);
            if (place && take_known_step(place)) {
                is_replayed = true;
            } else if (is_replayed) {
                state_.restore(memory_.key(*place), items_);
            }
        }
    }

private:
    /// The place that the simulation has come to, and the lesson of how; none where it is not
    /// remembered. Engines that have not begun yet still have to learn when they do.
    [[nodiscard]] std::optional<std::uint32_t> arrive(std::uint64_t earliest,
                                                      std::uint64_t latest) {
        auto const left = std::exchange(departure_, std::nullopt);
        if (latest != first_index_ || latest - earliest > step_memory::most_items ||
            items_.item(latest + 1) == nullptr ||
            !std::ranges::all_of(state_.engines, [](auto const& e) { return e.started; })) {
            return std::nullopt;
        }
        state_.take_snapshot(snapshot_);
        items_.append_contents(snapshot_.state);
        auto const place =
            memory_.place_of(snapshot_.state, static_cast<std::uint32_t>(latest - earliest));
        if (place && left && left->index + 1 == first_index_) {
            pipeline_step step{.to = *place, .cycles = state_.now - left->cycle};
            for (std::size_t c = 0; c < state_.counters.size(); ++c) {
                step.counters.push_back(state_.counters[c] - left->counters[c]);
            }
            memory_.learn(left->place, left->content, std::move(step));
        }
        return place;
    }

    /// Over repetitions, if this state was met before in the same one.
    void jump(std::uint64_t earliest, std::optional<std::uint32_t> place) {
        if (!steady_.at_boundary(items_.next())) {
            return;
        }
        if (place) { // as good as the state, and shorter
            snapshot_.state.assign({~std::uint64_t{0}, *place});
            snapshot_.counters = state_.counters;
            snapshot_.cycle = state_.now;
        } else {
            state_.take_snapshot(snapshot_);
            snapshot_.state.push_back(items_.next().index() - first_index_);
        }
        if (auto const by = steady_.find(items_.next(), earliest, snapshot_)) {
            state_.repeat(*by);
            items_skipped_ += by->items;
            items_.skip(by->depth, by->repetitions);
            first_index_ = state_.engines.front().index;
            steady_.jumped(*by);
        }
    }

    /// Makes the step to the next item if its outcome is known; else notes where it begins. Engines
    /// know their items only then, until they are restored.
    [[nodiscard]] bool take_known_step(std::optional<std::uint32_t>& place) {
        if (items_.item(first_index_ + 1) == nullptr) {
            return false;
        }
        std::uint64_t const content = items_.content(first_index_ + 1);
        pipeline_step const* step = memory_.find(*place, content);
        if (step == nullptr) {
            departure_ = {*place, content, first_index_, state_.now, state_.counters};
            return false;
        }
        state_.now += step->cycles;
        for (std::size_t c = 0; c < state_.counters.size(); ++c) {
            state_.counters[c] += step->counters[c];
        }
        ++state_.engines.front().index;
        ++items_skipped_;
        place = step->to;
        return true;
    }

    pipeline_state& state_;
    item_window& items_;
    std::uint64_t first_index_ = 0;
    std::uint64_t items_skipped_ = 0;
    std::size_t peak_pieces_ = 0;
    steady_state steady_;
    pipeline_snapshot snapshot_;
    step_memory memory_;
    std::optional<step_begun> departure_;
};

} // namespace sofattn::hw::detail
