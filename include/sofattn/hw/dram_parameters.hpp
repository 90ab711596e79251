// SPDX-License-Identifier: MIT
// A DRAM as its data sheet describes it: structure, timing, currents; and where an address lies.
#pragma once

#include <sofattn/core/error.hpp>
#include <sofattn/core/types.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

namespace sofattn::hw {

/// Units are in the names; "cycles" are cycles of the DRAM's clock (two transfers each). Timing has
/// JEDEC's names. A channel here is whatever has a data bus and banks of its own: a pseudo-channel
/// where the device is run in that mode.
struct dram_parameters {
    std::string name;
    std::string source; ///< where the numbers are from

    std::uint64_t channels = 1;
    std::uint64_t pseudo_channels = 1; ///< per channel
    std::uint64_t ranks = 1;           ///< per pseudo-channel
    std::uint64_t bank_groups = 1;     ///< per rank
    std::uint64_t banks_per_group = 1;
    std::uint64_t rows = 1;          ///< per bank
    std::uint64_t row_bytes = 1;     ///< of one bank in all devices of a rank
    std::uint64_t burst_bytes = 1;   ///< one column command
    std::uint64_t burst_cycles = 1;  ///< the data bus is taken for
    std::uint64_t queue_bursts = 32; ///< per pseudo-channel, that the controller looks ahead
    /// Fields from the most significant bit to the least, two letters each: ro(w), ra(nk),
    /// bg (bank group), ba(nk), ch(annel and pseudo-channel), co(lumn).
    std::string mapping = "rorabgbachco";

    double clock_ns = 1.0;
    std::uint64_t cl_cycles = 0;  ///< column command to data, read
    std::uint64_t cwl_cycles = 0; ///< the same, write
    std::uint64_t rcd_read_cycles = 0;
    std::uint64_t rcd_write_cycles = 0;
    std::uint64_t rp_cycles = 0;
    std::uint64_t ras_cycles = 0;
    std::uint64_t rfc_cycles = 0;
    std::uint64_t refi_cycles = 1;
    std::uint64_t rrd_s_cycles = 0; ///< _s: other bank group; _l: the same
    std::uint64_t rrd_l_cycles = 0;
    std::uint64_t faw_cycles = 0;
    std::uint64_t ccd_s_cycles = 0;
    std::uint64_t ccd_l_cycles = 0;
    std::uint64_t wtr_s_cycles = 0;
    std::uint64_t wtr_l_cycles = 0;
    std::uint64_t wr_cycles = 0;
    std::uint64_t rtp_cycles = 0;

    double vdd_v = 1.0;
    double idd0_ma = 0.0;  ///< activate and precharge, one bank
    double idd2n_ma = 0.0; ///< standby, all banks closed
    double idd3n_ma = 0.0; ///< standby, a bank open
    double idd4r_ma = 0.0;
    double idd4w_ma = 0.0;
    double idd5ab_ma = 0.0;        ///< refresh of all banks
    double devices_per_rank = 1.0; ///< that draw these currents; half a device: a pseudo-channel
    double io_pj_per_bit = 0.0;    ///< interface, both ends

    [[nodiscard]] std::uint64_t buses() const noexcept { return channels * pseudo_channels; }
    [[nodiscard]] std::uint64_t banks() const noexcept { return bank_groups * banks_per_group; }
    [[nodiscard]] std::uint64_t rc_cycles() const noexcept { return ras_cycles + rp_cycles; }
    [[nodiscard]] std::uint64_t bursts_per_row() const noexcept { return row_bytes / burst_bytes; }
    [[nodiscard]] std::uint64_t capacity_bytes() const noexcept {
        return buses() * ranks * banks() * rows * row_bytes;
    }
    [[nodiscard]] double peak_bytes_per_cycle() const noexcept {
        return static_cast<double>(buses() * burst_bytes) / static_cast<double>(burst_cycles);
    }
    /// Bytes per nanosecond are GB/s.
    [[nodiscard]] double peak_gb_per_s() const noexcept {
        return peak_bytes_per_cycle() / clock_ns;
    }

