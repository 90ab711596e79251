// SPDX-License-Identifier: MIT
// A pipeline simulated cycle by cycle, as plainly as its rules can be written down, and random
// graphs and streams to try it on.
#pragma once

#include <sofattn/hw/pipeline.hpp>
#include <sofattn/hw/pipeline_graph.hpp>
#include <sofattn/hw/work.hpp>

#include <support/generators.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace sofattn::test {

/// The items of a stream, one after the other.
inline void expand(hw::work const& of, std::vector<hw::work_item>& items) {
    for (std::uint64_t n = 0; n < of.times; ++n) {
        if (of.parts.empty()) {
            items.push_back(of.item);
        }
        for (hw::work const& part : of.parts) {
            expand(part, items);
        }
    }
}

/// What happened, kept whole: begun[engine][item], ended, delivered.
class cycle_by_cycle {
public:
    cycle_by_cycle(hw::pipeline_graph const& graph, std::vector<hw::work_item> items)
        : graph_(graph), items_(std::move(items)), engines_(graph.engines.size()),
          holder_(graph.resources.size()), held_until_(graph.resources.size()) {
        for (std::size_t e = 0; e < engines_.size(); ++e) {
            auto& stalls = engines_[e].stalls;
            for (auto const& b : graph.buffers) {
                if (b.to == e) {
                    stalls.push_back({hw::stall_cause::input, b.from, {}});
                }
            }
            for (auto const& b : graph.buffers) {
                if (b.from == e) {
                    stalls.push_back({graph.engines[b.to].is_port ? hw::stall_cause::memory_port
                                                                  : hw::stall_cause::output,
                                      b.to,
                                      {}});
                }
            }
            auto const shared = graph.engines[e].resource;
            for (std::size_t other = 0; shared && other < engines_.size(); ++other) {
                if (other != e && graph.engines[other].resource == shared) {
                    stalls.push_back({hw::stall_cause::resource, other, {}});
                }
            }
            if (shared) {
                stalls.push_back({hw::stall_cause::memory, e, {}});
            }
        }
        result_.buffers.resize(graph.buffers.size());
        result_.resources_held.resize(graph.resources.size());
    }

    /// Nothing if engines wait for each other for ever.
    [[nodiscard]] std::optional<hw::pipeline_timing> run() {
        for (;; ++now_) {
            for (std::size_t e = 0; e < engines_.size(); ++e) {
                if (engines_[e].working && engines_[e].ends == now_) {
                    end(e);
                }
            }
            for (bool changed = true; changed;) {
                changed = false;
                for (std::size_t e = engines_.size(); e-- > 0;) {
                    if (can_ask(e) && !wants_resource(e)) {
                        begin(e);
                        if (engines_[e].ends == now_) {
                            end(e);
                        }
                        changed = true;
                    }
                }
            }
            if (all_done()) {
                break;
            }
            serve_resources();
            for (std::size_t e = 0; e < engines_.size(); ++e) {
                classify(e);
            }
            for (std::size_t n = 0; n < graph_.buffers.size(); ++n) {
                auto const [count, size] = fill(n, 0);
                auto& peak = result_.buffers[n];
                peak.peak_items = std::max(peak.peak_items, count);
                peak.peak = std::max(peak.peak, bytes(size));
            }
            if (nothing_moves()) {
                return std::nullopt;
            }
        }
        finish();
        return result_;
    }

private:
    struct engine_state {
        std::vector<std::uint64_t> begun, ended, delivered; // [item]
        bool working = false;
        std::uint64_t ends = 0;
        std::optional<std::uint64_t> asked{};
        std::vector<hw::stall> stalls{};
        std::uint64_t busy = 0, before = 0, after = 0;
    };

    [[nodiscard]] std::uint64_t next(std::size_t e) const { return engines_[e].ended.size(); }
    [[nodiscard]] bool finished(std::size_t e) const { return next(e) == items_.size(); }
    [[nodiscard]] hw::work_item const& item(std::size_t e) const { return items_[next(e)]; }
    [[nodiscard]] std::uint64_t hold(std::size_t e) const {
        if (!graph_.engines[e].resource) {
            return 0;
        }
        return item(e).resource_cycles.empty() ? item(e).busy_cycles[e]
                                               : item(e).resource_cycles[e];
    }
    [[nodiscard]] bool wants_resource(std::size_t e) const { return hold(e) > 0; }

