// SPDX-License-Identifier: MIT
#include <sofattn/hw/dram_estimate.hpp>
#include <sofattn/hw/dram_presets.hpp>

#include <doctest/doctest.h>
#include <support/generators.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string_view>

using namespace sofattn;
using hw::memory_access;
using test::generator;

namespace {

hw::dram_estimate of(hw::dram_parameters const& p, std::uint64_t bytes, std::uint64_t block,
                     memory_access kind = memory_access::read) {
    return hw::estimate(p, {.bytes = bytes, .block_bytes = block, .kind = kind});
}

/// The same traffic, request by request.
hw::dram simulated(hw::dram_parameters const& p, std::uint64_t bytes, std::uint64_t block,
                   memory_access kind, generator& random) {
    hw::dram memory(p);
    std::uint64_t const step = block == 0 ? p.burst_bytes : block;
    for (std::uint64_t done = 0; done < bytes; done += step) {
        std::uint64_t const at =
            block == 0 ? done : random.next() % (p.capacity_bytes() / block) * block;
        memory({.address = at, .bytes = std::min(step, bytes - done), .kind = kind});
    }
    return memory;
}

double ratio(std::uint64_t a, std::uint64_t b) {
    return static_cast<double>(a) / static_cast<double>(b);
}

void check_energy(hw::dram_parameters const& p, hw::dram_counts const& exact,
                  hw::dram_estimate const& guess, double tolerance) {
    // Of the same length, so that what differs is not the time.
    auto const counts = hw::counts_of(p, guess, exact.elapsed);
    CHECK(counts.read_bursts == exact.read_bursts);
    CHECK(counts.write_bursts == exact.write_bursts);
    CHECK(hw::energy_of(p, counts).total().count() ==
          doctest::Approx(hw::energy_of(p, exact).total().count()).epsilon(tolerance));
}

} // namespace

TEST_CASE(
    "hw.dram_estimate: streams from 64 KiB within 10 % of the simulation, from 1 MiB within 6 %") {
    SOFATTN_GENERATOR(random);
    for (std::string_view const name : hw::dram_preset_names) {
        hw::dram_parameters const p = hw::dram_preset(name);
        for (memory_access const kind : {memory_access::read, memory_access::write}) {
            for (int n = 0; n < 12; ++n) {
                std::uint64_t const bytes =
                    random.integer<std::uint64_t>(1u << 16, 1u << random.integer(17, 23)) / 64 * 64;
                CAPTURE(name);
                CAPTURE(bytes);
                double const tolerance = bytes < (1u << 20) ? 0.10 : 0.06;
                auto const memory = simulated(p, bytes, 0, kind, random);
                auto const guess = of(p, bytes, 0, kind);
                CHECK(std::abs(ratio(guess.busy_cycles, memory.last_complete()) - 1.0) < tolerance);
                check_energy(p, memory.counts(), guess, tolerance);
            }
        }
    }
}

TEST_CASE("hw.dram_estimate: random blocks within 25 % of the simulation if 2000, 20 % if 20000") {
    SOFATTN_GENERATOR(random);
    for (std::string_view const name : hw::dram_preset_names) {
        hw::dram_parameters const p = hw::dram_preset(name);
        for (memory_access const kind : {memory_access::read, memory_access::write}) {
            for (std::uint64_t block = 64; block <= 4096; block *= 2) {
                for (std::uint64_t const blocks : {2'000u, 20'000u}) {
                    CAPTURE(name);
                    CAPTURE(block);
                    CAPTURE(blocks);
                    auto const memory = simulated(p, blocks * block, block, kind, random);
                    auto const guess = of(p, blocks * block, block, kind);
                    CHECK(std::abs(ratio(guess.busy_cycles, memory.last_complete()) - 1.0) <
                          (blocks < 20'000 ? 0.25 : 0.20));
                    CHECK(std::abs(ratio(guess.activates, memory.counts().activates()) - 1.0) <
                          0.08);
                    check_energy(p, memory.counts(), guess, 0.06);
                }
            }
        }
    }
}

TEST_CASE("hw.dram_estimate: monotone, and never above the peak") {
    SOFATTN_GENERATOR(random);
    for (std::string_view const name : hw::dram_preset_names) {
        CAPTURE(name);
        hw::dram_parameters const p = hw::dram_preset(name);
        CHECK(of(p, 0, 0) == hw::dram_estimate{});
        CHECK(of(p, 1, 0).busy_cycles > 0);
        for (std::uint64_t const block : {0u, 64u, 256u, 1024u, 65536u}) {
            std::uint64_t before = 0;
            for (std::uint64_t bytes = 64; bytes < (std::uint64_t{1} << 40);
                 bytes = bytes * 2 + random.integer<std::uint64_t>(0, 99)) {
                auto const e = of(p, bytes, block);
                CHECK(e.busy_cycles >= before);
                before = e.busy_cycles;
                CHECK(static_cast<double>(e.busy_cycles) * p.peak_bytes_per_cycle() >=
                      static_cast<double>(bytes));
                CHECK(e.activates <= e.read_bursts);
                CHECK(e.activates >= 1);
            }
            // Random places are never better than one stream, larger ones never worse.
            CHECK(of(p, 1u << 24, block == 0 ? 64 : block).busy_cycles >=
                  of(p, 1u << 24, 0).busy_cycles);
        }
        CHECK(of(p, 1u << 24, 64).busy_cycles > of(p, 1u << 24, 1024).busy_cycles);
    }
    CHECK_THROWS_WITH_AS((void)of(hw::hbm2_16x64(), 4096, 32),
                         "dram: bytes of a random block is 32, must be at least a burst, 64",
                         error);
}

TEST_CASE("hw.dram_estimate: idle time costs standby and refresh only") {
    hw::dram_parameters const p = hw::hbm2_16x64();
    auto const work = of(p, 1u << 24, 256);
    auto const near = hw::energy_of(p, hw::counts_of(p, work, cycles(work.busy_cycles)));
    auto const late = hw::energy_of(p, hw::counts_of(p, work, cycles(10 * work.busy_cycles)));
    CHECK(near.activate == late.activate);
    CHECK(near.read == late.read);
    CHECK(near.io == late.io);
    CHECK(late.standby.count() == doctest::Approx(10.0 * near.standby.count()).epsilon(0.01));
    CHECK(late.refresh.count() == doctest::Approx(10.0 * near.refresh.count()).epsilon(0.01));
    // With nothing to do no row is open.
    CHECK(hw::counts_of(p, {}, cycles(1'000'000)).open == cycles(0));
    auto sum = work;
    sum += of(p, 1u << 20, 0, memory_access::write);
    CHECK(sum.read_bursts == work.read_bursts);
    CHECK(sum.write_bursts == (1u << 20) / 64);
}
