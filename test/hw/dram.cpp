// SPDX-License-Identifier: MIT
#include <sofattn/hw/dram.hpp>
#include <sofattn/hw/dram_presets.hpp>

#include <doctest/doctest.h>
#include <support/generators.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

using namespace sofattn;
using hw::dram_command_kind;
using hw::memory_access;
using test::generator;

namespace {

/// A controller's timing rules as a data sheet lists them, looked up pair by pair.
class rule_book {
public:
    explicit rule_book(hw::dram_parameters const& p) : p_(p) {}

    /// Cycles that must lie between `first` and a later `second` of the same bus.
    [[nodiscard]] std::uint64_t between(hw::dram_command const& first,
                                        hw::dram_command const& second) const {
        using enum dram_command_kind;
        auto const a = first.kind;
        auto const b = second.kind;
        bool const same_rank = first.at.rank == second.at.rank;
        bool const same_group = same_rank && first.at.group == second.at.group;
        bool const same_bank = same_group && first.at.bank == second.at.bank;
        std::uint64_t least = 0;
        auto const need = [&](bool applies, std::uint64_t cycles) {
            least = applies ? std::max(least, cycles) : least;
        };
        need(same_bank && a == activate && b == activate, p_.ras_cycles + p_.rp_cycles);
        need(same_bank && a == activate && b == read, p_.rcd_read_cycles);
        need(same_bank && a == activate && b == write, p_.rcd_write_cycles);
        need(same_bank && a == activate && b == precharge, p_.ras_cycles);
        need(same_bank && a == precharge && b == activate, p_.rp_cycles);
        need(same_bank && a == read && b == precharge, p_.rtp_cycles);
        need(same_bank && a == write && b == precharge,
             p_.cwl_cycles + p_.burst_cycles + p_.wr_cycles);
        need(same_rank && a == activate && b == activate,
             same_group ? p_.rrd_l_cycles : p_.rrd_s_cycles);
        need(same_rank && a == refresh && b != refresh, p_.rfc_cycles);
        need(same_rank && a == activate && b == refresh, p_.ras_cycles + p_.rp_cycles);
        need(same_rank && a == read && b == refresh, p_.rtp_cycles + p_.rp_cycles);
        need(same_rank && a == write && b == read,
             p_.cwl_cycles + p_.burst_cycles + (same_group ? p_.wtr_l_cycles : p_.wtr_s_cycles));
        bool const columns = (a == read || a == write) && (b == read || b == write);
        need(columns && same_rank && a == b, same_group ? p_.ccd_l_cycles : p_.ccd_s_cycles);
        if (columns) { // one set of wires
            auto const delay = [&](dram_command_kind k) {
                return k == read ? p_.cl_cycles : p_.cwl_cycles;
            };
            std::uint64_t const free = delay(a) + p_.burst_cycles;
            need(free > delay(b), free - std::min(free, delay(b)));
        }
        return least;
    }

private:
    hw::dram_parameters p_;
};

void check_commands(hw::dram_parameters const& p, std::vector<hw::dram_command> commands) {
    std::ranges::stable_sort(commands, {}, &hw::dram_command::cycle);
    rule_book const rules(p);
    std::vector<std::vector<hw::dram_command>> per_bus(p.buses());
    for (auto const& c : commands) {
        per_bus[c.at.bus].push_back(c);
    }
    std::uint64_t broken = 0;
    for (auto const& bus : per_bus) {
        for (std::size_t i = 0; i < bus.size(); ++i) {
            for (std::size_t j = i; j-- > 0 && bus[i].cycle - bus[j].cycle < 700;) {
                broken += bus[i].cycle - bus[j].cycle < rules.between(bus[j], bus[i]) ? 1 : 0;
            }
        }
        for (std::uint64_t r = 0; r < p.ranks; ++r) {
            std::vector<std::uint64_t> activations;
            std::vector<std::uint64_t> open(p.banks(), ~std::uint64_t{0}); // [bank] row
            for (auto const& c : bus) {
                if (c.at.rank != r) {
                    continue;
                }
                auto& row = open[c.at.group * p.banks_per_group + c.at.bank];
                switch (c.kind) {
                case dram_command_kind::activate:
                    activations.push_back(c.cycle);
                    row = c.at.row;
                    break;
                case dram_command_kind::precharge:
                    broken += row != c.at.row ? 1 : 0;
                    row = ~std::uint64_t{0};
                    break;
                case dram_command_kind::read:
                case dram_command_kind::write: broken += row != c.at.row ? 1 : 0; break;
                case dram_command_kind::refresh: std::ranges::fill(open, ~std::uint64_t{0}); break;
                }
            }
            for (std::size_t n = 4; n < activations.size(); ++n) {
                broken += activations[n] - activations[n - 4] < p.faw_cycles ? 1 : 0;
            }
        }
    }
    CHECK(broken == 0);
}

struct measured {
    double gb_per_s = 0.0;
    double pj_per_bit = 0.0; ///< without the interface
    hw::dram_counts counts;
    hw::dram_energy energy;
    double bits = 0.0;
};

/// `count` blocks, streamed or at random places, offered at a rate (0: at once), a share written.
measured measure(hw::dram_parameters const& p, std::uint64_t block, bool at_random,
                 double offered_gb_per_s, double written = 0.1, int count = 60'000) {
    generator random;
    hw::dram memory(p);
    double now_ns = 0.0;
    for (int n = 0; n < count; ++n) {
        std::uint64_t const place = at_random ? random.next() % (p.capacity_bytes() / block)
                                              : static_cast<std::uint64_t>(n);
        memory({.address = place * block,
                .bytes = block,
                .kind = random.chance(written) ? memory_access::write : memory_access::read,
                .arrival_cycle = static_cast<std::uint64_t>(now_ns / p.clock_ns)});
        now_ns += offered_gb_per_s > 0.0 ? static_cast<double>(block) / offered_gb_per_s : 0.0;
    }
    measured m;
    m.counts = memory.counts();
    m.energy = hw::energy_of(p, m.counts);
    m.bits = 8.0 * static_cast<double>(block) * count;
    m.gb_per_s = m.bits / 8.0 / (static_cast<double>(m.counts.elapsed.count()) * p.clock_ns);
    m.pj_per_bit = m.energy.device().count() / m.bits;
    return m;
}

bool within(double found, double expected, double share) {
    CAPTURE(found);
    CAPTURE(expected);
    return std::abs(found / expected - 1.0) <= share;
}

} // namespace

