// SPDX-License-Identifier: MIT
#include <sofattn/hw/dram_parameters.hpp>
#include <sofattn/hw/dram_presets.hpp>

#include <doctest/doctest.h>
#include <support/generators.hpp>

#include <algorithm>
#include <array>
#include <cstdint>
#include <functional>
#include <limits>
#include <set>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

using namespace sofattn;
using test::generator;

namespace {

/// The fields of a mapping in a random order.
std::string shuffled_mapping(generator& random) {
    std::vector<std::string> fields{"ro", "ra", "bg", "ba", "ch", "co"};
    random.shuffle(fields);
    std::string name;
    for (auto const& f : fields) {
        name += f;
    }
    return name;
}

} // namespace

TEST_CASE("hw.dram_parameters: presets are valid, named, sourced, and as fast as they say") {
    for (std::string_view const name : hw::dram_preset_names) {
        hw::dram_parameters const p = hw::dram_preset(name);
        CHECK_NOTHROW(p.validate());
        CHECK(p.name == name);
        CHECK(p.source.size() > 20);
    }
    CHECK(hw::hbm2_8gb_x128().peak_gb_per_s() == doctest::Approx(256.0));
    CHECK(hw::hbm2_16x64().peak_gb_per_s() == doctest::Approx(256.0));
    CHECK(hw::hbm2_16x64().buses() == 16);
    CHECK(hw::ddr4_2133().peak_gb_per_s() == doctest::Approx(17.02).epsilon(0.001));
    CHECK(hw::ddr4_3200().peak_gb_per_s() == doctest::Approx(25.6));
    CHECK(hw::hbm2_8gb_x128().capacity_bytes() == hw::hbm2_16x64().capacity_bytes());
    CHECK(hw::hbm2_8gb_x128().capacity_bytes() == std::uint64_t{8} << 30);
    CHECK(hw::ddr4_2133().capacity_bytes() == std::uint64_t{4} << 30);
    CHECK_THROWS_WITH_AS((void)hw::dram_preset("sram"),
                         "dram: preset is \"sram\", must be one of hbm2_8gb_x128, hbm2_16x64, "
                         "ddr4_2133, ddr4_3200",
                         error);
}

TEST_CASE("hw.dram_parameters: a mapping is one to one, whatever its order") {
    SOFATTN_GENERATOR(random);
    for (int n = 0; n < 300; ++n) {
        hw::dram_parameters p = hw::dram_preset(hw::dram_preset_names[random.next() % 4]);
        p.mapping = shuffled_mapping(random);
        CAPTURE(p.mapping);
        hw::dram_mapping const map(p);
        std::uint64_t const address = random.next() % p.capacity_bytes();
        hw::dram_address const at = map(address);
        CHECK(map.address_of(at) == address / p.burst_bytes * p.burst_bytes);
        CHECK(map(address + p.capacity_bytes()) == at);
        CHECK(at.bus < p.buses());
        CHECK(at.rank < p.ranks);
        CHECK(at.group < p.bank_groups);
        CHECK(at.bank < p.banks_per_group);
        CHECK(at.row < p.rows);
        CHECK(at.column < p.bursts_per_row());
    }
}

TEST_CASE("hw.dram_parameters: rows, buses and bank groups that a stream touches") {
    SOFATTN_GENERATOR(random);
    for (int n = 0; n < 300; ++n) {
        hw::dram_parameters p = hw::dram_preset(hw::dram_preset_names[random.next() % 4]);
        p.mapping = shuffled_mapping(random);
        if (p.mapping.find("ro") < p.mapping.find("co") && p.mapping.find("ro") != 0 &&
            random.chance(0.5)) {
            p.mapping = "rorabgbachco";
        }
        if (p.mapping.find("ro") > p.mapping.find("co")) {
            continue; // every burst in another row: nobody does that
        }
        CAPTURE(p.mapping);
        hw::dram_mapping const map(p);
        std::uint64_t const bytes = random.integer<std::uint64_t>(1, 1u << random.integer(6, 18));
        std::set<
            std::tuple<std::uint64_t, std::uint64_t, std::uint64_t, std::uint64_t, std::uint64_t>>
            rows;
        for (std::uint64_t a = 0; a < bytes; a += p.burst_bytes) {
            auto const at = map(a);
            rows.emplace(at.bus, at.rank, at.group, at.bank, at.row);
        }
        CHECK(map.rows_of(bytes) == rows.size());
        std::uint64_t const turn = map.bytes_per_bus_turn();
        if (p.buses() > 1) {
            CHECK(map(turn - 1).bus == 0);
            CHECK(map(turn).bus == 1);
        }
    }
}

TEST_CASE("hw.dram_parameters: what cannot be is named") {
    using change = std::function<void(hw::dram_parameters&)>;
    double const nan = std::numeric_limits<double>::quiet_NaN();
    std::vector<std::pair<std::string, change>> const bad{
        {"channels", [](auto& p) { p.channels = 3; }},
        {"pseudo_channels", [](auto& p) { p.pseudo_channels = 0; }},
        {"ranks", [](auto& p) { p.ranks = 6; }},
        {"bank_groups", [](auto& p) { p.bank_groups = 0; }},
        {"banks_per_group", [](auto& p) { p.banks_per_group = 5; }},
        {"rows", [](auto& p) { p.rows = 1000; }},
        {"row_bytes", [](auto& p) { p.row_bytes = 32; }},
        {"burst_bytes", [](auto& p) { p.burst_bytes = 48; }},
        {"burst_cycles", [](auto& p) { p.burst_cycles = 0; }},
        {"queue_bursts", [](auto& p) { p.queue_bursts = 0; }},
        {"rfc_cycles", [](auto& p) { p.rfc_cycles = p.refi_cycles; }},
        {"address mapping", [](auto& p) { p.mapping = "rorabgbachch"; }},
        {"address mapping", [](auto& p) { p.mapping = "rorabgbach"; }},
        {"address mapping", [](auto& p) { p.mapping = "rorabgbachxx"; }},
        {"clock_ns", [&](auto& p) { p.clock_ns = nan; }},
        {"clock_ns", [](auto& p) { p.clock_ns = 0.0; }},
        {"vdd_v", [](auto& p) { p.vdd_v = -1.0; }},
        {"idd4r_ma", [](auto& p) { p.idd4r_ma = p.idd3n_ma - 1.0; }},
        {"idd0_ma", [](auto& p) { p.idd0_ma = p.idd3n_ma - 1.0; }},
        {"devices_per_rank", [](auto& p) { p.devices_per_rank = -2.0; }},
        {"io_pj_per_bit", [&](auto& p) { p.io_pj_per_bit = nan; }},
    };
    for (auto const& one : bad) {
        CAPTURE(one.first);
        hw::dram_parameters p = hw::hbm2_8gb_x128();
        one.second(p);
        try {
            p.validate();
            CHECK_MESSAGE(false, "accepted");
        } catch (error const& e) {
            CHECK(e.subject().find(one.first) != std::string::npos);
        }
    }
}
