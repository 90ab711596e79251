// SPDX-License-Identifier: MIT
// On-chip memory: what fits, what spills to DRAM, and how many accesses a cycle allows.
#pragma once

#include <sofattn/core/assert.hpp>
#include <sofattn/core/error.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/core/units.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace sofattn::hw {

/// A scratchpad: banks that work at once, each with ports of one width.
struct sram_parameters {
    std::string name;
    std::uint64_t capacity_bytes = 0;
    std::uint64_t banks = 1;
    std::uint64_t ports_per_bank = 1; ///< accesses per cycle, read or write
    std::uint64_t port_bytes = 64;

    /// If accesses meet no bank twice too often.
    [[nodiscard]] std::uint64_t bytes_per_cycle() const noexcept {
        return banks * ports_per_bank * port_bytes;
    }

    /// Throws `error` for a memory of nothing.
    void validate() const {
        for (auto const& [what, value] : {std::pair{"capacity_bytes", capacity_bytes},
                                          {"banks", banks},
                                          {"ports_per_bank", ports_per_bank},
                                          {"port_bytes", port_bytes}}) {
            if (value == 0) {
                throw error("sram " + name + ": " + what, "0", "at least 1");
            }
        }
    }

    friend bool operator==(sram_parameters const&, sram_parameters const&) = default;
};

/// Cycles for contiguous bytes, whose words go through the banks in turn.
[[nodiscard]] inline cycles stream_cycles(sram_parameters const& p, bytes of) {
    return cycles(ceil_div(ceil_div(of.count(), p.port_bytes), p.banks * p.ports_per_bank));
}

/// Cycles for words at any places (indices of port_bytes each) that are wanted together: word w
/// lies in bank w mod banks, and the bank with most of them decides.
[[nodiscard]] inline cycles gather_cycles(sram_parameters const& p,
                                          std::span<std::uint64_t const> words) {
    std::vector<std::uint64_t> wanted(p.banks);
    std::uint64_t most = 0;
    for (std::uint64_t const w : words) {
        most = std::max(most, ++wanted[w % p.banks]);
    }
    return cycles(ceil_div(most, p.ports_per_bank));
}

/// Data in a scratchpad, and the part that did not fit.
struct placed {
    bytes resident{};
    bytes spilled{};

    [[nodiscard]] bytes size() const noexcept { return resident + spilled; }
    friend bool operator==(placed const&, placed const&) = default;
};

/// Bytes moved; spilled ones go between chip and DRAM, both ways.
struct sram_counts {
    bytes written{};
    bytes read{};
    bytes spilled_written{};
    bytes spilled_read{};
    bytes peak{}; ///< resident at a time

    friend bool operator==(sram_counts const&, sram_counts const&) = default;
};

/// A scratchpad and not a cache: what does not fit when it is placed goes to DRAM, and every access
/// to that part is a transfer, until it is released. Nothing is moved afterwards. So a row-ready
/// design whose score rows exceed the memory pays for the excess twice, there and back.
/// Paper: Table III has capacities; that earlier designs spill is its section II-D and Fig. 3.
class sram {
public:
    /// Throws `error` for parameters of no memory.
    explicit sram(sram_parameters parameters) : parameters_(std::move(parameters)) {
        parameters_.validate();
    }

    [[nodiscard]] sram_parameters const& parameters() const noexcept { return parameters_; }
    [[nodiscard]] bytes used() const noexcept { return used_; }
    [[nodiscard]] bytes free() const noexcept { return bytes(parameters_.capacity_bytes) - used_; }
    [[nodiscard]] sram_counts const& counts() const noexcept { return counts_; }

    /// Keeps as many whole units as there is room for; what is left of the last unit belongs to it.
    [[nodiscard]] placed place(bytes size, bytes unit = bytes(1)) {
        SOFATTN_ASSERT(unit.count() > 0);
        bytes resident = size;
        if (size.count() > free().count()) {
            resident = bytes(free().count() / unit.count() * unit.count());
        }
        used_ += resident;
        counts_.peak = bytes(std::max(counts_.peak.count(), used_.count()));
        return {resident, size - resident};
    }
    /// Writes all of it, once.
    void write(placed const& data) noexcept {
        counts_.written += data.resident;
        counts_.spilled_written += data.spilled;
    }
    /// Reads all of it, `times` over.
    void read(placed const& data, std::uint64_t times = 1) noexcept {
        counts_.read += data.resident * times;
        counts_.spilled_read += data.spilled * times;
    }
    /// Gives the room back. `data` was placed here and not released (SOFATTN_ASSERT on the sum).
    void release(placed const& data) noexcept {
        SOFATTN_ASSERT(data.resident.count() <= used_.count());
        used_ -= data.resident;
    }

private:
    sram_parameters parameters_;
    bytes used_{};
    sram_counts counts_{};
};

} // namespace sofattn::hw