TEST_CASE("hw.dram: commands keep every timing rule of the data sheet") {
    SOFATTN_GENERATOR(random);
    for (std::string_view const name : hw::dram_preset_names) {
        CAPTURE(name);
        hw::dram_parameters p = hw::dram_preset(name);
        for (int n = 0; n < 6; ++n) {
            p.queue_bursts = random.integer<std::uint64_t>(1, 40);
            hw::dram memory(p);
            std::vector<hw::dram_command> commands;
            memory.listen([&](hw::dram_command const& c) { commands.push_back(c); });
            std::uint64_t now = 0;
            std::uint64_t address = 0;
            bool const dense = random.chance(0.5);
            for (int r = 0; r < 3000; ++r) {
                // Streams, neighbours and places in few rows of few banks: hits and conflicts.
                address = random.chance(0.5) ? address + 64
                                             : random.next() % (std::uint64_t{1} << (14 + 4 * n));
                std::uint64_t const done =
                    memory({.address = address,
                            .bytes = random.integer<std::uint64_t>(0, 300),
                            .kind = random.chance(0.3) ? memory_access::write : memory_access::read,
                            .arrival_cycle = now});
                CHECK(done >= now);
                now += dense ? random.integer<std::uint64_t>(0, 4)
                             : random.integer<std::uint64_t>(0, 90);
            }
            check_commands(p, commands);
            auto const counts = memory.counts();
            auto const count_of = [&](dram_command_kind kind) {
                return static_cast<std::uint64_t>(
                    std::ranges::count(commands, kind, &hw::dram_command::kind));
            };
            CHECK(counts.read_bursts == count_of(dram_command_kind::read));
            CHECK(counts.write_bursts == count_of(dram_command_kind::write));
            CHECK(counts.activates() == count_of(dram_command_kind::activate));
            CHECK(counts.row_conflicts == count_of(dram_command_kind::precharge));
            CHECK(counts.row_hits + counts.activates() == counts.read_bursts + counts.write_bursts);
            CHECK(counts.open.count() <= counts.elapsed.count() * p.buses() * p.ranks);
            CHECK(counts == memory.counts());
        }
    }
}

TEST_CASE("hw.dram: latencies of single reads") {
    hw::dram_parameters const p = hw::hbm2_8gb_x128();
    hw::dram memory(p);
    // Closed bank: row to column 14, column to data 14, burst 2.
    CHECK(memory({.address = 0, .bytes = 64, .arrival_cycle = 100}) == 100 + 14 + 14 + 2);
    CHECK(memory({.address = 64, .bytes = 64, .arrival_cycle = 200}) == 200 + 14 + 2);
    // Another row of the same bank: precharge 14 more.
    std::uint64_t const other = memory.mapping().address_of({.row = 1});
    CHECK(memory({.address = other, .bytes = 64, .arrival_cycle = 300}) == 300 + 14 + 14 + 14 + 2);
    // Bytes across a burst's border take two bursts; no bytes take none.
    CHECK(memory({.address = other + 65, .bytes = 64, .arrival_cycle = 400}) == 400 + 14 + 2 + 2);
    CHECK(memory({.address = 7, .bytes = 0, .arrival_cycle = 500}) == 500);
    auto const counts = memory.counts();
    CHECK(counts.read_bursts == 5);
    CHECK(counts.row_hits == 3);
    CHECK(counts.row_misses == 1);
    CHECK(counts.row_conflicts == 1);
}

