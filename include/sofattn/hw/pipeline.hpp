// SPDX-License-Identifier: MIT
// Discrete-event simulation of engines over a stream of items: cycles, and what they went into.
#pragma once

#include <sofattn/core/error.hpp>
#include <sofattn/core/units.hpp>
#include <sofattn/hw/pipeline_graph.hpp>
#include <sofattn/hw/pipeline_timing.hpp>
#include <sofattn/hw/steady_state.hpp>
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
        : graph_(graph), options_(options), stream_(graph, std::move(source)) {
        std::size_t const engines = graph.engines.size();
        states_.reserve(engines);
        for (std::size_t e = 0; e < engines; ++e) {
            states_.emplace_back(stream_);
        }
        buffers_.resize(graph.buffers.size());
        resources_.resize(graph.resources.size());
        for (std::size_t b = 0; b < graph.buffers.size(); ++b) {
            states_[graph.buffers[b].to].inputs.push_back(b);
            states_[graph.buffers[b].from].outputs.push_back(b);
        }
        for (std::size_t e = 0; e < engines; ++e) {
            lay_out_counters(e);
        }
        counters_.resize(next_counter_);
    }

    [[nodiscard]] pipeline_timing run() {
        for (std::size_t e = 0; e < states_.size(); ++e) {
            mark(e);
        }
        for (;;) {
            settle();
            grant();
            measure_buffers();
            if (states_.front().cursor.index() != first_index_) {
                moved_on();
            }
            std::uint64_t const next = next_event();
            if (next == never) {
                break;
            }
            now_ = next;
            end_what_is_due();
        }
        for (std::size_t e = 0; e < states_.size(); ++e) {
            if (states_[e].cursor.item() != nullptr) {
                throw_deadlock(e);
            }
        }
        return result();
    }

    /// Of the stream, the most at a time: what a run needs memory for.
    [[nodiscard]] std::size_t peak_programs() const noexcept { return peak_programs_; }

