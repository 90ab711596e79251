// SPDX-License-Identifier: MIT
#include <sofattn/hw/sram.hpp>

#include <doctest/doctest.h>
#include <support/generators.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <vector>

using namespace sofattn;
using test::generator;

namespace {

hw::sram_parameters of(std::uint64_t capacity) {
    return {.name = "temporary", .capacity_bytes = capacity};
}

} // namespace

TEST_CASE("hw.sram: a byte map agrees on what fits, and larger memories never spill more") {
    SOFATTN_GENERATOR(random);
    for (int n = 0; n < 200; ++n) {
        auto const capacity = random.integer<std::uint64_t>(1, 400);
        hw::sram memory(of(capacity));
        hw::sram larger(of(capacity + random.integer<std::uint64_t>(0, 100)));
        std::vector<int> owner(capacity, -1); // by byte
        struct live {
            int id;
            hw::placed here, there;
        };
        std::vector<live> all;
        hw::sram_counts expected;
        for (int id = 0; id < 60; ++id) {
            if (!all.empty() && random.chance(0.4)) {
                auto const at = random.integer<std::size_t>(0, all.size() - 1);
                std::ranges::replace(owner, all[at].id, -1);
                memory.release(all[at].here);
                larger.release(all[at].there);
                all.erase(all.begin() + static_cast<std::ptrdiff_t>(at));
            }
            auto const size = random.integer<std::uint64_t>(0, 150);
            live one{id, memory.place(bytes(size)), larger.place(bytes(size))};
            std::uint64_t stored = 0;
            for (int& o : owner) {
                if (o < 0 && stored < size) {
                    o = id;
                    ++stored;
                }
            }
            CHECK(one.here == hw::placed{bytes(stored), bytes(size - stored)});
            CHECK(one.there.spilled <= one.here.spilled);
            auto const times = random.integer<std::uint64_t>(0, 3);
            memory.write(one.here);
            memory.read(one.here, times);
            expected.written += bytes(stored);
            expected.spilled_written += bytes(size - stored);
            expected.read += bytes(stored * times);
            expected.spilled_read += bytes((size - stored) * times);
            auto const used = static_cast<std::uint64_t>(
                std::ranges::count_if(owner, [](int o) { return o >= 0; }));
            expected.peak = std::max(expected.peak, bytes(used));
            CHECK(memory.used() == bytes(used));
            CHECK(memory.free() == bytes(capacity - used));
            CHECK(memory.counts() == expected);
            all.push_back(one);
        }
    }
}

TEST_CASE("hw.sram: score rows of a row-ready design go to DRAM and come back") {
    // 128 queries, 4096 keys, one byte each: 512 KiB of rows in 316 KiB of memory.
    hw::sram memory(of(316 * 1024));
    hw::placed const rows = memory.place(bytes(128 * 4096), bytes(4096));
    CHECK(rows.resident == bytes(79 * 4096));
    CHECK(rows.spilled == bytes(49 * 4096));
    memory.write(rows);
    memory.read(rows);
    CHECK(memory.counts().spilled_written + memory.counts().spilled_read == bytes(2 * 49 * 4096));
    memory.release(rows);
    // A tile of them is no trouble.
    CHECK(memory.place(bytes(128 * 128), bytes(128)).spilled == bytes(0));
}

TEST_CASE("hw.sram: cycles of streams and of gathers") {
    SOFATTN_GENERATOR(random);
    for (int n = 0; n < 200; ++n) {
        hw::sram_parameters const p{.name = "token",
                                    .capacity_bytes = 1024,
                                    .banks = random.integer<std::uint64_t>(1, 8),
                                    .ports_per_bank = random.integer<std::uint64_t>(1, 3),
                                    .port_bytes = random.integer<std::uint64_t>(1, 64)};
        auto const size = random.integer<std::uint64_t>(0, 2000);
        std::vector<std::uint64_t> words((size + p.port_bytes - 1) / p.port_bytes);
        std::iota(words.begin(), words.end(), random.next() % 100);
        auto const streamed = hw::stream_cycles(p, bytes(size));
        CHECK(streamed.count() * p.bytes_per_cycle() >= size);
        CHECK((streamed.count() == 0 || (streamed.count() - 1) * p.bytes_per_cycle() < size));
        // A stream is the gather without conflicts.
        CHECK(hw::gather_cycles(p, words) == streamed);
        for (auto& w : words) {
            w = random.next() % 1000;
        }
        CHECK(hw::gather_cycles(p, words) >= streamed);
        std::ranges::fill(words, 17); // all of one bank
        CHECK(hw::gather_cycles(p, words) ==
              cycles((words.size() + p.ports_per_bank - 1) / p.ports_per_bank));
    }
}

TEST_CASE("hw.sram: a memory of nothing is refused") {
    CHECK_THROWS_WITH_AS(hw::sram(of(0)), "sram temporary: capacity_bytes is 0, must be at least 1",
                         error);
    hw::sram_parameters p = of(10);
    p.banks = 0;
    CHECK_THROWS_WITH_AS(p.validate(), "sram temporary: banks is 0, must be at least 1", error);
}