    /// Throws `error` for a DRAM that cannot be.
    void validate() const;

    friend bool operator==(dram_parameters const&, dram_parameters const&) = default;
};

/// Where a burst lies.
struct dram_address {
    std::uint64_t bus = 0; ///< channel and pseudo-channel
    std::uint64_t rank = 0;
    std::uint64_t group = 0;
    std::uint64_t bank = 0; ///< in its group
    std::uint64_t row = 0;
    std::uint64_t column = 0; ///< in bursts

    friend bool operator==(dram_address const&, dram_address const&) = default;
};

/// The mapping of `dram_parameters`, ready for use. Addresses beyond the capacity wrap around.
class dram_mapping {
public:
    /// Throws `error` for a name that does not have each field once. Extents are powers of two.
    explicit dram_mapping(dram_parameters const& of)
        : burst_bits_(bits(of.burst_bytes)), capacity_bytes_(of.capacity_bytes()) {
        std::array<std::pair<std::string_view, std::uint64_t>, fields> const known{
            {{"ch", of.buses()},
             {"ra", of.ranks},
             {"bg", of.bank_groups},
             {"ba", of.banks_per_group},
             {"ro", of.rows},
             {"co", of.bursts_per_row()}}};
        std::array<bool, fields> seen{};
        int at = 0;
        bool good = of.mapping.size() == 2 * fields;
        for (std::size_t n = fields; good && n-- > 0;) { // least significant first
            std::size_t f = 0;
            while (f < fields && known[f].first != of.mapping.substr(2 * n, 2)) {
                ++f;
            }
            good = f < fields && !seen[f];
            if (good) {
                seen[f] = true;
                position_[f] = at;
                width_[f] = bits(known[f].second);
                at += width_[f];
            }
        }
        if (!good) {
            throw error("dram: address mapping", '"' + of.mapping + '"',
                        "the fields ro, ra, bg, ba, ch, co in some order");
        }
    }

    [[nodiscard]] dram_address operator()(std::uint64_t byte_address) const noexcept {
        std::uint64_t const burst = byte_address >> burst_bits_;
        return {.bus = field(burst, channel),
                .rank = field(burst, rank),
                .group = field(burst, group),
                .bank = field(burst, bank),
                .row = field(burst, row),
                .column = field(burst, column)};
    }
    /// The first byte of the burst; inverse of the above.
    [[nodiscard]] std::uint64_t address_of(dram_address const& at) const noexcept {
        return ((at.bus << position_[channel]) | (at.rank << position_[rank]) |
                (at.group << position_[group]) | (at.bank << position_[bank]) |
                (at.row << position_[row]) | (at.column << position_[column]))
               << burst_bits_;
    }
    [[nodiscard]] std::uint64_t capacity_bytes() const noexcept { return capacity_bytes_; }

    /// Consecutive bytes on one bus, before the address goes on to another.
    [[nodiscard]] std::uint64_t bytes_per_bus_turn() const noexcept {
        return std::uint64_t{1} << (position_[channel] + burst_bits_);
    }
    /// Do consecutive bursts of a bus lie in different bank groups?
    [[nodiscard]] bool alternates_groups() const noexcept {
        return width_[group] > 0 && position_[group] < position_[column];
    }
    /// Rows that contiguous bytes lie in, if they begin with a row of the first bank. Fields below
    /// the column spread them over as many rows at a time.
    [[nodiscard]] std::uint64_t rows_of(std::uint64_t bytes) const noexcept {
        int spread_bits = 0;
        int first = position_[column] + width_[column];
        for (std::size_t const f : {channel, rank, group, bank}) {
            if (width_[f] > 0 && position_[f] < position_[column]) {
                spread_bits += width_[f];
                first = std::min(first, position_[f]);
            }
        }
        std::uint64_t const spread = std::uint64_t{1} << spread_bits;
        std::uint64_t const stripe = spread << (width_[column] + burst_bits_);
        std::uint64_t const step = std::uint64_t{1} << (first + burst_bits_);
        return bytes / stripe * spread + std::min(spread, ceil_div(bytes % stripe, step));
    }

private:
    enum field_name : std::size_t { channel, rank, group, bank, row, column };
    static constexpr std::size_t fields = 6;

