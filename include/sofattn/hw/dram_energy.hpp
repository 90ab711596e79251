// SPDX-License-Identifier: MIT
// What a DRAM did, counted, and what that costs.
#pragma once

#include <sofattn/core/units.hpp>
#include <sofattn/hw/dram_parameters.hpp>

#include <cstdint>

namespace sofattn::hw {

/// Counts over all channels. A burst that needs half its bytes moves all of them.
struct dram_counts {
    std::uint64_t read_bursts = 0;
    std::uint64_t write_bursts = 0;
    std::uint64_t row_hits = 0;      ///< bursts whose row was open
    std::uint64_t row_misses = 0;    ///< bursts whose bank was closed
    std::uint64_t row_conflicts = 0; ///< bursts whose bank had another row open
    std::uint64_t refreshes = 0;     ///< of a rank
    cycles elapsed{};                ///< DRAM cycles
    cycles open{};                   ///< sum over ranks of cycles with a bank open

    [[nodiscard]] std::uint64_t activates() const noexcept { return row_misses + row_conflicts; }

    dram_counts& operator+=(dram_counts const& other) noexcept {
        read_bursts += other.read_bursts;
        write_bursts += other.write_bursts;
        row_hits += other.row_hits;
        row_misses += other.row_misses;
        row_conflicts += other.row_conflicts;
        refreshes += other.refreshes;
        elapsed += other.elapsed;
        open += other.open;
        return *this;
    }
    friend bool operator==(dram_counts const&, dram_counts const&) = default;
};

struct dram_energy {
    picojoules activate{};
    picojoules read{};
    picojoules write{};
    picojoules refresh{};
    picojoules standby{};
    picojoules io{};

    [[nodiscard]] picojoules total() const noexcept {
        return activate + read + write + refresh + standby + io;
    }
    /// Without the interface, whose power is often counted with the chip at its other end.
    [[nodiscard]] picojoules device() const noexcept { return total() - io; }

    friend bool operator==(dram_energy const&, dram_energy const&) = default;
};

/// Currents over the standby current, times voltage and duration: the method of the vendors' power
/// calculators (Micron TN-41-01, TN-40-07), as in DRAMsim3. V x mA x ns = pJ. A refreshing rank
/// also draws its standby current.
[[nodiscard]] inline dram_energy energy_of(dram_parameters const& p, dram_counts const& n) {
    double const pj_per_ma_cycle = p.vdd_v * p.clock_ns * p.devices_per_rank;
    auto const spent = [&](std::uint64_t count, double ma_cycles) {
        return picojoules(static_cast<double>(count) * pj_per_ma_cycle * ma_cycles);
    };
    auto const ras = static_cast<double>(p.ras_cycles);
    auto const rp = static_cast<double>(p.rp_cycles);
    auto const burst = static_cast<double>(p.burst_cycles);
    std::uint64_t const rank_cycles = n.elapsed.count() * p.buses() * p.ranks;
    double const bits = 8.0 * static_cast<double>((n.read_bursts + n.write_bursts) * p.burst_bytes);
    return {.activate =
                spent(n.activates(), p.idd0_ma * (ras + rp) - (p.idd3n_ma * ras + p.idd2n_ma * rp)),
            .read = spent(n.read_bursts, (p.idd4r_ma - p.idd3n_ma) * burst),
            .write = spent(n.write_bursts, (p.idd4w_ma - p.idd3n_ma) * burst),
            .refresh =
                spent(n.refreshes, (p.idd5ab_ma - p.idd3n_ma) * static_cast<double>(p.rfc_cycles)),
            .standby =
                spent(n.open.count(), p.idd3n_ma) + spent(rank_cycles - n.open.count(), p.idd2n_ma),
            .io = picojoules(bits * p.io_pj_per_bit)};
}

} // namespace sofattn::hw
