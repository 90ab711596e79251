// SPDX-License-Identifier: MIT
// Memories by name, with the sources of their numbers.
#pragma once

#include <sofattn/core/error.hpp>
#include <sofattn/hw/dram_parameters.hpp>

#include <array>
#include <string>
#include <string_view>

namespace sofattn::hw {

/// One HBM2 stack of 8 GB, 8 channels of 128 bits at 2 Gb/s: 256 GB/s.
[[nodiscard]] inline dram_parameters hbm2_8gb_x128() {
    return {.name = "hbm2_8gb_x128",
            .source = "structure, timing and currents: DRAMsim3 (U. Maryland), configuration "
                      "HBM2_8Gb_x128; interface: SOFA Table IV, 0.53 W at 59.8 GB/s",
            .channels = 8,
            .bank_groups = 4,
            .banks_per_group = 4,
            .rows = 32768,
            .row_bytes = 2048,
            .burst_bytes = 64,
            .burst_cycles = 2,
            .mapping = "rorabgbachco",
            .clock_ns = 1.0,
            .cl_cycles = 14,
            .cwl_cycles = 4,
            .rcd_read_cycles = 14,
            .rcd_write_cycles = 14,
            .rp_cycles = 14,
            .ras_cycles = 34,
            .rfc_cycles = 260,
            .refi_cycles = 3900,
            .rrd_s_cycles = 4,
            .rrd_l_cycles = 6,
            .faw_cycles = 30,
            .ccd_s_cycles = 1,
            .ccd_l_cycles = 2,
            .wtr_s_cycles = 6,
            .wtr_l_cycles = 8,
            .wr_cycles = 16,
            .rtp_cycles = 6,
            .vdd_v = 1.2,
            .idd0_ma = 65,
            .idd2n_ma = 40,
            .idd3n_ma = 55,
            .idd4r_ma = 390,
            .idd4w_ma = 500,
            .idd5ab_ma = 250,
            .io_pj_per_bit = 0.53e3 / (59.8 * 8.0)};
}

/// The paper's memory, "16 channels x 64 bit at 2 GHz": the same stack as 16 pseudo-channels, which
/// interleave every 64 bytes.
[[nodiscard]] inline dram_parameters hbm2_16x64() {
    dram_parameters p = hbm2_8gb_x128();
    p.name = "hbm2_16x64";
    p.source = "structure: SOFA section V; timing: Ramulator 2 (SAFARI), preset HBM2_2Gbps, 8 Gb; "
               "currents: DRAMsim3, configuration HBM2_8Gb_x128, half a device per pseudo-channel; "
               "interface: SOFA Table IV, 0.53 W at 59.8 GB/s";
    p.pseudo_channels = 2;
    p.row_bytes = 1024;
    p.burst_bytes = 64;
    p.burst_cycles = 4;
    p.mapping = "rorababgcoch";
    p.cl_cycles = 7;
    p.cwl_cycles = 2;
    p.rcd_read_cycles = 7;
    p.rcd_write_cycles = 7;
    p.rp_cycles = 7;
    p.ras_cycles = 17;
    p.rfc_cycles = 350;
    p.rrd_s_cycles = 2;
    p.rrd_l_cycles = 3;
    p.faw_cycles = 15;
    p.ccd_s_cycles = 1;
    p.ccd_l_cycles = 2;
    p.wtr_s_cycles = 3;
    p.wtr_l_cycles = 4;
    p.wr_cycles = 8;
    p.rtp_cycles = 3;
    p.devices_per_rank = 0.5;
    return p;
}

/// One channel of DDR4-2133, two ranks of four x16 devices: 17 GB/s.
[[nodiscard]] inline dram_parameters ddr4_2133() {
    return {.name = "ddr4_2133",
            .source = "DRAMsim3 (U. Maryland), configuration DDR4_4Gb_x16_2133; the interface's "
                      "termination is not in it and counts as 0",
            .channels = 1,
            .ranks = 2,
            .bank_groups = 2,
            .banks_per_group = 4,
            .rows = 32768,
            .row_bytes = 8192,
            .burst_bytes = 64,
            .burst_cycles = 4,
            .mapping = "rochrababgco",
            .clock_ns = 0.94,
            .cl_cycles = 16,
            .cwl_cycles = 11,
            .rcd_read_cycles = 16,
            .rcd_write_cycles = 16,
            .rp_cycles = 16,
            .ras_cycles = 36,
            .rfc_cycles = 278,
            .refi_cycles = 8328,
            .rrd_s_cycles = 6,
            .rrd_l_cycles = 7,
            .faw_cycles = 32,
            .ccd_s_cycles = 4,
            .ccd_l_cycles = 6,
            .wtr_s_cycles = 3,
            .wtr_l_cycles = 8,
            .wr_cycles = 16,
            .rtp_cycles = 8,
            .vdd_v = 1.2,
            .idd0_ma = 65,
            .idd2n_ma = 42,
            .idd3n_ma = 55,
            .idd4r_ma = 195,
            .idd4w_ma = 250,
            .idd5ab_ma = 170,
            .devices_per_rank = 4};
}

/// One channel of DDR4-3200, two ranks of eight x8 devices, bank groups interleaved: the 25.6 GB/s
/// that the paper quotes.
[[nodiscard]] inline dram_parameters ddr4_3200() {
    dram_parameters p = ddr4_2133();
    p.name = "ddr4_3200";
    p.source = "DRAMsim3 (U. Maryland), configuration DDR4_8Gb_x8_3200, with bank groups below the "
               "column; the interface's termination is not in it and counts as 0";
    p.bank_groups = 4;
    p.rows = 65536;
    p.mapping = "rochrabacobg";
    p.clock_ns = 0.625; // 0.63 there, rounded
    p.cl_cycles = 22;
    p.cwl_cycles = 16;
    p.rcd_read_cycles = 22;
    p.rcd_write_cycles = 22;
    p.rp_cycles = 22;
    p.ras_cycles = 52;
    p.rfc_cycles = 560;
    p.refi_cycles = 12480;
    p.rrd_s_cycles = 4;
    p.rrd_l_cycles = 8;
    p.faw_cycles = 34;
    p.ccd_s_cycles = 4;
    p.ccd_l_cycles = 8;
    p.wtr_s_cycles = 4;
    p.wtr_l_cycles = 12;
    p.wr_cycles = 24;
    p.rtp_cycles = 12;
    p.idd0_ma = 57;
    p.idd2n_ma = 37;
    p.idd3n_ma = 52;
    p.idd4r_ma = 168;
    p.idd4w_ma = 150;
    p.idd5ab_ma = 250;
    p.devices_per_rank = 8;
    return p;
}

inline constexpr std::array<std::string_view, 4> dram_preset_names{"hbm2_8gb_x128", "hbm2_16x64",
                                                                   "ddr4_2133", "ddr4_3200"};

/// Throws `error` for a name that is not in `dram_preset_names`.
[[nodiscard]] inline dram_parameters dram_preset(std::string_view name) {
    for (auto const make : {hbm2_8gb_x128, hbm2_16x64, ddr4_2133, ddr4_3200}) {
        if (dram_parameters p = make(); p.name == name) {
            return p;
        }
    }
    std::string known;
    for (std::string_view const one : dram_preset_names) {
        known += (known.empty() ? "" : ", ") + std::string(one);
    }
    throw error("dram: preset", '"' + std::string(name) + '"', "one of " + known);
}

} // namespace sofattn::hw
