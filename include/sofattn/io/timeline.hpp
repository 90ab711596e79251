// SPDX-License-Identifier: MIT
// A pipeline's timeline for Perfetto and chrome://tracing: a track per engine, counters beside.
#pragma once

#include <sofattn/core/error.hpp>
#include <sofattn/hw/pipeline_graph.hpp>
#include <sofattn/hw/pipeline_timing.hpp>

#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <ostream>
#include <string>
#include <string_view>
#include <utility>

namespace sofattn::io {

/// A JSON string with its quotes. Bytes from 0x80 pass as they are: UTF-8 in, UTF-8 out.
[[nodiscard]] inline std::string json_string(std::string_view text) {
    constexpr std::string_view digits = "0123456789abcdef";
    std::string out = "\"";
    for (char const c : text) {
        auto const byte = static_cast<unsigned char>(c);
        if (c == '"' || c == '\\') {
            out += {'\\', c};
        } else if (byte < 0x20 || byte == 0x7f) {
            out += "\\u00";
            out += {digits[byte >> 4], digits[byte & 15]};
        } else {
            out += c;
        }
    }
    return out + '"';
}

struct timeline_options {
    std::string title = "pipeline";
    double clock_ns = 1.0; ///< a cycle, rounded to picoseconds
    std::string item_name = "tile";
    /// Bytes that an engine moves to or from DRAM for an item; where given, a counter adds them up.
    std::function<std::uint64_t(std::size_t engine, std::uint64_t item)> dram_bytes{};
};

/// Writes what it hears at once, in the trace_event format (JSON object form), so that memory does
/// not grow with the run. Times are microseconds, as the format wants them. The text is complete
/// after `finish`, which the destructor calls too.
class timeline_writer final : public hw::pipeline_listener {
public:
    /// Throws `error` for a clock that does not tick. `graph` is copied.
    timeline_writer(std::ostream& out, hw::pipeline_graph graph, timeline_options options = {})
        : out_(out), graph_(std::move(graph)), options_(std::move(options)) {
        if (!(options_.clock_ns >= 1e-3 && options_.clock_ns <= 1e9)) {
            throw error("timeline: clock_ns", std::to_string(options_.clock_ns), "in [0.001, 1e9]");
        }
        cycle_ps_ = static_cast<std::uint64_t>(std::llround(options_.clock_ns * 1e3));
        out_ << "{\"displayTimeUnit\":\"ns\",\"traceEvents\":[\n";
        out_ << "{\"ph\":\"M\",\"pid\":1,\"name\":\"process_name\",\"args\":{\"name\":"
             << json_string(options_.title) << "}}";
        for (std::size_t e = 0; e < graph_.engines.size(); ++e) {
            begin("M", e) << ",\"name\":\"thread_name\",\"args\":{\"name\":"
                          << json_string(graph_.engines[e].name) << "}}";
            begin("M", e) << ",\"name\":\"thread_sort_index\",\"args\":{\"sort_index\":" << e
                          << "}}";
        }
    }
    timeline_writer(timeline_writer const&) = delete;
    timeline_writer& operator=(timeline_writer const&) = delete;
    ~timeline_writer() override { finish(); }

    void on_busy(std::size_t engine, std::uint64_t item, std::uint64_t start,
                 std::uint64_t end) override {
        interval(engine, options_.item_name + ' ' + std::to_string(item), "busy", "good", item,
                 start, end);
        if (options_.dram_bytes) {
            std::uint64_t const moved = options_.dram_bytes(engine, item);
            dram_bytes_ += moved;
            if (moved > 0) {
                counter("DRAM bytes", end, dram_bytes_);
            }
        }
    }
    void on_stall(std::size_t engine, std::uint64_t item, hw::stall why, std::uint64_t start,
                  std::uint64_t end) override {
        // Colours of chrome://tracing, the worst for what the memory is to blame for.
        constexpr std::array<std::string_view, hw::stall_cause_count> colours{
            "bad", "yellow", "rail_load", "terrible", "terrible"};
        interval(engine, reason(why), "stall", colours[static_cast<std::size_t>(why.cause)], item,
                 start, end);
    }
    void on_fill(std::size_t buffer, std::uint64_t cycle, std::uint64_t items,
                 std::uint64_t bytes) override {
        begin_counter(graph_.name_of(buffer), cycle)
            << "\"items\":" << items << ",\"bytes\":" << bytes << "}}";
    }
    /// A counter of the caller's.
    void counter(std::string_view name, std::uint64_t cycle, std::uint64_t value) {
        begin_counter(name, cycle) << "\"value\":" << value << "}}";
    }

    /// Nothing may be heard after it.
    void finish() {
        if (!finished_) {
            out_ << "\n]}\n";
            finished_ = true;
        }
    }

    /// What a stall is called: "waits for selection", "waits for room at attention" and so on.
    [[nodiscard]] std::string reason(hw::stall const& why) const {
        std::string const& other = graph_.engines[why.other].name;
        switch (why.cause) {
        case hw::stall_cause::input: return "waits for " + other;
        case hw::stall_cause::output: return "waits for room at " + other;
        case hw::stall_cause::resource: return "waits while " + other + " has " + resource(why);
        case hw::stall_cause::memory_port: return "waits for " + other;
        case hw::stall_cause::memory: break;
        }
        return "waits for its own transfer over " + resource(why);
    }

private:
    [[nodiscard]] std::string resource(hw::stall const& why) const {
        auto const shared = graph_.engines[why.other].resource;
        return shared ? graph_.resources[*shared] : "nothing";
    }
    std::ostream& begin(std::string_view phase, std::size_t engine) {
        return out_ << ",\n{\"ph\":\"" << phase << "\",\"pid\":1,\"tid\":" << engine + 1;
    }
    std::ostream& begin_counter(std::string_view name, std::uint64_t cycle) {
        return out_ << ",\n{\"ph\":\"C\",\"pid\":1,\"name\":" << json_string(name)
                    << ",\"ts\":" << microseconds(cycle) << ",\"args\":{";
    }
    void interval(std::size_t engine, std::string_view name, std::string_view category,
                  std::string_view colour, std::uint64_t item, std::uint64_t start,
                  std::uint64_t end) {
        begin("X", engine) << ",\"name\":" << json_string(name) << ",\"cat\":\"" << category
                           << "\",\"cname\":\"" << colour << "\",\"ts\":" << microseconds(start)
                           << ",\"dur\":" << microseconds(end - start)
                           << ",\"args\":{\"item\":" << item << ",\"cycles\":" << end - start
                           << "}}";
    }
    /// Exact: picoseconds with the point moved.
    [[nodiscard]] std::string microseconds(std::uint64_t cycles) const {
        std::uint64_t const ps = cycles * cycle_ps_;
        std::string fraction = std::to_string(ps % 1'000'000);
        fraction.insert(0, 6 - fraction.size(), '0');
        fraction.erase(fraction.find_last_not_of('0') + 1);
        return std::to_string(ps / 1'000'000) + (fraction.empty() ? "" : '.' + fraction);
    }

    std::ostream& out_;
    hw::pipeline_graph graph_;
    timeline_options options_;
    std::uint64_t cycle_ps_ = 1000;
    std::uint64_t dram_bytes_ = 0;
    bool finished_ = false;
};

} // namespace sofattn::io
