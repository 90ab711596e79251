// SPDX-License-Identifier: MIT
// The table that a machine's run is charged by.
#pragma once

#include <sofattn/core/error.hpp>
#include <sofattn/hw/activity.hpp>
#include <sofattn/hw/config.hpp>
#include <sofattn/hw/energy_table.hpp>
#include <sofattn/hw/node_scaling.hpp>
#include <sofattn/hw/public_prices.hpp>
#include <sofattn/hw/table3_prices.hpp>

#include <array>
#include <string>
#include <string_view>

namespace sofattn::hw {

/// The tables there are, as published.
[[nodiscard]] inline std::array<energy_table, 3> energy_tables() noexcept {
    return {sofa_table3(), public_28nm(), horowitz_scaled()};
}

/// By name; throws `error` for another.
[[nodiscard]] inline energy_table find_table(std::string_view name) {
    for (energy_table const& t : energy_tables()) {
        if (t.name == name) {
            return t;
        }
    }
    throw error("hardware: process.energy_table_name", "\"" + std::string(name) + "\"",
                "sofa_table3, public_28nm or horowitz_scaled");
}

/// The machine's table at its node and supply, with the prices of its DRAM. Off-chip prices are
/// the machine's own and are not scaled: a DRAM's process is another.
[[nodiscard]] inline energy_table prices_for(machine const& m) {
    energy_table t = find_table(m.process.energy_table_name);
    scale_factors const by = scale(m.process.node_scaling_name, {t.node_nanometres, t.supply_volts},
                                   {m.process.node_nanometres, m.process.supply_volts});
    for (auto& price : t.activities) {
        price.picojoules *= by.energy;
    }
    for (auto& price : t.parts) {
        price.square_micrometres *= by.area;
        price.static_microwatts *= by.energy;
    }
    if (m.process.node_scaling_name != "none") {
        t.node_nanometres = m.process.node_nanometres;
        t.supply_volts = m.process.supply_volts;
    }
    bool const is_flat = m.memory.model_name == "flat";
    std::string_view const own =
        is_flat ? "the machine's memory" : "0 here: the machine's DRAM model computes its own";
    double const dram = is_flat ? m.memory.dram_picojoules_per_bit : 0.0;
    t.with(activity::interface_bits, is_flat ? m.memory.interface_picojoules_per_bit : 0.0, own)
        .with(activity::dram_read_bits, dram, own)
        .with(activity::dram_write_bits, dram, own);
    return t;
}

} // namespace sofattn::hw