private:
    static constexpr std::uint64_t never = ~std::uint64_t{0};

    /// Outputs that leave a pipelined engine later than it takes the next item.
    struct delivery {
        std::uint64_t cycle = 0;
        std::uint64_t items = 0; ///< of the stream, complete then
        bool ends_row = false;
    };
    struct reason {
        stall_cause cause = stall_cause::input;
        std::size_t other = 0;
        std::size_t counter = 0;

        friend bool operator==(reason const&, reason const&) = default;
    };
    struct engine_state {
        explicit engine_state(work_stream& stream) : cursor(stream) {}

        work_cursor cursor;
        bool working = false;
        bool started = false;
        bool waits_for_resource = false;
        std::optional<reason> waiting{}; ///< since `since`
        std::uint64_t since = 0;
        std::uint64_t stalled_from = 0; ///< the listener's `since`
        std::uint64_t began = 0;
        std::uint64_t ends = never;
        std::uint64_t asked = 0; ///< when it first waited for the resource only
        std::uint64_t first_start = 0;
        std::uint64_t last_end = 0;
        std::uint64_t last_delivery = 0;
        std::deque<delivery> leaving{};
        std::vector<std::size_t> inputs{};  ///< buffers
        std::vector<std::size_t> outputs{}; ///< buffers
        std::size_t busy = 0;               ///< counter
        std::size_t first_stall = 0;        ///< counter: inputs, outputs, sharers, memory
        std::vector<stall> causes{};        ///< in the order of the counters
    };
    struct buffer_state {
        std::uint64_t available = 0; ///< items handed over to the consumer
        std::uint64_t fill_bytes = 0;
        buffer_timing peak{};
        buffer_timing heard{}; ///< what the listener was told last
    };
    struct resource_state {
        std::size_t holder = 0;
        std::uint64_t free_at = 0; ///< held before
        bool held = false;
        std::size_t counter = 0;
    };

    // --- set-up and result -----------------------------------------------------------------------

    void lay_out_counters(std::size_t e) {
        engine_state& state = states_[e];
        state.busy = next_counter_++;
        state.first_stall = next_counter_;
        for (std::size_t const b : state.inputs) {
            state.causes.push_back({stall_cause::input, graph_.buffers[b].from, {}});
        }
        for (std::size_t const b : state.outputs) {
            state.causes.push_back({stall_cause::output, graph_.buffers[b].to, {}});
        }
        if (auto const shared = graph_.engines[e].resource) {
            for (std::size_t other = 0; other < states_.size(); ++other) {
                if (other != e && graph_.engines[other].resource == shared) {
                    state.causes.push_back({stall_cause::resource, other, {}});
                }
            }
            state.causes.push_back({stall_cause::memory, e, {}});
        }
        next_counter_ += state.causes.size();
        if (e + 1 == states_.size()) {
            for (resource_state& r : resources_) {
                r.counter = next_counter_++;
            }
        }
    }

    [[nodiscard]] pipeline_timing result() const {
        pipeline_timing timing;
        std::uint64_t total = 0;
        for (engine_state const& state : states_) {
            total = std::max({total, state.last_end, state.last_delivery});
        }
        timing.total = cycles(total);
        timing.items = states_.front().cursor.index();
        timing.items_simulated = timing.items - items_skipped_;
        for (std::size_t e = 0; e < states_.size(); ++e) {
            engine_state const& state = states_[e];
            engine_timing one{.name = graph_.engines[e].name,
                              .items = state.cursor.index(),
                              .busy = cycles(counters_[state.busy]),
                              .idle_before = cycles(state.first_start),
                              .idle_after = cycles(total - state.last_end),
                              .stalls = state.causes};
            for (std::size_t c = 0; c < one.stalls.size(); ++c) {
                one.stalls[c].lost = cycles(counters_[state.first_stall + c]);
            }
            timing.engines.push_back(std::move(one));
        }
        for (buffer_state const& b : buffers_) {
            timing.buffers.push_back(b.peak);
        }
        for (resource_state const& r : resources_) {
            timing.resources_held.emplace_back(counters_[r.counter]);
        }
        return timing;
    }

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
    [[nodiscard]] std::optional<reason> unmet(engine_state const& state) const noexcept {
        std::uint64_t const index = state.cursor.index();
        std::size_t counter = state.first_stall;
        for (std::size_t const b : state.inputs) {
            if (buffers_[b].available <= index) {
                return reason{stall_cause::input, graph_.buffers[b].from, counter};
            }
            ++counter;
        }
        for (std::size_t const b : state.outputs) {
            buffer const& out = graph_.buffers[b];
            std::uint64_t const held = index - states_[out.to].cursor.index();
            if (held >= out.slots ||
                buffers_[b].fill_bytes + size_in(*state.cursor.item(), b) > out.capacity_bytes) {
                return reason{stall_cause::output, out.to, counter};
            }
            ++counter;
        }
        return std::nullopt;
    }
    [[nodiscard]] reason taken_by(engine_state const& state, std::size_t holder) const noexcept {
        std::size_t c = state.inputs.size() + state.outputs.size();
        while (state.causes[c].other != holder) {
            ++c;
        }
        return {stall_cause::resource, holder, state.first_stall + c};
    }

    void wait_for(std::size_t e, std::optional<reason> why) {
        engine_state& state = states_[e];
        if (state.waiting == why) {
            return;
        }
        charge(state);
        hear_stall(e);
        state.waiting = why;
        state.since = now_;
        state.stalled_from = now_;
    }
    void charge(engine_state& state) noexcept {
        if (state.waiting && state.started) {
            counters_[state.waiting->counter] += now_ - state.since;
        }
        state.since = now_;
    }

    void begin(std::size_t e) {
        engine_state& state = states_[e];
        work_item const& item = *state.cursor.item();
        wait_for(e, std::nullopt);
        state.waits_for_resource = false;
        state.working = true;
        state.began = now_;
        if (!state.started) {
            state.started = true;
            state.first_start = now_;
        }
        std::uint64_t const busy = item.busy_cycles[e];
        std::uint64_t const holds = needs_resource(graph_.engines[e], item, e);
        state.ends = now_ + std::max(busy, holds);
        counters_[state.busy] += busy;
        if (holds > 0) {
            resource_state& resource = resources_[*graph_.engines[e].resource];
            resource.holder = e;
            resource.held = true;
            resource.free_at = now_ + holds;
            counters_[resource.counter] += holds;
            counters_[state.first_stall + state.causes.size() - 1] += holds - std::min(busy, holds);
        }
        for (std::size_t const b : state.outputs) {
            buffers_[b].fill_bytes += size_in(item, b);
        }
        moved_ |= bit(e);
    }

    void end(std::size_t e) {
        engine_state& state = states_[e];
        work_item const& item = *state.cursor.item();
        hear_work(e);
        state.working = false;
        state.ends = never;
        state.last_end = now_;
        for (std::size_t const b : state.inputs) {
            buffers_[b].fill_bytes -= size_in(item, b);
            mark(graph_.buffers[b].from);
        }
        std::uint64_t const latency = item.latency_cycles.empty() ? 0 : item.latency_cycles[e];
        delivery const made{std::max({now_, state.began + latency, state.last_delivery}),
                            state.cursor.index() + 1, item.ends_row};
        state.last_delivery = made.cycle;
        if (made.cycle == now_) {
            deliver(state, made);
        } else {
            state.leaving.push_back(made);
        }
        state.cursor.advance(stream_);
        moved_ |= bit(e);
        mark(e);
    }

    void deliver(engine_state const& state, delivery const& made) noexcept {
        for (std::size_t const b : state.outputs) {
            buffer const& out = graph_.buffers[b];
            if (out.ready == hand_over::tile || made.ends_row) {
                buffers_[b].available = made.items;
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
            engine_state& state = states_[e];
            if (state.working || state.waits_for_resource || state.cursor.item() == nullptr) {
                continue;
            }
            std::optional<reason> const why = unmet(state);
            if (why) {
                wait_for(e, why);
            } else if (needs_resource(graph_.engines[e], *state.cursor.item(), e) > 0) {
                state.waits_for_resource = true;
                state.asked = now_;
            } else {
                begin(e);
                if (state.ends == now_) {
                    end(e);
                }
            }
        }
    }

    /// Gives free resources to who asked first; the others wait for the holder.
    void grant() {
        for (std::size_t r = 0; r < resources_.size(); ++r) {
            std::optional<std::size_t> first;
            for (std::size_t e = 0; e < states_.size() && !resources_[r].held; ++e) {
                if (is_in_line(e, r) && (!first || states_[e].asked < states_[*first].asked)) {
                    first = e;
                }
            }
            if (first) {
                begin(*first);
            }
            for (std::size_t e = 0; e < states_.size(); ++e) {
                if (is_in_line(e, r)) {
                    wait_for(e, taken_by(states_[e], resources_[r].holder));
                }
            }
        }
    }
    [[nodiscard]] bool is_in_line(std::size_t e, std::size_t r) const noexcept {
        return states_[e].waits_for_resource && graph_.engines[e].resource == r;
    }

    /// When all is settled: what enters and leaves in the same cycle was never held.
    void measure_buffers() {
        for (; moved_ != 0; moved_ &= moved_ - 1) {
            engine_state const& state = states_[static_cast<std::size_t>(std::countr_zero(moved_))];
            for (std::size_t const b : state.outputs) {
                buffer_timing& peak = buffers_[b].peak;
                peak.peak_items = std::max(peak.peak_items, held_by(b));
                peak.peak = std::max(peak.peak, bytes(buffers_[b].fill_bytes));
                hear_fill(b);
            }
            for (std::size_t const b : state.inputs) {
                hear_fill(b);
            }
        }
    }
    [[nodiscard]] std::uint64_t held_by(std::size_t b) const noexcept {
        engine_state const& from = states_[graph_.buffers[b].from];
        return from.cursor.index() + (from.working ? 1 : 0) -
               states_[graph_.buffers[b].to].cursor.index();
    }

    [[nodiscard]] std::uint64_t next_event() const noexcept {
        std::uint64_t next = never;
        for (engine_state const& state : states_) {
            next = std::min(next, state.ends);
            if (!state.leaving.empty()) {
                next = std::min(next, state.leaving.front().cycle);
            }
        }
        for (resource_state const& r : resources_) {
            next = r.held ? std::min(next, r.free_at) : next;
        }
        return next;
    }

    void end_what_is_due() {
        for (resource_state& r : resources_) {
            r.held = r.held && r.free_at != now_;
        }
        for (std::size_t e = 0; e < states_.size(); ++e) {
            engine_state& state = states_[e];
            while (!state.leaving.empty() && state.leaving.front().cycle == now_) {
                deliver(state, state.leaving.front());
                state.leaving.pop_front();
            }
            if (state.ends == now_) {
                end(e);
            }
        }
    }

    // --- repetitions -----------------------------------------------------------------------------

    void moved_on() {
        first_index_ = states_.front().cursor.index();
        std::uint64_t earliest = first_index_;
        std::uint64_t latest = first_index_;
        std::uint64_t program = states_.front().cursor.program();
        for (engine_state const& state : states_) {
            earliest = std::min(earliest, state.cursor.index());
            latest = std::max(latest, state.cursor.index());
            program = std::min(program, state.cursor.program());
        }
        peak_programs_ = std::max(peak_programs_, stream_.programs_held());
        stream_.forget_before(program);
        bool const is_heard = options_.listener != nullptr && earliest < options_.heard_items;
        if (!options_.fast_forward || is_heard || !steady_.at_boundary(states_.front().cursor)) {
            return;
        }
        take_snapshot();
        auto const jump = steady_.find(states_.front().cursor, earliest, latest, snapshot_);
        if (!jump) {
            return;
        }
        std::uint64_t const passed = jump->periods * (now_ - jump->since->cycle);
        for (std::size_t c = 0; c < counters_.size(); ++c) {
            counters_[c] += jump->periods * (counters_[c] - jump->since->counters[c]);
        }
        now_ += passed;
        std::uint64_t const from = states_.front().cursor.index();
        for (engine_state& state : states_) {
            state.cursor.skip(jump->depth, jump->repetitions);
        }
        first_index_ = states_.front().cursor.index();
        shift(passed, first_index_ - from);
        items_skipped_ += first_index_ - from;
        steady_.jumped(*jump);
    }

    void shift(std::uint64_t by_cycles, std::uint64_t by_items) noexcept {
        for (engine_state& state : states_) {
            for (std::uint64_t* time : {&state.since, &state.stalled_from, &state.began,
                                        &state.asked, &state.last_end, &state.last_delivery}) {
                *time += by_cycles;
            }
            state.ends += state.working ? by_cycles : 0;
            for (delivery& d : state.leaving) {
                d.cycle += by_cycles;
                d.items += by_items;
            }
        }
        for (buffer_state& b : buffers_) {
            b.available += by_items;
        }
        for (resource_state& r : resources_) {
            r.free_at += by_cycles;
        }
    }

    /// Everything that decides the future, relative to now and to the first engine's item.
    void take_snapshot() {
        snapshot_.cycle = now_;
        auto& out = snapshot_.state;
        out.clear();
        for (engine_state& state : states_) {
            charge(state); // what waits on is charged up to here, so that counters add up
            out.push_back(state.cursor.index() - first_index_);
            out.push_back((state.working ? 1u : 0u) + (state.started ? 2u : 0u) +
                          (state.waits_for_resource ? 4u : 0u));
            out.push_back(state.waiting ? state.waiting->counter + 1 : 0);
            out.push_back(state.working ? state.ends - now_ : 0);
            out.push_back(state.working ? now_ - state.began : 0); // latencies count from there
            out.push_back(state.waits_for_resource ? now_ - state.asked : 0);
            out.push_back(std::max(state.last_delivery, now_) - now_);
            out.push_back(state.leaving.size());
            for (delivery const& d : state.leaving) {
                out.push_back(d.cycle - now_);
                out.push_back(d.items - first_index_);
                out.push_back(d.ends_row ? 1 : 0);
            }
        }
        for (buffer_state const& b : buffers_) {
            out.push_back(b.available - first_index_);
        }
        for (resource_state const& r : resources_) {
            out.push_back(r.held ? r.free_at - now_ : 0);
            out.push_back(r.held ? r.holder : 0);
        }
        snapshot_.counters = counters_;
    }

    // --- who is told -----------------------------------------------------------------------------

    [[nodiscard]] bool hears(std::uint64_t item) const noexcept {
        return options_.listener != nullptr && item < options_.heard_items;
    }
    void hear_stall(std::size_t e) {
        engine_state const& state = states_[e];
        std::uint64_t const item = state.cursor.index();
        if (state.waiting && state.started && state.stalled_from < now_ && hears(item)) {
            options_.listener->on_stall(
                e, item,
                {state.waiting->cause, state.waiting->other, cycles(now_ - state.stalled_from)},
                state.stalled_from, now_);
        }
    }
    void hear_work(std::size_t e) {
        engine_state const& state = states_[e];
        std::uint64_t const item = state.cursor.index();
        if (!hears(item) || state.began == now_) {
            return;
        }
        std::uint64_t const busy = state.began + state.cursor.item()->busy_cycles[e];
        if (busy > state.began) {
            options_.listener->on_busy(e, item, state.began, busy);
        }
        if (busy < now_) {
            options_.listener->on_stall(e, item, {stall_cause::memory, e, cycles(now_ - busy)},
                                        busy, now_);
        }
    }
    void hear_fill(std::size_t b) {
        buffer_timing const now{held_by(b), bytes(buffers_[b].fill_bytes)};
        if (hears(states_[graph_.buffers[b].to].cursor.index()) && now != buffers_[b].heard) {
            buffers_[b].heard = now;
            options_.listener->on_fill(b, now_, now.peak_items, now.peak.count());
        }
    }

    [[noreturn]] void throw_deadlock(std::size_t e) const {
        engine_state const& state = states_[e];
        std::string why = "nothing";
        if (state.waiting) {
            why = std::string(name(state.waiting->cause)) + " of engine " +
                  graph_.engines[state.waiting->other].name;
        }
        throw error("pipeline: wait of engine " + graph_.engines[e].name + " at item " +
                        std::to_string(state.cursor.index()) + " for " + why,
                    "without end",
                    "finite: buffers hold a whole row where a later engine waits for one, and the "
                    "last item ends a row");
    }

    pipeline_graph const& graph_;
    pipeline_options options_;
    work_stream stream_;
    std::vector<engine_state> states_;
    std::vector<buffer_state> buffers_;
    std::vector<resource_state> resources_;
    std::size_t next_counter_ = 0;
    std::vector<std::uint64_t> counters_;
    std::uint64_t marked_ = 0; ///< engines that may be able to begin
    std::uint64_t moved_ = 0;  ///< engines that began or ended something in this cycle
    std::uint64_t now_ = 0;
    std::uint64_t first_index_ = 0;
    std::uint64_t items_skipped_ = 0;
    std::size_t peak_programs_ = 0;
    steady_state steady_;
    pipeline_snapshot snapshot_;
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
