// SPDX-License-Identifier: MIT
// A run's requests to the DRAM as a file that DRAMsim3 or Ramulator 2 reads.
#pragma once

#include "hw/report.hpp"
#include <sofattn/hw/config.hpp>
#include <sofattn/hw/dram_replay.hpp>
#include <sofattn/hw/memory_trace.hpp>
#include <sofattn/hw/tile_work.hpp>
#include <sofattn/io/file.hpp>

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace sofattn::hw {

/// Their names on the command line.
inline std::map<std::string, trace_format> const trace_formats{
    {"dramsim3", trace_format::dramsim3},
    {"ramulator_load_store", trace_format::ramulator_load_store},
    {"ramulator_read_write", trace_format::ramulator_read_write}};

class dram_trace {
public:
    /// Of the first `tiles` tiles. Throws `error` for a file that cannot be made and for a device that the
    /// format cannot describe.
    dram_trace(machine const& m, std::filesystem::path const& path, trace_format format,
               std::uint64_t tiles);

    [[nodiscard]] dram_replay& replay() noexcept { return replay_; }
    /// A tile of a run on data; the others are known from their description.
    void add(tile_work const& tile);

    /// After the run. Returns a line: how much was written, and how long our model of the device takes for it,
    /// beside the time that the pipeline gives.
    [[nodiscard]] std::string write(run_report const& of);
    /// The file appears.
    void commit() { file_.commit(); }

private:
    machine on_;
    dram_parameters device_;
    trace_format format_;
    dram_replay replay_;
    io::atomic_file file_;
    std::vector<tile_work> tiles_;
};

} // namespace sofattn::hw