    [[nodiscard]] bool input_ready(hw::buffer const& b) const {
        std::uint64_t last = next(b.to);
        while (b.ready == hw::hand_over::row && last < items_.size() && !items_[last].ends_row) {
            ++last;
        }
        auto const& delivered = engines_[b.from].delivered;
        return last < delivered.size() && delivered[last] <= now_;
    }
    /// Items and bytes between begun by the producer and ended by the consumer, `extra` to come.
    [[nodiscard]] std::pair<std::uint64_t, std::uint64_t> fill(std::size_t n,
                                                               std::uint64_t extra) const {
        auto const& b = graph_.buffers[n];
        std::uint64_t const to = engines_[b.from].begun.size() + extra;
        std::uint64_t sum = 0;
        for (std::uint64_t i = next(b.to); i < to; ++i) {
            sum += items_[i].output_bytes.empty() ? 0 : items_[i].output_bytes[n];
        }
        return {to - next(b.to), sum};
    }
    /// Index of the cause in `stalls`; nothing if only the resource may be missing.
    [[nodiscard]] std::optional<std::size_t> first_unmet(std::size_t e) const {
        std::size_t cause = 0;
        for (auto const& b : graph_.buffers) {
            if (b.to == e && !input_ready(b)) {
                return cause;
            }
            cause += b.to == e ? 1 : 0;
        }
        for (std::size_t n = 0; n < graph_.buffers.size(); ++n) {
            auto const& b = graph_.buffers[n];
            if (b.from == e) {
                auto const [count, size] = fill(n, 1);
                if (count > b.slots || size > b.capacity_bytes) {
                    return cause;
                }
                ++cause;
            }
        }
        return std::nullopt;
    }
    [[nodiscard]] bool can_ask(std::size_t e) const {
        return !engines_[e].working && !finished(e) && !first_unmet(e);
    }

    void begin(std::size_t e) {
        auto& state = engines_[e];
        state.begun.push_back(now_);
        state.working = true;
        state.asked.reset();
        state.ends = now_ + std::max(item(e).busy_cycles[e], hold(e));
    }
    void end(std::size_t e) {
        auto& state = engines_[e];
        std::uint64_t made = now_;
        if (!item(e).latency_cycles.empty()) {
            made = std::max(made, state.begun.back() + item(e).latency_cycles[e]);
        }
        if (!state.delivered.empty()) {
            made = std::max(made, state.delivered.back());
        }
        state.delivered.push_back(made);
        state.ended.push_back(now_);
        state.working = false;
    }
    void serve_resources() {
        for (std::size_t e = 0; e < engines_.size(); ++e) {
            if (can_ask(e) && !engines_[e].asked) {
                engines_[e].asked = now_;
            }
        }
        for (std::size_t r = 0; r < holder_.size(); ++r) {
            if (held_until_[r] > now_) {
                continue;
            }
            std::optional<std::size_t> first;
            for (std::size_t e = 0; e < engines_.size(); ++e) {
                if (graph_.engines[e].resource == r && can_ask(e) &&
                    (!first || *engines_[e].asked < *engines_[*first].asked)) {
                    first = e;
                }
            }
            if (first) {
                holder_[r] = *first;
                held_until_[r] = now_ + hold(*first);
                result_.resources_held[r] += cycles(hold(*first));
                begin(*first);
            }
        }
    }
    /// What this cycle went into.
    void classify(std::size_t e) {
        auto& state = engines_[e];
        if (state.working) {
            if (now_ < state.begun.back() + item(e).busy_cycles[e]) {
                ++state.busy;
            } else {
                state.stalls.back().lost += cycles(1);
            }
        } else if (finished(e)) {
            ++state.after;
        } else if (state.begun.empty()) {
            ++state.before;
        } else if (auto const unmet = first_unmet(e)) {
            state.stalls[*unmet].lost += cycles(1);
        } else {
            std::size_t const holder = holder_[*graph_.engines[e].resource];
            for (hw::stall& s : state.stalls) {
                if (s.cause == hw::stall_cause::resource && s.other == holder) {
                    s.lost += cycles(1);
                }
            }
        }
    }

    [[nodiscard]] bool all_done() const {
        for (std::size_t e = 0; e < engines_.size(); ++e) {
            auto const& state = engines_[e];
            if (!finished(e) || (!state.delivered.empty() && state.delivered.back() > now_)) {
                return false;
            }
        }
        return true;
    }
    [[nodiscard]] bool nothing_moves() const {
        bool unfinished = false;
        for (std::size_t e = 0; e < engines_.size(); ++e) {
            auto const& state = engines_[e];
            if (state.working || (!state.delivered.empty() && state.delivered.back() > now_)) {
                return false;
            }
            unfinished = unfinished || !finished(e);
        }
        return unfinished && std::ranges::none_of(held_until_, [&](auto t) { return t > now_; });
    }
    void finish() {
        result_.total = cycles(now_);
        result_.items = items_.size();
        for (std::size_t e = 0; e < engines_.size(); ++e) {
            auto const& state = engines_[e];
            result_.engines.push_back({.name = graph_.engines[e].name,
                                       .items = state.ended.size(),
                                       .busy = cycles(state.busy),
                                       .idle_before = cycles(state.before),
                                       .idle_after = cycles(state.after),
                                       .stalls = state.stalls});
        }
    }