    [[nodiscard]] static int bits(std::uint64_t extent) noexcept {
        return std::countr_zero(extent);
    }
    [[nodiscard]] std::uint64_t field(std::uint64_t burst, std::size_t f) const noexcept {
        return (burst >> position_[f]) & ((std::uint64_t{1} << width_[f]) - 1);
    }

    std::array<int, fields> position_{};
    std::array<int, fields> width_{};
    int burst_bits_ = 0;
    std::uint64_t capacity_bytes_ = 0;
};

inline void dram_parameters::validate() const {
    for (auto const& [what, value] : {std::pair{"channels", channels},
                                      {"pseudo_channels", pseudo_channels},
                                      {"ranks", ranks},
                                      {"bank_groups", bank_groups},
                                      {"banks_per_group", banks_per_group},
                                      {"rows", rows},
                                      {"row_bytes", row_bytes},
                                      {"burst_bytes", burst_bytes}}) {
        if (!std::has_single_bit(value)) { // an address is cut into bits
            throw error(std::string("dram: ") + what, std::to_string(value), "a power of two");
        }
    }
    if (row_bytes < burst_bytes) {
        throw error("dram: row_bytes", std::to_string(row_bytes),
                    "at least burst_bytes, " + std::to_string(burst_bytes));
    }
    for (auto const& [what, value] : {std::pair{"burst_cycles", burst_cycles},
                                      {"queue_bursts", queue_bursts},
                                      {"refi_cycles", refi_cycles}}) {
        if (value == 0) {
            throw error(std::string("dram: ") + what, "0", "at least 1");
        }
    }
    if (rfc_cycles + rc_cycles() >= refi_cycles) {
        throw error("dram: rfc_cycles", std::to_string(rfc_cycles),
                    "below refi_cycles less a row cycle, " +
                        std::to_string(refi_cycles - std::min(refi_cycles, rc_cycles())));
    }
    for (auto const& [what, value] : {std::pair{"clock_ns", clock_ns}, {"vdd_v", vdd_v}}) {
        if (!(value > 0.0 && value < 1e6)) {
            throw error(std::string("dram: ") + what, std::to_string(value), "in (0, 1e6)");
        }
    }
    for (auto const& [what, value] : {std::pair{"idd0_ma", idd0_ma},
                                      {"idd2n_ma", idd2n_ma},
                                      {"idd3n_ma", idd3n_ma},
                                      {"idd4r_ma", idd4r_ma},
                                      {"idd4w_ma", idd4w_ma},
                                      {"idd5ab_ma", idd5ab_ma},
                                      {"devices_per_rank", devices_per_rank},
                                      {"io_pj_per_bit", io_pj_per_bit}}) {
        if (!(value >= 0.0 && value < 1e6)) {
            throw error(std::string("dram: ") + what, std::to_string(value), "in [0, 1e6)");
        }
    }
    // Differences of currents are energies, which are not negative.
    for (auto const& [what, value] :
         {std::pair{"idd4r_ma", idd4r_ma}, {"idd4w_ma", idd4w_ma}, {"idd5ab_ma", idd5ab_ma}}) {
        if (value < idd3n_ma) {
            throw error(std::string("dram: ") + what, std::to_string(value),
                        "at least idd3n_ma, " + std::to_string(idd3n_ma));
        }
    }
    if (idd0_ma < idd3n_ma || idd3n_ma < idd2n_ma) {
        throw error("dram: idd0_ma, idd3n_ma, idd2n_ma",
                    std::to_string(idd0_ma) + ", " + std::to_string(idd3n_ma) + ", " +
                        std::to_string(idd2n_ma),
                    "descending");
    }
    (void)dram_mapping(*this);
}

} // namespace sofattn::hw
