// SPDX-License-Identifier: MIT
// Discrete-event simulation of engines over a stream of items: cycles, and what they went into.
#pragma once

#include <sofattn/core/error.hpp>
#include <sofattn/core/units.hpp>
#include <sofattn/hw/item_window.hpp>
#include <sofattn/hw/pipeline_graph.hpp>
#include <sofattn/hw/pipeline_repetitions.hpp>
#include <sofattn/hw/pipeline_state.hpp>
#include <sofattn/hw/pipeline_timing.hpp>
#include <sofattn/hw/work.hpp>
#include <sofattn/hw/work_cursor.hpp>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace sofattn::hw {
namespace detail {

/// One run. Time goes from event to event; at each, everything that can happen in the same cycle
/// happens in an order that no result depends on: ends, then items that need no shared resource
/// (those of no cycles end at once and may let others begin), then grants of free resources.
class pipeline_run {
public:
    pipeline_run(pipeline_graph const& graph, work_source source, pipeline_options const& options)
        : graph_(graph), options_(options), stream_(graph, std::move(source)), items_(stream_),
          state_(graph, items_), repetitions_(state_, items_) {}

    [[nodiscard]] pipeline_timing run() {
        for (std::size_t e = 0; e < state_.engines.size(); ++e) {
            mark(e);
        }
        for (;;) {
            settle();
            grant();
            measure_buffers();
            repetitions_.moved_on(
                [&](std::uint64_t earliest) { return options_.fast_forward && !hears(earliest); });
            std::uint64_t const next = next_event();
            if (next == never) {
                break;
            }
            state_.now = next;
            end_what_is_due();
        }
        for (std::size_t e = 0; e < state_.engines.size(); ++e) {
            if (state_.engines[e].item != nullptr) {
                throw_deadlock(e);
            }
        }
        pipeline_timing timing = state_.result(graph_);
        timing.peak_pieces = repetitions_.peak_pieces();
        timing.items_simulated = timing.items - repetitions_.items_skipped();
        return timing;
    }

private:
    static constexpr std::uint64_t never = engine_state::never;

    // --- one item --------------------------------------------------------------------------------

    [[nodiscard]] static std::uint64_t needs_resource(engine const& of, work_item const& item,
                                                      std::size_t e) noexcept {
        if (!of.resource) {
            return 0;
        }
        return item.resource_cycles.empty() ? item.busy_cycles[e] : item.resource_cycles[e];
    }
    [[nodiscard]] static std::uint64_t size_in(work_item const& item, std::size_t b) noexcept {
        return item.output_bytes.empty() ? 0 : item.output_bytes[b];
    }

    /// What an engine that is free waits for; nothing if it can begin, the resource aside.
    [[nodiscard]] std::optional<wait_reason> unmet(engine_state const& self) const noexcept {
        std::uint64_t const index = self.index;
        std::size_t counter = self.first_stall;
        for (std::size_t const b : self.inputs) {
            if (state_.buffers[b].available <= index) {
                return wait_reason{stall_cause::input, graph_.buffers[b].from, counter};
            }
            ++counter;
        }
        for (std::size_t const b : self.outputs) {
            buffer const& out = graph_.buffers[b];
            std::uint64_t const held = index - state_.engines[out.to].index;
            if (held >= out.slots ||
                state_.buffers[b].fill_bytes + size_in(*self.item, b) > out.capacity_bytes) {
                return wait_reason{self.causes[counter - self.first_stall].cause, out.to, counter};
            }
            ++counter;
        }
        return std::nullopt;
    }
    [[nodiscard]] wait_reason taken_by(engine_state const& self,
                                       std::size_t holder) const noexcept {
        std::size_t c = self.inputs.size() + self.outputs.size();
        while (self.causes[c].other != holder) {
            ++c;
        }
        return {stall_cause::resource, holder, self.first_stall + c};
    }