    hw::pipeline_graph const& graph_;
    std::vector<hw::work_item> items_;
    std::vector<engine_state> engines_;
    std::vector<std::size_t> holder_;
    std::vector<std::uint64_t> held_until_;
    std::uint64_t now_ = 0;
    hw::pipeline_timing result_;
};

/// For messages.
[[nodiscard]] inline std::string describe(hw::pipeline_timing const& t) {
    std::string out = "total " + std::to_string(t.total.count());
    for (auto const& e : t.engines) {
        out += "\n" + e.name + " items " + std::to_string(e.items) + " busy " +
               std::to_string(e.busy.count()) + " before " + std::to_string(e.idle_before.count()) +
               " after " + std::to_string(e.idle_after.count());
        for (hw::stall const& s : e.stalls) {
            out += " " + std::string(hw::name(s.cause)) + std::to_string(s.other) + ":" +
                   std::to_string(s.lost.count());
        }
    }
    for (auto const& b : t.buffers) {
        out +=
            "\nbuffer peak " + std::to_string(b.peak_items) + " " + std::to_string(b.peak.count());
    }
    for (cycles const held : t.resources_held) {
        out += "\nheld " + std::to_string(held.count());
    }
    return out;
}

// --- random graphs and streams -------------------------------------------------------------------

/// Up to `most` engines; joins, forks, shared resources, all kinds of buffers.
[[nodiscard]] inline hw::pipeline_graph random_graph(generator& random, std::size_t most = 5,
                                                     bool may_wait_for_rows = true) {
    hw::pipeline_graph graph;
    auto const count = random.integer<std::size_t>(1, most);
    auto const resources = random.integer<std::size_t>(0, 2);
    for (std::size_t r = 0; r < resources; ++r) {
        graph.resources.push_back("r" + std::to_string(r));
    }
    for (std::size_t e = 0; e < count; ++e) {
        graph.engines.push_back({.name = "e" + std::to_string(e)});
        if (resources > 0 && random.chance(0.5)) {
            graph.engines.back().resource = random.integer<std::size_t>(0, resources - 1);
        }
        graph.engines.back().is_port = random.chance(0.2);
    }
    for (std::size_t from = 0; from < count; ++from) {
        for (std::size_t to = from + 1; to < count; ++to) {
            if (!random.chance(to == from + 1 ? 0.8 : 0.2)) {
                continue;
            }
            hw::buffer b{.from = from, .to = to};
            b.slots = random.chance(0.1) ? hw::unbounded : random.integer<std::uint64_t>(1, 4);
            if (random.chance(0.3)) {
                b.capacity_bytes = random.integer<std::uint64_t>(9, 30);
            }
            if (may_wait_for_rows && random.chance(0.25)) {
                b.ready = hw::hand_over::row;
                b.slots = random.chance(0.9) ? b.slots + 8 - (b.slots == hw::unbounded ? 8 : 0) : 3;
            }
            graph.buffers.push_back(b);
        }
    }
    return graph;
}

[[nodiscard]] inline hw::work_item random_item(generator& random, hw::pipeline_graph const& graph) {
    hw::work_item item;
    auto const draw = [&](std::uint64_t most, double zero) {
        return random.chance(zero) ? 0 : random.integer<std::uint64_t>(0, most);
    };
    for (std::size_t e = 0; e < graph.engines.size(); ++e) {
        item.busy_cycles.push_back(draw(7, 0.2));
    }
    if (random.chance(0.5)) {
        for (std::size_t e = 0; e < graph.engines.size(); ++e) {
            item.latency_cycles.push_back(draw(20, 0.3));
        }
    }
    if (random.chance(0.4)) {
        for (std::size_t e = 0; e < graph.engines.size(); ++e) {
            item.resource_cycles.push_back(draw(9, 0.3));
        }
    }
    if (random.chance(0.7)) {
        for (std::size_t b = 0; b < graph.buffers.size(); ++b) {
            item.output_bytes.push_back(draw(9, 0.2));
        }
    }
    item.ends_row = random.chance(0.4);
    return item;
}

/// Nested repetitions, `deep` levels; its last item ends a row.
[[nodiscard]] inline hw::work random_stream(generator& random, hw::pipeline_graph const& graph,
                                            int deep, std::uint64_t most_times) {
    std::vector<hw::work> parts;
    for (auto n = random.integer(1, 3); n > 0; --n) {
        bool const is_leaf = deep == 0 || random.chance(0.4);
        hw::work part = is_leaf ? hw::work::of(random_item(random, graph))
                                : random_stream(random, graph, deep - 1, most_times);
        part.times = random.integer<std::uint64_t>(0, most_times);
        parts.push_back(std::move(part));
    }
    hw::work_item last = random_item(random, graph);
    last.ends_row = true;
    parts.push_back(hw::work::of(std::move(last)));
    return hw::work::all(std::move(parts));
}

} // namespace sofattn::test