TEST_CASE("hw.dram: refreshes come at their rate, busy or idle") {
    for (std::string_view const name : hw::dram_preset_names) {
        hw::dram_parameters const p = hw::dram_preset(name);
        hw::dram memory(p);
        std::uint64_t const end = 50 * p.refi_cycles;
        CHECK(memory.counts(end).refreshes == 50 * p.buses() * p.ranks);
        CHECK(memory.counts(end).open == cycles(0));
        for (std::uint64_t a = 0; memory.last_complete() < end; a += 64) {
            memory({.address = a, .bytes = 64});
        }
        auto const counts = memory.counts();
        auto const expected = static_cast<double>(counts.elapsed.count()) /
                              static_cast<double>(p.refi_cycles) *
                              static_cast<double>(p.buses() * p.ranks);
        CHECK(within(static_cast<double>(counts.refreshes), expected, 0.02));
    }
}

TEST_CASE("hw.dram: energy of HBM2 as DRAMsim3 has it") {
    // Measured with DRAMsim3, HBM2_8Gb_x128, one tenth written; pJ per bit without the interface.
    hw::dram_parameters const p = hw::hbm2_8gb_x128();
    auto const streamed = measure(p, 64, false, 59.7);
    CHECK(within(streamed.pj_per_bit, 3.02, 0.01)); // 3.016
    CHECK(within(streamed.energy.activate.count() / streamed.bits, 0.06, 0.15));
    CHECK(within(streamed.energy.read.count() / streamed.bits, 1.41, 0.01));
    CHECK(within(streamed.energy.write.count() / streamed.bits, 0.21, 0.06));
    CHECK(within(streamed.energy.refresh.count() / streamed.bits, 0.26, 0.05));
    CHECK(within(measure(p, 256, true, 59.7).pj_per_bit, 3.47, 0.05)); // 3.37
    CHECK(within(measure(p, 64, false, 30.0).pj_per_bit, 4.36, 0.01)); // 4.34
    // The paper's Table IV, 1.92 W and 0.53 W at 59.8 GB/s, has no pattern: random reads are near.
    auto const paper = measure(hw::hbm2_16x64(), 256, true, 59.8);
    CHECK(within(paper.pj_per_bit * 59.8 * 8e-3, 1.92, 0.25));
    CHECK(within(paper.energy.io.count() / paper.bits * 59.8 * 8e-3, 0.53, 0.001));
}

TEST_CASE("hw.dram: saturation of HBM2 as Ramulator has it") {
    // Measured with Ramulator 2, 16 controllers of 64 bits: 260 GB/s streamed (above the peak of
    // 256 that its refreshes leave), 152 GB/s in random blocks of 256 bytes.
    CHECK(within(measure(hw::hbm2_16x64(), 64, false, 0.0, 0.0).gb_per_s, 260.0, 0.12)); // 233
    CHECK(within(measure(hw::hbm2_16x64(), 256, true, 0.0, 0.0).gb_per_s, 152.0, 0.10)); // 143
}

TEST_CASE("hw.dram: energy of DDR4 as it is quoted") {
    // 12.5 pJ per bit, DRAMsim3 on DDR4_4Gb_x16_2133; the traffic it was measured on is not known.
    CHECK(within(measure(hw::ddr4_2133(), 64, false, 0.0, 0.0).pj_per_bit, 12.5, 0.12)); // 11.2
    CHECK(within(measure(hw::ddr4_2133(), 64, false, 0.0).pj_per_bit, 12.5, 0.09));      // 13.2
    CHECK(within(measure(hw::ddr4_2133(), 256, true, 0.0, 0.0).pj_per_bit, 12.5, 0.12)); // 13.7
}

TEST_CASE("hw.dram: never above its peak, and energy is the sum of its parts") {
    SOFATTN_GENERATOR(random);
    for (std::string_view const name : hw::dram_preset_names) {
        CAPTURE(name);
        hw::dram_parameters const p = hw::dram_preset(name);
        for (std::uint64_t const block : {64u, 256u, 4096u}) {
            auto const m = measure(p, block, random.chance(0.5), 0.0, 0.2, 2000);
            CHECK(m.gb_per_s <= p.peak_gb_per_s());
            auto const& e = m.energy;
            for (picojoules const part :
                 {e.activate, e.read, e.write, e.refresh, e.standby, e.io}) {
                CHECK(part >= picojoules(0.0));
            }
            CHECK(e.total().count() ==
                  doctest::Approx(e.activate.count() + e.read.count() + e.write.count() +
                                  e.refresh.count() + e.standby.count() + e.io.count()));
        }
        // Twice the work in twice the time is twice the energy.
        auto const once = measure(p, 64, false, 5.0, 0.1, 1000).counts;
        auto twice = once;
        twice += once;
        CHECK(hw::energy_of(p, twice).total().count() ==
              doctest::Approx(2.0 * hw::energy_of(p, once).total().count()));
    }
}