    void wait_for(std::size_t e, std::optional<wait_reason> why) {
        engine_state& self = state_.engines[e];
        if (self.waiting == why) {
            return;
        }
        state_.charge(self);
        hear_stall(e);
        self.waiting = why;
        self.since = state_.now;
        self.stalled_from = state_.now;
    }
    void begin(std::size_t e) {
        engine_state& self = state_.engines[e];
        work_item const& item = *self.item;
        wait_for(e, std::nullopt);
        self.in_line = false;
        self.working = true;
        self.began = state_.now;
        if (!self.started) {
            self.started = true;
            self.first_start = state_.now;
        }
        std::uint64_t const busy = item.busy_cycles[e];
        std::uint64_t const holds = needs_resource(graph_.engines[e], item, e);
        self.ends = state_.now + std::max(busy, holds);
        state_.counters[self.busy] += busy;
        if (holds > 0) {
            resource_state& resource = state_.resources[*graph_.engines[e].resource];
            resource.holder = e;
            resource.held = true;
            resource.free_at = state_.now + holds;
            state_.counters[resource.counter] += holds;
            state_.counters[self.first_stall + self.causes.size() - 1] +=
                holds - std::min(busy, holds);
        }
        for (std::size_t const b : self.outputs) {
            state_.buffers[b].fill_bytes += size_in(item, b);
        }
        moved_ |= bit(e);
    }

    void end(std::size_t e) {
        engine_state& self = state_.engines[e];
        work_item const& item = *self.item;
        hear_work(e);
        self.working = false;
        self.ends = never;
        self.last_end = state_.now;
        for (std::size_t const b : self.inputs) {
            state_.buffers[b].fill_bytes -= size_in(item, b);
            mark(graph_.buffers[b].from);
        }
        std::uint64_t const latency = item.latency_cycles.empty() ? 0 : item.latency_cycles[e];
        delivery const made{std::max({state_.now, self.began + latency, self.last_delivery}),
                            self.index + 1, item.ends_row};
        self.last_delivery = made.cycle;
        if (made.cycle == state_.now) {
            deliver(self, made);
        } else {
            self.leaving.push_back(made);
        }
        self.item = items_.item(++self.index);
        moved_ |= bit(e);
        mark(e);
    }

    void deliver(engine_state const& self, delivery const& made) noexcept {
        for (std::size_t const b : self.outputs) {
            buffer const& out = graph_.buffers[b];
            if (out.ready == hand_over::tile || made.ends_row) {
                state_.buffers[b].available = made.items;
                mark(out.to);
            }
        }
    }

    // --- one cycle -------------------------------------------------------------------------------

    [[nodiscard]] static std::uint64_t bit(std::size_t e) noexcept { return std::uint64_t{1} << e; }
    void mark(std::size_t e) noexcept { marked_ |= bit(e); }

    /// Begins what needs no resource, until nothing more can begin.
    void settle() {
        while (marked_ != 0) {
            auto const e = static_cast<std::size_t>(std::countr_zero(marked_));
            marked_ &= marked_ - 1;
            engine_state& self = state_.engines[e];
            if (self.working || self.in_line || self.item == nullptr) {
                continue;
            }
            std::optional<wait_reason> const why = unmet(self);
            if (why) {
                wait_for(e, why);
            } else if (needs_resource(graph_.engines[e], *self.item, e) > 0) {
                self.in_line = true;
                self.asked = state_.now;
            } else {
                begin(e);
                if (self.ends == state_.now) {
                    end(e);
                }
            }
        }
    }

    /// Gives free resources to who asked first; the others wait for the holder.
    void grant() {
        for (std::size_t r = 0; r < state_.resources.size(); ++r) {
            std::optional<std::size_t> first;
            for (std::size_t e = 0; e < state_.engines.size() && !state_.resources[r].held; ++e) {
                if (is_in_line(e, r) &&
                    (!first || state_.engines[e].asked < state_.engines[*first].asked)) {
                    first = e;
                }
            }
            if (first) {
                begin(*first);
            }
            for (std::size_t e = 0; e < state_.engines.size(); ++e) {
                if (is_in_line(e, r)) {
                    wait_for(e, taken_by(state_.engines[e], state_.resources[r].holder));
                }
            }
        }
    }
    [[nodiscard]] bool is_in_line(std::size_t e, std::size_t r) const noexcept {
        return state_.engines[e].in_line && graph_.engines[e].resource == r;
    }

    /// When all is settled: what enters and leaves in the same cycle was never held.
    void measure_buffers() {
        for (; moved_ != 0; moved_ &= moved_ - 1) {
            engine_state const& self =
                state_.engines[static_cast<std::size_t>(std::countr_zero(moved_))];
            for (std::size_t const b : self.outputs) {
                buffer_timing& peak = state_.buffers[b].peak;
                peak.peak_items = std::max(peak.peak_items, state_.held_items(graph_.buffers[b]));
                peak.peak = bytes(std::max(peak.peak.count(), state_.buffers[b].fill_bytes));
                hear_fill(b);
            }
            for (std::size_t const b : self.inputs) {
                hear_fill(b);
            }
        }
    }
    [[nodiscard]] std::uint64_t next_event() const noexcept {
        std::uint64_t next = never;
        for (engine_state const& self : state_.engines) {
            next = std::min(next, self.ends);
            if (!self.leaving.empty()) {
                next = std::min(next, self.leaving.front().cycle);
            }
        }
        for (resource_state const& r : state_.resources) {
            next = r.held ? std::min(next, r.free_at) : next;
        }
        return next;
    }

