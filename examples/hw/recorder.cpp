// SPDX-License-Identifier: MIT
#include "hw/recorder.hpp"

#include <sofattn/hw/tile_model.hpp>
#include <sofattn/io/file.hpp>
#include <sofattn/io/pipeline_figures.hpp>
#include <sofattn/io/timeline.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <exception>
#include <optional>
#include <ostream>
#include <streambuf>

namespace sofattn::hw {

namespace {

/// A stream into an atomic_file. What the file throws is kept for `check`: who writes may be a
/// destructor.
class file_buffer final : public std::streambuf {
public:
    explicit file_buffer(io::atomic_file& to) : to_(to) {
        setp(text_.data(), text_.data() + text_.size());
    }
    /// All that was written is in the file, or it throws.
    void check() {
        flush();
        if (failed_) {
            std::rethrow_exception(failed_);
        }
    }

protected:
    int_type overflow(int_type c) override {
        if (!flush()) {
            return traits_type::eof();
        }
        if (!traits_type::eq_int_type(c, traits_type::eof())) {
            *pptr() = traits_type::to_char_type(c);
            pbump(1);
        }
        return traits_type::not_eof(c);
    }

private:
    bool flush() {
        if (!failed_) {
            try {
                to_.write(pbase(), static_cast<std::size_t>(pptr() - pbase()));
            } catch (...) {
                failed_ = std::current_exception();
            }
        }
        setp(text_.data(), text_.data() + text_.size());
        return !failed_;
    }

    io::atomic_file& to_;
    std::exception_ptr failed_;
    std::array<char, std::size_t{1} << 16> text_{};
};

struct trace_file {
    io::atomic_file file;
    file_buffer buffer{file};
    std::ostream stream{&buffer};
    io::timeline_writer writer;
    std::uint64_t tiles;

    trace_file(machine const& m, pipeline_graph const& graph, std::filesystem::path const& path,
               std::uint64_t most)
        : file(path), writer(stream, graph,
                             {.title = m.base_name, .clock_ns = 1e3 / m.process.clock_megahertz}),
          tiles(most) {}
};

/// To the first tiles' recorder and to the trace, as far as each wants to hear.
class listeners final : public pipeline_listener {
public:
    listeners(io::timeline_recorder& first, std::optional<trace_file>& trace, dram_replay* replay)
        : first_(first), trace_(trace), replay_(replay) {}

    [[nodiscard]] std::uint64_t heard_items() const {
        return std::max({run_recorder::page_tiles, trace_ ? trace_->tiles : 0,
                         replay_ != nullptr ? replay_->tiles() : 0});
    }

    void on_busy(std::size_t engine, std::uint64_t item, std::uint64_t start,
                 std::uint64_t end) override {
        if (item < run_recorder::page_tiles) {
            first_.on_busy(engine, item, start, end);
        }
        if (trace_ && item < trace_->tiles) {
            trace_->writer.on_busy(engine, item, start, end);
        }
        if (replay_ != nullptr) {
            replay_->on_busy(engine, item, start, end);
        }
    }
    void on_stall(std::size_t engine, std::uint64_t item, stall why, std::uint64_t start,
                  std::uint64_t end) override {
        if (item < run_recorder::page_tiles) {
            first_.on_stall(engine, item, why, start, end);
        }
        if (trace_ && item < trace_->tiles) {
            trace_->writer.on_stall(engine, item, why, start, end);
        }
    }
    void on_fill(std::size_t buffer, std::uint64_t cycle, std::uint64_t items,
                 std::uint64_t bytes) override {
        if (trace_) {
            trace_->writer.on_fill(buffer, cycle, items, bytes);
        }
    }

private:
    io::timeline_recorder& first_;
    std::optional<trace_file>& trace_;
    dram_replay* replay_;
};

/// Capacities are not drawn.
pipeline_graph names_of(machine const& m) {
    validate(m);
    return graph_of(m, 1);
}

} // namespace

struct run_recorder::parts {
    io::timeline_recorder first;
    std::optional<trace_file> trace{};
    listeners all;

    parts(machine const& m, dram_replay* replay) : first(names_of(m)), all(first, trace, replay) {}
};

run_recorder::run_recorder(machine const& m, std::filesystem::path const& trace,
                           std::uint64_t trace_tiles, dram_replay* replay)
    : parts_(std::make_unique<parts>(m, replay)) {
    if (!trace.empty()) {
        parts_->trace.emplace(m, names_of(m), trace, trace_tiles);
    }
}

run_recorder::~run_recorder() = default;

pipeline_options run_recorder::options() {
    return {.listener = &parts_->all, .heard_items = parts_->all.heard_items()};
}

io::figure run_recorder::first_tiles(std::string const& title) const {
    return parts_->first.drawn(title);
}

void run_recorder::commit() {
    if (parts_->trace) {
        parts_->trace->writer.finish();
        parts_->trace->buffer.check();
        parts_->trace->file.commit();
    }
}

} // namespace sofattn::hw
