// SPDX-License-Identifier: MIT
// What a running pipeline remembers: engines, buffers, resources, and cycles spent so far.
#pragma once

#include <sofattn/core/units.hpp>
#include <sofattn/hw/item_window.hpp>
#include <sofattn/hw/pipeline_graph.hpp>
#include <sofattn/hw/pipeline_timing.hpp>
#include <sofattn/hw/steady_state.hpp>
#include <sofattn/hw/work.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <utility>
#include <vector>

namespace sofattn::hw::detail {

/// An output that leaves a pipelined engine later than it takes the next item.
struct delivery {
    std::uint64_t cycle = 0;
    std::uint64_t items = 0; ///< of the stream, complete then
    bool ends_row = false;
};

/// Why an engine waits, and where the cycles are counted.
struct wait_reason {
    stall_cause cause = stall_cause::input;
    std::size_t other = 0;
    std::size_t counter = 0;

    friend bool operator==(wait_reason const&, wait_reason const&) = default;
};

struct engine_state {
    static constexpr std::uint64_t never = ~std::uint64_t{0};

    std::uint64_t index = 0;         ///< of the item to be done or being done
    work_item const* item = nullptr; ///< none at the end of the stream
    bool working = false;
    bool started = false;
    bool in_line = false; ///< for the resource, nothing else is missing
    std::optional<wait_reason> waiting{};
    std::uint64_t since = 0;        ///< waiting, and not yet counted
    std::uint64_t stalled_from = 0; ///< waiting, and the listener not yet told
    std::uint64_t began = 0;
    std::uint64_t ends = never;
    std::uint64_t asked = 0; ///< when it came into the line
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
    bool held = false;
    std::uint64_t free_at = 0;
    std::size_t counter = 0;
};

/// Whatever only grows with time is a counter, so that a jump over repetitions is one line.
struct pipeline_state {
    pipeline_state(pipeline_graph const& graph, item_window& items) {
        engines.resize(graph.engines.size());
        for (engine_state& e : engines) {
            e.item = items.item(0);
        }
        buffers.resize(graph.buffers.size());
        resources.resize(graph.resources.size());
        for (std::size_t b = 0; b < graph.buffers.size(); ++b) {
            engines[graph.buffers[b].to].inputs.push_back(b);
            engines[graph.buffers[b].from].outputs.push_back(b);
        }
        std::size_t next = 0;
        for (std::size_t e = 0; e < engines.size(); ++e) {
            engines[e].causes = causes_of(graph, e);
            engines[e].busy = next;
            engines[e].first_stall = next + 1;
            next += 1 + engines[e].causes.size();
        }
        for (resource_state& r : resources) {
            r.counter = next++;
        }
        counters.resize(next);
    }

    /// Items that the producer has begun and the consumer has not ended.
    [[nodiscard]] std::uint64_t held_items(buffer const& of) const noexcept {
        return engines[of.from].index + (engines[of.from].working ? 1 : 0) - engines[of.to].index;
    }

    void charge(engine_state& engine) noexcept {
        if (engine.waiting && engine.started) {
            counters[engine.waiting->counter] += now - engine.since;
        }
        engine.since = now;
    }

    /// Everything that decides the future, relative to now and to the first engine's item.
    void take_snapshot(pipeline_snapshot& into) {
        std::uint64_t const item = engines.front().index;
        auto& out = into.state;
        out.clear();
        for (engine_state& e : engines) {
            charge(e); // waits are counted up to here, so that differences of counters add up
            out.push_back(e.index - item);
            out.push_back((e.working ? 1u : 0u) + (e.started ? 2u : 0u) + (e.in_line ? 4u : 0u));
            out.push_back(e.waiting ? e.waiting->counter + 1 : 0);
            out.push_back(e.working ? e.ends - now : 0);
            out.push_back(e.working ? now - e.began : 0); // latencies count from there
            out.push_back(e.in_line ? now - e.asked : 0);
            out.push_back(std::max(e.last_delivery, now) - now);
            out.push_back(e.leaving.size());
            for (delivery const& d : e.leaving) {
                out.push_back(d.cycle - now);
                out.push_back(d.items - item);
                out.push_back(d.ends_row ? 1 : 0);
            }
        }
        for (buffer_state const& b : buffers) {
            out.push_back(b.available - item);
            out.push_back(b.fill_bytes); // follows from the items; for restore
        }
        for (resource_state const& r : resources) {
            out.push_back(r.held ? r.free_at - now : 0);
            out.push_back(r.held ? r.holder : 0);
        }
        into.counters = counters;
        into.cycle = now;
    }

