// SPDX-License-Identifier: MIT
// A pipeline's timing as figures: where each engine's cycles went, and its first items.
#pragma once

#include <sofattn/hw/pipeline_graph.hpp>
#include <sofattn/hw/pipeline_timing.hpp>
#include <sofattn/io/charts.hpp>
#include <sofattn/io/figure.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace sofattn::io {

/// What a cycle may go into, in the order of hues.
inline constexpr std::array<std::string_view, 7> cycle_kinds{
    "busy", "input not ready", "no room for output", "resource taken", "memory", "memory port",
    "idle"};

[[nodiscard]] constexpr std::size_t cycle_kind(hw::stall_cause cause) noexcept {
    return 1 + static_cast<std::size_t>(cause);
}

/// A bar per engine, of shares of the total.
[[nodiscard]] inline figure utilisation_figure(hw::pipeline_timing const& of,
                                               std::string title = "Where the cycles went") {
    stacked_bars chart{.title = std::move(title) + ": " +
                                short_number(static_cast<double>(of.total.count())) + " cycles",
                       .unit = "cycles",
                       .parts = {cycle_kinds.begin(), cycle_kinds.end()},
                       .as_shares = true};
    for (hw::engine_timing const& e : of.engines) {
        bar one{e.name, std::vector<double>(cycle_kinds.size())};
        one.parts.front() = static_cast<double>(e.busy.count());
        for (hw::stall const& s : e.stalls) {
            one.parts[cycle_kind(s.cause)] += static_cast<double>(s.lost.count());
        }
        one.parts.back() = static_cast<double>((e.idle_before + e.idle_after).count());
        chart.bars.push_back(std::move(one));
    }
    return draw(chart);
}

/// Keeps what it hears of the first items, for a timeline. Give `pipeline_options::heard_items`
/// the number that a reader can tell apart, a few dozen.
class timeline_recorder final : public hw::pipeline_listener {
public:
    explicit timeline_recorder(hw::pipeline_graph const& graph) {
        for (hw::engine const& e : graph.engines) {
            chart_.tracks.push_back({e.name, {}});
        }
        chart_.kinds = {cycle_kinds.begin(), cycle_kinds.end() - 1};
    }

    void on_busy(std::size_t engine, std::uint64_t item, std::uint64_t start,
                 std::uint64_t end) override {
        add(engine, 0, std::to_string(item), start, end);
    }
    void on_stall(std::size_t engine, std::uint64_t item, hw::stall why, std::uint64_t start,
                  std::uint64_t end) override {
        add(engine, cycle_kind(why.cause),
            "item " + std::to_string(item) + ", " + chart_.tracks[why.other].name, start, end);
    }

    [[nodiscard]] figure drawn(std::string title, std::string unit = "cycles") const {
        timeline_chart chart = chart_;
        chart.title = std::move(title);
        chart.unit = std::move(unit);
        return draw(chart);
    }

private:
    void add(std::size_t engine, std::size_t kind, std::string label, std::uint64_t start,
             std::uint64_t end) {
        chart_.tracks[engine].spans.push_back(
            {static_cast<double>(start), static_cast<double>(end), kind, std::move(label)});
    }

    timeline_chart chart_;
};

} // namespace sofattn::io
