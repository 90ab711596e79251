// SPDX-License-Identifier: MIT
// Prices calibrated on Table III, so that its totals come out exactly where every array streams.
#pragma once

#include <sofattn/hw/activity.hpp>
#include <sofattn/hw/energy_table.hpp>

#include <array>
#include <string_view>

namespace sofattn::hw {

/// A row of Table III.
struct table3_row {
    block of{};
    double square_millimetres = 0;
    double milliwatts = 0;
};
/// Paper, Table III: 28 nm, 1 GHz.
inline constexpr std::array<table3_row, 6> table3{{
    {block::prediction, 0.351, 29.05},
    {block::selection, 0.679, 112.79},
    {block::kv_generation, 0.875, 146.21},
    {block::attention, 3.012, 485.12},
    {block::memory, 0.497, 170.23},
    {block::scheduler, 0.280, 6.45},
}};

/// What happens in one cycle when every array streams without a pause, with heads of 128: the point
/// at which `sofa_table3` gives Table III's powers. Table III does not say at which activity its
/// powers were taken; full activity is the reading under which no unit is more efficient than
/// printed. Encoders and dividers rest in the steady state; a memory serves one full word per port.
[[nodiscard]] constexpr activity_counts table3_cycle() noexcept {
    activity_counts done;
    done.add(activity::shift_add_16, 128 * 32);
    done.add(activity::sort_pass, 128);
    done.add(activity::kv_multiply_add, 128 * 4);
    done.add(activity::multiply_add, 128 * 4);
    done.add(activity::row_cycle, 128);
    done.add(activity::exp, 128 * 2 / 128); // two scores per row in 128 cycles
    done.add(activity::token_read_bytes, 64);
    done.add(activity::weight_read_bytes, 64);
    done.add(activity::temporary_read_bytes, 32);
    done.add(activity::key_issue, 1);
    return done;
}

/// Table III in prices per event and unit. Where its rows hold several kinds of units, the small
/// ones are priced from public figures and the large one takes the rest, so that rows stay exact.
[[nodiscard]] constexpr energy_table sofa_table3() noexcept {
    constexpr double gigahertz = 1.0; // mW / GHz = pJ per cycle
    constexpr double square_micrometres = 1e6;
    // No figure for 28 nm logic is public that fits Table III; a tenth is assumed.
    constexpr double leaking = 0.10;
    constexpr auto dynamic = [](table3_row const& row) {
        return row.milliwatts * (1 - leaking) / gigahertz;
    };
    constexpr auto leak = [](table3_row const& row, double share, double units) {
        return 1e3 * row.milliwatts * leaking * share / units; // microwatts
    };
    auto const& [prediction, selection, generation, attention, memory, scheduler] = table3;
    constexpr std::string_view calibrated = "Table III";

    energy_table t{"sofa_table3",
                   "Table III of the paper: exact at full activity; static share of logic assumed",
                   28,
                   1.0,
                   {},
                   {}};

    double const shift = dynamic(prediction) / (128 * 32);
    t.with(activity::shift_add_8, shift, "Table III, which does not tell 8 from 16 bits")
        .with(activity::shift_add_16, shift, calibrated)
        .with(activity::lz_encode, 0.015, "an 8-bit addition, Horowitz scaled to 28 nm")
        .with(activity::key_rotation, 0.41, "not in Table III: 16-bit multiplication, public_28nm")
        .with(activity::predictor_multiply_add_4, 0.05, "not in Table III: public_28nm")
        .with(activity::predictor_multiply_add_8, 0.151, "not in Table III: public_28nm")
        .with(activity::predictor_multiply_add_16, 0.461, "not in Table III: public_28nm");
    constexpr double encoder = 23.5;
    double const element =
        (prediction.square_millimetres * square_micrometres - 128 * encoder) / (128 * 32);
    t.with(part::shift_element, element, leak(prediction, 1, 128 * 32),
           "Table III, encoders taken out")
        .with(part::lz_encoder, encoder, 0, "Yosys: 48 gates of 0.49 um2; leaks in shift_element");

    t.with(activity::sort_pass, dynamic(selection) / 128, calibrated)
        .with(part::sort_core, selection.square_millimetres * square_micrometres / 128,
              leak(selection, 1, 128), calibrated);

    // Rivals' parts: areas of Yosys and ABC, which are larger than Table III's where both exist.
    constexpr std::string_view outside = "not in Table III: public_28nm";
    // Leaks per area as the KV array.
    double const density =
        leak(generation, 1, 1) / (generation.square_millimetres * square_micrometres);
    t.with(activity::select_compare, 0.025, outside)
        .with(part::predictor_mac_4, 298, 298 * density, outside)
        .with(part::predictor_mac_8, 732, 732 * density, outside)
        .with(part::predictor_mac_16, 2058, 2058 * density, outside)
        .with(part::compare_lane, 127, 127 * density, outside);

    double const mac = dynamic(generation) / 512;
    double const mac_area = generation.square_millimetres * square_micrometres / 512;
    double const mac_leak = leak(generation, 1, 512);
    t.with(activity::kv_multiply_add, mac, calibrated)
        .with(activity::multiply_add, mac, "Table III: as an element of the KV array")
        .with(part::kv_mac, mac_area, mac_leak, calibrated)
        .with(part::attention_mac, mac_area, mac_leak, "Table III: as an element of the KV array");

    constexpr double exp = 0.82;
    constexpr double exp_area = 1071;
    constexpr double divider_area = 264 + 462;
    t.with(activity::exp, exp, "public 28 nm synthesis, taken out of row_cycle")
        .with(activity::divide, 0.22 + 0.73, "public 28 nm synthesis: reciprocal and multiply")
        .with(activity::max_update, 0.05, "compare and subtract of 16 bits, Horowitz scaled")
        .with(activity::row_cycle, (dynamic(attention) - 512 * mac - 2 * exp) / 128,
              "Table III: SU-FA without its products and exponentials");
    t.with(part::exp_unit, exp_area, 0, "public 28 nm synthesis; leaks in attention_row")
        .with(part::divider, divider_area, 0, "public 28 nm synthesis; leaks in attention_row")
        .with(part::attention_row,
              (attention.square_millimetres * square_micrometres - 512 * mac_area) / 128 -
                  exp_area - divider_area,
              (1e3 * attention.milliwatts * leaking - 512 * mac_leak) / 128,
              "Table III: SU-FA without its elements, exponentials and dividers");

    // CACTI 7, 28 nm, itrs-hp, 350 K: pJ per byte at ports of 64, 64 and 32 bytes, and leakage.
    constexpr double leak_milliwatts = 41.7 + 20.8 + 6.7;
    double const factor =
        (memory.milliwatts - leak_milliwatts) / gigahertz / (64 * 0.814 + 64 * 0.499 + 32 * 0.290);
    constexpr std::string_view scaled = "CACTI 7, all scaled by one factor to Table III";
    t.with(activity::token_read_bytes, 0.814 * factor, scaled)
        .with(activity::token_write_bytes, 1.18 * factor, scaled)
        .with(activity::weight_read_bytes, 0.499 * factor, scaled)
        .with(activity::weight_write_bytes, 0.869 * factor, scaled)
        .with(activity::temporary_read_bytes, 0.290 * factor, scaled)
        .with(activity::temporary_write_bytes, 0.504 * factor, scaled);
    constexpr double capacity = (192 + 96 + 28) * 1024;
    double const byte_area = memory.square_millimetres * square_micrometres / capacity;
    constexpr std::string_view cells = "area Table III; leakage CACTI 7, 350 K";
    t.with(part::token_byte, byte_area, 41.7e3 / (192 * 1024), cells)
        .with(part::weight_byte, byte_area, 20.8e3 / (96 * 1024), cells)
        .with(part::temporary_byte, byte_area, 6.7e3 / (28 * 1024), cells);

    t.with(activity::key_issue, dynamic(scheduler), calibrated)
        .with(part::scheduler, scheduler.square_millimetres * square_micrometres,
              leak(scheduler, 1, 1), calibrated);

    constexpr std::string_view off_chip = "Table IV: 1.92 W and 0.53 W at 59.8 GB/s";
    t.with(activity::interface_bits, 1.11, off_chip)
        .with(activity::dram_read_bits, 4.01, off_chip)
        .with(activity::dram_write_bits, 4.01, off_chip);
    return t;
}

} // namespace sofattn::hw