    void end_what_is_due() {
        for (resource_state& r : state_.resources) {
            r.held = r.held && r.free_at != state_.now;
        }
        for (std::size_t e = 0; e < state_.engines.size(); ++e) {
            engine_state& self = state_.engines[e];
            while (!self.leaving.empty() && self.leaving.front().cycle == state_.now) {
                deliver(self, self.leaving.front());
                self.leaving.pop_front();
            }
            if (self.ends == state_.now) {
                end(e);
            }
        }
    }

    // --- who is told -----------------------------------------------------------------------------

    [[nodiscard]] bool hears(std::uint64_t item) const noexcept {
        return options_.listener != nullptr && item < options_.heard_items;
    }
    void hear_stall(std::size_t e) {
        engine_state const& self = state_.engines[e];
        std::uint64_t const item = self.index;
        if (self.waiting && self.started && self.stalled_from < state_.now && hears(item)) {
            options_.listener->on_stall(
                e, item,
                {self.waiting->cause, self.waiting->other, cycles(state_.now - self.stalled_from)},
                self.stalled_from, state_.now);
        }
    }
    void hear_work(std::size_t e) {
        engine_state const& self = state_.engines[e];
        std::uint64_t const item = self.index;
        if (!hears(item) || self.began == state_.now) {
            return;
        }
        std::uint64_t const busy = self.began + self.item->busy_cycles[e];
        if (busy > self.began) {
            options_.listener->on_busy(e, item, self.began, busy);
        }
        if (busy < state_.now) {
            options_.listener->on_stall(
                e, item, {stall_cause::memory, e, cycles(state_.now - busy)}, busy, state_.now);
        }
    }
    void hear_fill(std::size_t b) {
        buffer_timing const now{state_.held_items(graph_.buffers[b]),
                                bytes(state_.buffers[b].fill_bytes)};
        if (hears(state_.engines[graph_.buffers[b].to].index) && now != state_.buffers[b].heard) {
            state_.buffers[b].heard = now;
            options_.listener->on_fill(b, state_.now, now.peak_items, now.peak.count());
        }
    }

    [[noreturn]] void throw_deadlock(std::size_t e) const {
        engine_state const& self = state_.engines[e];
        std::string why = "nothing";
        if (self.waiting) {
            why = std::string(name(self.waiting->cause)) + " of engine " +
                  graph_.engines[self.waiting->other].name;
        }
        throw error("pipeline: wait of engine " + graph_.engines[e].name + " at item " +
                        std::to_string(self.index) + " for " + why,
                    "without end",
                    "finite: buffers hold a whole row where a later engine waits for one, and the "
                    "last item ends a row");
    }

    pipeline_graph const& graph_;
    pipeline_options options_;
    work_stream stream_;
    item_window items_;
    pipeline_state state_;
    std::uint64_t marked_ = 0; ///< engines that may be able to begin
    std::uint64_t moved_ = 0;  ///< engines that began or ended something in this cycle
    pipeline_repetitions repetitions_;
};

} // namespace detail

/// Runs the stream through the graph.
///
/// in     graph    engines, buffers, shared resources
/// in     source   pieces of the stream, asked for as engines get there
/// out    cycles, per engine busy, stalls by cause and idle; peaks of buffers; cycles
/// pre    none
/// error  `error` for a bad graph or item, and for a wait that never ends, which it names
/// events none; options.listener hears every interval
/// exact  integers; the same with and without fast-forward, however the stream is cut in pieces
/// paper  the pipeline of Fig. 6 and 11, whose timing rules the text leaves open: pipeline_graph
///        has ours
[[nodiscard]] inline pipeline_timing simulate(pipeline_graph const& graph, work_source source,
                                              pipeline_options const& options = {}) {
    graph.validate();
    return detail::pipeline_run(graph, std::move(source), options).run();
}

[[nodiscard]] inline pipeline_timing simulate(pipeline_graph const& graph, work stream,
                                              pipeline_options const& options = {}) {
    return simulate(graph, source_of(std::move(stream)), options);
}

} // namespace sofattn::hw
