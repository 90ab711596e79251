// SPDX-License-Identifier: MIT
// What a pipeline need not simulate: repetitions, and steps that it has made before.
#pragma once

#include <sofattn/hw/pipeline_state.hpp>
#include <sofattn/hw/steady_state.hpp>
#include <sofattn/hw/step_memory.hpp>
#include <sofattn/hw/work_cursor.hpp>

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
    pipeline_repetitions(pipeline_state& state, work_stream& stream)
        : state_(state), stream_(stream), coming_(stream) {}

    [[nodiscard]] std::uint64_t items_skipped() const noexcept { return items_skipped_; }
    [[nodiscard]] std::size_t peak_pieces() const noexcept { return peak_pieces_; }

    /// The first engine's cursor was advanced.
    void advance() { coming_.advance(stream_); }

    /// If the first engine has an item behind it, does what is known to follow. `may_skip(earliest)`
    /// says whether all items from that on may pass unheard.
    template <class MaySkip>
    void moved_on(MaySkip may_skip) {
        std::optional<std::uint32_t> place;
        bool is_replayed = false;
        while (state_.engines.front().cursor.index() != first_index_) {
            first_index_ = state_.engines.front().cursor.index();
            std::uint64_t earliest = first_index_;
            std::uint64_t latest = first_index_;
            std::uint64_t program = state_.engines.front().cursor.program();
            for (engine_state const& self : state_.engines) {
                earliest = std::min(earliest, self.cursor.index());
                latest = std::max(latest, self.cursor.index());
                program = std::min(program, self.cursor.program());
            }
            peak_pieces_ = std::max(peak_pieces_, stream_.programs_held());
            stream_.forget_before(program);
            coming_.forget_before(earliest);
            if (!may_skip(earliest)) {
                return;
            }
            if (!is_replayed) {
                place = arrive(earliest, latest);
            }
            jump(earliest, latest, place);
            if (place && take_known_step(place)) {
                is_replayed = true;
            } else if (is_replayed) {
                state_.restore(memory_.key(*place));
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
            coming_.is_over() ||
            !std::ranges::all_of(state_.engines, [](auto const& e) { return e.started; })) {
            return std::nullopt;
        }
        state_.take_snapshot(snapshot_);
        coming_.append_contents(snapshot_.state);
        auto const place = memory_.place_of(snapshot_.state);
        if (place && left && left->index + 1 == first_index_) {
            pipeline_step step{.to = *place, .cycles = state_.now - left->cycle};
            for (std::size_t c = 0; c < state_.counters.size(); ++c) {
                step.counters.push_back(state_.counters[c] - left->counters[c]);
            }
            for (std::size_t e = 0; e < state_.engines.size(); ++e) {
                step.items.push_back(
                    static_cast<std::uint32_t>(state_.engines[e].cursor.index() - left->items[e]));
            }
            memory_.learn(left->place, left->content, std::move(step));
        }
        return place;
    }

    /// Over repetitions, if this state was met before in the same one.
    void jump(std::uint64_t earliest, std::uint64_t latest, std::optional<std::uint32_t> place) {
        if (!steady_.at_boundary(state_.engines.front().cursor)) {
            return;
        }
        if (place) { // as good as the state, and shorter
            snapshot_.state.assign({~std::uint64_t{0}, *place});
            snapshot_.counters = state_.counters;
            snapshot_.cycle = state_.now;
        } else {
            state_.take_snapshot(snapshot_);
        }
        // The item to come is inside as well.
        auto const by =
            steady_.find(state_.engines.front().cursor, earliest, latest + 1, snapshot_);
        if (by) {
            std::uint64_t const items = state_.repeat(*by);
            items_skipped_ += items;
            coming_.skip(by->depth, by->repetitions);
            first_index_ = state_.engines.front().cursor.index();
            steady_.jumped(*by);
        }
    }

    /// Makes the step to the next item if its outcome is known; else notes where it begins. Engines
    /// but for their cursors are behind then, until they are restored.
    [[nodiscard]] bool take_known_step(std::optional<std::uint32_t>& place) {
        if (coming_.is_over()) {
            return false;
        }
        pipeline_step const* step = memory_.find(*place, coming_.content());
        if (step == nullptr) {
            departure_ = {*place, coming_.content(), first_index_, state_.now, state_.counters, {}};
            for (engine_state const& e : state_.engines) {
                departure_->items.push_back(e.cursor.index());
            }
            return false;
        }
        state_.now += step->cycles;
        for (std::size_t c = 0; c < state_.counters.size(); ++c) {
            state_.counters[c] += step->counters[c];
        }
        coming_.advance(stream_);
        for (std::size_t e = 0; e < state_.engines.size(); ++e) {
            for (std::uint32_t n = 0; n < step->items[e]; ++n) {
                state_.engines[e].cursor.advance(stream_);
            }
        }
        ++items_skipped_;
        place = step->to;
        return true;
    }

    pipeline_state& state_;
    work_stream& stream_;
    std::uint64_t first_index_ = 0;
    std::uint64_t items_skipped_ = 0;
    std::size_t peak_pieces_ = 0;
    steady_state steady_;
    pipeline_snapshot snapshot_;
    items_in_flight coming_;
    step_memory memory_;
    std::optional<step_begun> departure_;
};

} // namespace sofattn::hw::detail
