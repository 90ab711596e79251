// SPDX-License-Identifier: MIT
// Prices from public figures: 28 nm synthesis and memory compilers, and Horowitz's table.
#pragma once

#include <sofattn/hw/activity.hpp>
#include <sofattn/hw/energy_table.hpp>

#include <string_view>

namespace sofattn::hw {

namespace detail {
/// Leakage per area of the 16 KB SRAM of Focus's memory compiler: 0.20 mW on 27 656 um2. Taken for
/// logic, too, since no public figure separates it.
inline constexpr double leakage_density = 0.20e3 / (16 * 1024 * 8 * 0.211); // uW / um2
/// A comparison-exchange of 16-bit scores with 8-bit indices, and registers for the 16 entries.
inline constexpr int comparators = 44;
inline constexpr int clips = 12;
} // namespace detail

/// Nothing of the paper's: what its machine would cost in blocks whose figures are public.
[[nodiscard]] constexpr energy_table public_28nm() noexcept {
    using detail::clips;
    using detail::comparators;
    constexpr std::string_view horowitz = "Horowitz's 45 nm table x 0.507 (Stillmaker and Baas)";
    constexpr std::string_view focus = "Focus: TSMC synthesis, fp16";
    constexpr std::string_view cacti = "CACTI 7, 28 nm, itrs-hp, 350 K";
    constexpr std::string_view yosys = "Yosys and ABC: gates of 0.49 um2";
    constexpr auto leak = [](double area) { return area * detail::leakage_density; };

    energy_table t{"public_28nm", "Public figures of 28 nm, none of the paper's", 28, 0.9, {}, {}};
    t.with(activity::shift_add_8, 0.015 + 0.051, horowitz)
        .with(activity::shift_add_16, 0.025 + 0.051, horowitz)
        .with(activity::lz_encode, 0.015, horowitz)
        .with(activity::key_rotation, 0.41, horowitz)
        .with(activity::predictor_multiply_add_4, 0.025 + 0.025, horowitz)
        .with(activity::predictor_multiply_add_8, 0.10 + 0.051, horowitz)
        .with(activity::predictor_multiply_add_16, 0.41 + 0.051, horowitz)
        .with(activity::sort_pass, (comparators + clips) * 0.025,
              "Horowitz scaled: 44 comparators and 12 clips of 16 bits")
        .with(activity::select_compare, 0.025,
              "Horowitz scaled: a 16-bit comparison as an addition")
        .with(activity::kv_multiply_add, 0.634, focus)
        .with(activity::multiply_add, 0.634, focus)
        .with(activity::row_cycle, 3 * 2 * 0.61,
              "Focus: 1 KB x 16 b at 0.61 pJ/B; a query read, an output read and written")
        .with(activity::exp, 0.82, focus)
        .with(activity::divide, 0.22 + 0.73, "Focus: reciprocal and multiply")
        .with(activity::max_update, 0.025 + 0.025, horowitz)
        .with(activity::token_read_bytes, 0.814, cacti)
        .with(activity::token_write_bytes, 1.18, cacti)
        .with(activity::weight_read_bytes, 0.499, cacti)
        .with(activity::weight_write_bytes, 0.869, cacti)
        .with(activity::temporary_read_bytes, 0.290, cacti)
        .with(activity::temporary_write_bytes, 0.504, cacti)
        .with(activity::key_issue, 16 * 0.42, "Focus: 128-bit mask of an 8 KB x 128 b SRAM")
        .with(activity::interface_bits, 1.11, "Table IV: no public figure")
        .with(activity::dram_read_bits, 3.02, "DRAMsim3, HBM2, sequential at 59.7 GB/s")
        .with(activity::dram_write_bits, 3.02, "DRAMsim3, HBM2, sequential at 59.7 GB/s");
    t.with(part::shift_element, 570, leak(570), yosys)
        .with(part::predictor_mac_4, 298, leak(298), yosys)
        .with(part::predictor_mac_8, 732, leak(732), yosys)
        .with(part::predictor_mac_16, 2058, leak(2058), yosys)
        .with(part::compare_lane, 127, leak(127), yosys)
        .with(part::lz_encoder, 23.5, leak(23.5), yosys)
        .with(part::sort_core, 48 * 127, leak(48 * 127), yosys)
        .with(part::kv_mac, 1378, leak(1378), focus)
        .with(part::attention_mac, 1378, leak(1378), focus)
        .with(part::attention_row, 3 * 256 * 8 * 0.211, leak(3 * 256 * 8 * 0.211),
              "Focus: 0.211 um2/b; lines of 128 values for a query and two outputs")
        .with(part::exp_unit, 1071, leak(1071), focus)
        .with(part::divider, 264 + 462, leak(264 + 462), focus)
        .with(part::token_byte, 0.326e6 / (192 * 1024), 41.7e3 / (192 * 1024), cacti)
        .with(part::weight_byte, 0.119e6 / (96 * 1024), 20.8e3 / (96 * 1024), cacti)
        .with(part::temporary_byte, 0.036e6 / (28 * 1024), 6.7e3 / (28 * 1024), cacti)
        .with(part::scheduler, 0.280e6, leak(0.280e6), "area Table III: no public figure");
    return t;
}

/// Horowitz's table as it stands, at 45 nm and 0.9 V, to be carried to another node by a named rule.
/// Areas are Aladdin's, at 40 nm, carried to 45 nm by the square of the feature size.
[[nodiscard]] constexpr energy_table horowitz_scaled() noexcept {
    using detail::clips;
    using detail::comparators;
    constexpr std::string_view horowitz = "Horowitz, ISSCC 2014, 45 nm";
    constexpr std::string_view between = "Horowitz, interpolated in width";
    constexpr std::string_view sram = "Horowitz: 8, 32 KB, 1 MB, interpolated in the logarithm";
    constexpr std::string_view aladdin = "Aladdin, 40 nm, composed";
    constexpr double to_45 = 45.0 * 45 / (40 * 40);
    constexpr auto leak = [](double area) { return area * detail::leakage_density; };

    energy_table t{
        "horowitz_scaled", "Horowitz's 45 nm energies, Aladdin's areas", 45, 0.9, {}, {}};
    t.with(activity::shift_add_8, 0.03 + 0.1, horowitz)
        .with(activity::shift_add_16, 0.05 + 0.1, between)
        .with(activity::lz_encode, 0.03, horowitz)
        .with(activity::key_rotation, 0.8, between)
        .with(activity::predictor_multiply_add_4, 0.05 + 0.05, between)
        .with(activity::predictor_multiply_add_8, 0.2 + 0.1, horowitz)
        .with(activity::predictor_multiply_add_16, 0.8 + 0.1, between)
        .with(activity::sort_pass, (comparators + clips) * 0.05, between)
        .with(activity::select_compare, 0.05, between)
        .with(activity::kv_multiply_add, 0.8 + 0.1, between)
        .with(activity::multiply_add, 0.8 + 0.1, between)
        .with(activity::row_cycle, 3 * 2 * 1.25, "Horowitz: 8 KB SRAM; three 16-bit accesses")
        .with(activity::exp, 2 * 0.8 + 2 * 0.05, "two multiplications, two additions of 16 bits")
        .with(activity::divide, 16 * 0.05, "16 subtractions of 16 bits")
        .with(activity::max_update, 2 * 0.05, between)
        .with(activity::token_read_bytes, 5.74, sram)
        .with(activity::token_write_bytes, 5.74, sram)
        .with(activity::weight_read_bytes, 4.16, sram)
        .with(activity::weight_write_bytes, 4.16, sram)
        .with(activity::temporary_read_bytes, 2.34, sram)
        .with(activity::temporary_write_bytes, 2.34, sram)
        .with(activity::key_issue, 16 * 1.25, "Horowitz: 128-bit mask of an 8 KB SRAM")
        .with(activity::interface_bits, 1.11, "Table IV: no figure of Horowitz's")
        .with(activity::dram_read_bits, 1300.0 / 64, "Horowitz: 1.3 nJ per 64 bits, the lower end")
        .with(activity::dram_write_bits, 1300.0 / 64,
              "Horowitz: 1.3 nJ per 64 bits, the lower end");
    auto const logic = [&](part p, double area) {
        t.with(p, to_45 * area, leak(to_45 * area), aladdin);
    };
    logic(part::shift_element, 278 + 40 * 5.98); // adder, 40-bit register
    logic(part::predictor_mac_4, 1587.5 / 16 + 139 + 16 * 5.98);
    logic(part::predictor_mac_8, 1587.5 / 4 + 139 + 24 * 5.98);
    logic(part::predictor_mac_16, 1587.5 + 278 + 32 * 5.98);
    logic(part::compare_lane, 35.5 + 24 * 5.98);
    logic(part::lz_encoder, 139);                       // as a 16-bit adder
    logic(part::sort_core, 56 * 35.5 + 16 * 24 * 5.98); // comparators, entries
    logic(part::kv_mac, 1587.5 + 278 + 32 * 5.98);      // 16 x 16 bits, adder, register
    logic(part::attention_mac, 1587.5 + 278 + 32 * 5.98);
    logic(part::attention_row, 3 * 128 * 16 * 5.98); // three lines in registers
    logic(part::exp_unit, 2 * 1587.5 + 2 * 139);
    logic(part::divider, 16 * 139); // unrolled
    double const sram_byte = to_45 * 8 * 0.211 * 40 * 40 / (28.0 * 28);
    for (part const p : {part::token_byte, part::weight_byte, part::temporary_byte}) {
        t.with(p, sram_byte, leak(sram_byte), "Focus, 0.211 um2/b at 28 nm, carried to 45 nm");
    }
    t.with(part::scheduler, 0.280e6 * 45 * 45 / (28.0 * 28), leak(0.280e6 * 45 * 45 / (28.0 * 28)),
           "Table III carried to 45 nm: no public figure");
    return t;
}

} // namespace sofattn::hw
