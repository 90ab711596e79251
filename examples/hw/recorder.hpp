// SPDX-License-Identifier: MIT
// What is kept of a run while it passes: its first tiles for a page, more of them for Perfetto.
#pragma once

#include <sofattn/hw/config.hpp>
#include <sofattn/hw/dram_replay.hpp>
#include <sofattn/hw/pipeline_timing.hpp>
#include <sofattn/io/figure.hpp>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>

namespace sofattn::hw {

class run_recorder {
public:
    /// Tiles of the page's timeline: a row block of 4096 keys, and as many as one can tell apart.
    static constexpr std::uint64_t page_tiles = 32;

    /// `trace`: file that the first `trace_tiles` tiles go to as trace events; empty: none. Throws
    /// `error` for a file that cannot be made.
    /// `replay` hears of its tiles, too, if there is one.
    explicit run_recorder(machine const& m, std::filesystem::path const& trace = {},
                          std::uint64_t trace_tiles = 0, dram_replay* replay = nullptr);
    /// Without `commit`, the file is not there.
    ~run_recorder();
    run_recorder(run_recorder const&) = delete;
    run_recorder& operator=(run_recorder const&) = delete;

    /// For `run`.
    [[nodiscard]] pipeline_options options();
    [[nodiscard]] io::figure first_tiles(std::string const& title) const;
    /// After the run: the trace appears. Throws `error` where the disk took less than everything.
    void commit();

private:
    struct parts;
    std::unique_ptr<parts> parts_;
};

} // namespace sofattn::hw
