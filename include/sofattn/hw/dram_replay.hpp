// SPDX-License-Identifier: MIT
// The DRAM's requests of a run in the order of time, for a simulator of DRAM: ours or another.
#pragma once

#include <sofattn/core/assert.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/hw/config.hpp>
#include <sofattn/hw/dram.hpp>
#include <sofattn/hw/dram_parameters.hpp>
#include <sofattn/hw/dram_presets.hpp>
#include <sofattn/hw/dram_requests.hpp>
#include <sofattn/hw/pipeline_timing.hpp>
#include <sofattn/hw/tile_work.hpp>
#include <sofattn/hw/workload.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace sofattn::hw {

/// The DRAM of a machine; of one whose memory is flat numbers the device that the paper names,
/// 16 channels of HBM2.
[[nodiscard]] inline dram_parameters device_of(machine const& m) {
    return dram_preset(m.memory.model_name == "flat" ? "hbm2_16x64" : m.memory.model_name);
}

/// Hears when the transfers of a run's first tiles hold the DRAM, and afterwards says what they ask
/// of it. A transfer's requests arrive spread evenly over the time for which the pipeline gives it the
/// DRAM; whether a device serves them in that time is what a simulator of it tells.
class dram_replay final : public pipeline_listener {
public:
    explicit dram_replay(std::uint64_t tiles) : spans_(static_cast<std::size_t>(tiles)) {}

    [[nodiscard]] std::uint64_t tiles() const noexcept { return spans_.size(); }

    void on_busy(std::size_t engine, std::uint64_t item, std::uint64_t start,
                 std::uint64_t end) override {
        if (engine < tile_stage_count && item < spans_.size()) {
            spans_[static_cast<std::size_t>(item)][engine] = {start, end};
        }
    }

    /// tiles: the first of the run, in its order. Sorted by arrival, in cycles of the device.
    [[nodiscard]] std::vector<memory_request> requests(std::span<tile_work const> tiles,
                                                       workload const& of, machine const& on,
                                                       dram_parameters const& device) const {
        double const cycle = 1e3 / on.process.clock_megahertz / device.clock_ns; // of the device
        dram_requests layer(of, on);
        std::vector<memory_request> all;
        std::array<std::vector<memory_request>, tile_stage_count> stages;
        for (std::size_t t = 0; t < std::min(tiles.size(), spans_.size()); ++t) {
            layer(tiles[t], [&](tile_stage s, memory_request const& request) {
                stages[static_cast<std::size_t>(s)].push_back(request);
            });
            for (std::size_t s = 0; s < tile_stage_count; ++s) {
                span const when = spans_[t][s];
                std::uint64_t bytes = 0;
                for (memory_request const& r : stages[s]) {
                    bytes += r.bytes;
                }
                std::uint64_t before = 0;
                for (memory_request& r : stages[s]) {
                    double const share = static_cast<double>(before) / static_cast<double>(bytes);
                    double const at = static_cast<double>(when.start) +
                                      share * static_cast<double>(when.end - when.start);
                    r.arrival_cycle = static_cast<std::uint64_t>(at * cycle);
                    before += r.bytes;
                    all.push_back(r);
                }
                stages[s].clear();
            }
        }
        std::ranges::stable_sort(all, {}, &memory_request::arrival_cycle);
        return all;
    }

    /// The last cycle, of the machine, in which a transfer of these tiles holds the DRAM.
    [[nodiscard]] std::uint64_t end_cycle() const noexcept {
        std::uint64_t end = 0;
        for (auto const& tile : spans_) {
            for (tile_stage const s : {tile_stage::fetch, tile_stage::spill, tile_stage::gather,
                                       tile_stage::write_back}) {
                end = std::max(end, tile[static_cast<std::size_t>(s)].end);
            }
        }
        return end;
    }

private:
    struct span {
        std::uint64_t start = 0;
        std::uint64_t end = 0;
    };

    std::vector<std::array<span, tile_stage_count>> spans_; ///< [tile][stage]
};

} // namespace sofattn::hw