    /// Makes this the state again that a snapshot's words tell, at the item of the first engine.
    void restore(std::vector<std::uint64_t> const& words, item_window& items) {
        std::uint64_t const item = engines.front().index;
        auto at = words.begin();
        auto const next = [&at] { return *at++; };
        for (engine_state& e : engines) {
            e.index = item + next();
            e.item = items.item(e.index);
            std::uint64_t const flags = next();
            e.working = (flags & 1u) != 0;
            e.started = (flags & 2u) != 0;
            e.in_line = (flags & 4u) != 0;
            std::uint64_t const waits_at = next();
            e.waiting.reset();
            if (waits_at > 0) {
                stall const& cause = e.causes[waits_at - 1 - e.first_stall];
                e.waiting = wait_reason{cause.cause, cause.other, waits_at - 1};
            }
            std::uint64_t const ends_in = next();
            e.ends = e.working ? now + ends_in : engine_state::never;
            e.began = now - next();
            e.asked = now - next();
            e.last_delivery = now + next();
            e.leaving.resize(next());
            for (delivery& d : e.leaving) {
                d.cycle = now + next();
                d.items = item + next();
                d.ends_row = next() != 0;
            }
            e.since = now;
            e.stalled_from = now;
        }
        for (buffer_state& b : buffers) {
            b.available = item + next();
            b.fill_bytes = next();
        }
        for (resource_state& r : resources) {
            std::uint64_t const free_in = next();
            r.held = free_in > 0;
            r.free_at = now + free_in;
            r.holder = next();
        }
    }

    /// Repeats what happened since an earlier snapshot of the same state.
    void repeat(pipeline_jump const& jump) noexcept {
        std::uint64_t const cycles_passed = jump.periods * (now - jump.since->cycle);
        for (std::size_t c = 0; c < counters.size(); ++c) {
            counters[c] += jump.periods * (counters[c] - jump.since->counters[c]);
        }
        std::uint64_t const items_passed = jump.items;
        now += cycles_passed;
        for (engine_state& e : engines) {
            e.index += items_passed;
            for (std::uint64_t* time :
                 {&e.since, &e.stalled_from, &e.began, &e.asked, &e.last_end, &e.last_delivery}) {
                *time += cycles_passed;
            }
            e.ends += e.working ? cycles_passed : 0;
            for (delivery& d : e.leaving) {
                d.cycle += cycles_passed;
                d.items += items_passed;
            }
        }
        for (buffer_state& b : buffers) {
            b.available += items_passed;
        }
        for (resource_state& r : resources) {
            r.free_at += cycles_passed;
        }
    }

    /// At the end of the stream.
    [[nodiscard]] pipeline_timing result(pipeline_graph const& graph) const {
        pipeline_timing timing;
        std::uint64_t total = 0;
        for (engine_state const& e : engines) {
            total = std::max({total, e.last_end, e.last_delivery});
        }
        timing.total = cycles(total);
        timing.items = engines.front().index;
        for (std::size_t n = 0; n < engines.size(); ++n) {
            engine_state const& e = engines[n];
            engine_timing one{.name = graph.engines[n].name,
                              .items = e.index,
                              .busy = cycles(counters[e.busy]),
                              .idle_before = cycles(e.first_start),
                              .idle_after = cycles(total - e.last_end),
                              .stalls = e.causes};
            for (std::size_t c = 0; c < one.stalls.size(); ++c) {
                one.stalls[c].lost = cycles(counters[e.first_stall + c]);
            }
            timing.engines.push_back(std::move(one));
        }
        for (buffer_state const& b : buffers) {
            timing.buffers.push_back(b.peak);
        }
        for (resource_state const& r : resources) {
            timing.resources_held.emplace_back(counters[r.counter]);
        }
        return timing;
    }

    std::uint64_t now = 0;
    std::vector<engine_state> engines;
    std::vector<buffer_state> buffers;
    std::vector<resource_state> resources;
    std::vector<std::uint64_t> counters;

private:
    [[nodiscard]] std::vector<stall> causes_of(pipeline_graph const& graph, std::size_t e) const {
        std::vector<stall> causes;
        for (std::size_t const b : engines[e].inputs) {
            causes.push_back({stall_cause::input, graph.buffers[b].from, {}});
        }
        for (std::size_t const b : engines[e].outputs) {
            causes.push_back({graph.engines[graph.buffers[b].to].is_port ? stall_cause::memory_port
                                                                         : stall_cause::output,
                              graph.buffers[b].to,
                              {}});
        }
        if (auto const shared = graph.engines[e].resource) {
            for (std::size_t other = 0; other < graph.engines.size(); ++other) {
                if (other != e && graph.engines[other].resource == shared) {
                    causes.push_back({stall_cause::resource, other, {}});
                }
            }
            causes.push_back({stall_cause::memory, e, {}});
        }
        return causes;
    }
};

} // namespace sofattn::hw::detail
