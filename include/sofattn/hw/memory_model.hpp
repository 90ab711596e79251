// SPDX-License-Identifier: MIT
// Transfers of tiles on a machine's memory: flat numbers, or a DRAM in closed form.
#pragma once

#include <sofattn/core/types.hpp>
#include <sofattn/core/units.hpp>
#include <sofattn/hw/config.hpp>
#include <sofattn/hw/dram.hpp>
#include <sofattn/hw/dram_energy.hpp>
#include <sofattn/hw/dram_estimate.hpp>
#include <sofattn/hw/dram_parameters.hpp>
#include <sofattn/hw/dram_presets.hpp>
#include <sofattn/hw/tile_work.hpp>
#include <sofattn/probe/event.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <optional>

namespace sofattn::hw {

/// What a stage moves for one tile: contiguous data, and vectors at random places.
struct tile_transfer {
    std::uint64_t read_bytes = 0;
    std::uint64_t write_bytes = 0;
    std::uint64_t scattered_bytes = 0; ///< read
    std::uint64_t vector_bytes = 0;    ///< contiguous bytes of a scattered vector

    [[nodiscard]] constexpr bool empty() const noexcept {
        return read_bytes + write_bytes + scattered_bytes == 0;
    }
};

/// The transfers of the stages that use the DRAM; none of the others.
[[nodiscard]] constexpr tile_transfer transfer_of(tile_work const& w, tile_stage s) noexcept {
    tile_traffic const& t = w.traffic;
    switch (s) {
    case tile_stage::fetch: return {.read_bytes = t.fetched()};
    case tile_stage::spill:
        return {.read_bytes = t.spilled_score_bytes, .write_bytes = t.spilled_score_bytes};
    case tile_stage::gather:
        return {.read_bytes = t.kept_token_bytes + t.weight_bytes,
                .scattered_bytes = t.key_bytes + t.value_bytes,
                .vector_bytes =
                    detail::count(std::min(w.dim, w.value_dim)) * probe::formal_operand_bytes};
    case tile_stage::write_back: return {.write_bytes = t.stored_bytes + t.output_bytes};
    default: return {};
    }
}

/// One per run: a machine's memory, ready to be asked.
class memory_model {
public:
    explicit memory_model(machine const& m)
        : link_(m.memory), cycles_per_nanosecond_(m.process.clock_megahertz / 1e3) {
        if (link_.model_name != "flat") {
            dram_ = dram_preset(link_.model_name);
        }
    }

    [[nodiscard]] bool is_flat() const noexcept { return !dram_; }
    /// Throws if the model is flat.
    [[nodiscard]] dram_parameters const& dram() const { return dram_.value(); }

    /// How long a transfer keeps the memory, and when its last byte is there. Requests follow each
    /// other; what the memory takes to answer the first is latency.
    [[nodiscard]] stage_time time(tile_transfer const& of) const {
        if (of.empty()) {
            return {};
        }
        if (is_flat()) {
            double const peak = link_.peak_bytes_per_cycle;
            auto const busy = static_cast<std::uint64_t>(std::ceil(
                static_cast<double>(of.read_bytes + of.write_bytes) / (peak * link_.stream_share) +
                static_cast<double>(of.scattered_bytes) / (peak * link_.scattered_share)));
            return {busy,
                    busy + detail::count(of.scattered_bytes > 0 ? link_.scattered_latency_cycles
                                                                : link_.stream_latency_cycles)};
        }
        std::uint64_t const answer = dram_->rcd_read_cycles + dram_->cl_cycles;
        std::uint64_t const busy = bursts_of(of).busy_cycles;
        return {machine_cycles(busy - std::min(busy - 1, answer)), machine_cycles(busy)};
    }

    /// Bursts and activations of a transfer; nothing if the model is flat.
    [[nodiscard]] dram_estimate bursts_of(tile_transfer const& of) const {
        dram_estimate sum;
        if (is_flat()) {
            return sum;
        }
        sum += estimate(*dram_, {.bytes = of.read_bytes});
        sum += estimate(*dram_, {.bytes = of.write_bytes, .kind = memory_access::write});
        if (of.scattered_bytes > 0) {
            // A vector shorter than a burst moves a burst.
            std::uint64_t const whole =
                ceil_div(of.vector_bytes, dram_->burst_bytes) * dram_->burst_bytes;
            sum += estimate(*dram_, {.bytes = of.scattered_bytes / of.vector_bytes * whole,
                                     .block_bytes = whole});
        }
        return sum;
    }

    /// Of a run that took so many of the machine's cycles and moved all this.
    [[nodiscard]] dram_energy energy(dram_estimate const& moved, cycles elapsed) const {
        auto const own = static_cast<std::uint64_t>(std::ceil(
            static_cast<double>(elapsed.count()) / (cycles_per_nanosecond_ * dram().clock_ns)));
        return energy_of(dram(), counts_of(dram(), moved, cycles(own)));
    }

private:
    [[nodiscard]] std::uint64_t machine_cycles(std::uint64_t of_dram) const noexcept {
        return static_cast<std::uint64_t>(
            std::ceil(static_cast<double>(of_dram) * dram_->clock_ns * cycles_per_nanosecond_));
    }

    memory_link link_;
    double cycles_per_nanosecond_;
    std::optional<dram_parameters> dram_;
};

} // namespace sofattn::hw
