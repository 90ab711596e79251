// SPDX-License-Identifier: MIT
// A machine as numbers: engines, buffers, DRAM, technology; and named ones.
#pragma once

#include <sofattn/core/error.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/hw/config_parts.hpp>
#include <sofattn/hw/field.hpp>
#include <sofattn/hw/kinds.hpp>

#include <boost/hana/adapt_struct.hpp>

#include <array>
#include <string>
#include <string_view>

namespace sofattn::hw {

/// Process and operating point.
struct technology {
    double clock_megahertz = 1000;
    double node_nanometres = 28;
    double supply_volts = 1.0;
    std::string energy_table_name = "sofa_table3";
    std::string node_scaling_name = "sofa_table2";

    static constexpr std::array fields{
        field{"clock_megahertz", "Of all engines", "Table III", 1, 10000},
        field{"node_nanometres", "Feature size that energies and areas are scaled to", "Table III",
              3, 250},
        field{"supply_volts", "Supply that energies are scaled to",
              "not in the paper; 1.0 makes Table II's column for 28 nm come out", 0.3, 2.5},
        field{"energy_table_name", "What events, leakage and area cost", "hw/energy_table.hpp", 0,
              0, "sofa_table3|public_28nm|horowitz_scaled"},
        field{"node_scaling_name", "Rule by which a table is carried to another node and supply",
              "hw/node_scaling.hpp", 0, 0, "sofa_table2|stillmaker_baas|none"},
    };
};

/// Off-chip memory. `flat`: a bandwidth and a latency for streams and others for scattered key and
/// value vectors, energy per bit; the other models have channels, banks, rows and refresh
/// (hw/dram_presets.hpp) and read none of the numbers here.
struct memory_link {
    std::string model_name = "flat";
    double peak_bytes_per_cycle = 256;
    double stream_share = 1.0;
    double scattered_share = 0.594;
    index_t stream_latency_cycles = 40;
    index_t scattered_latency_cycles = 72;
    double dram_picojoules_per_bit = 4.01;
    double interface_picojoules_per_bit = 1.11;

    static constexpr std::array fields{
        field{"model_name", "Flat numbers, or a DRAM with banks and rows",
              "Table IV for the flat ones; hw/dram_presets.hpp for the others", 0, 0,
              "flat|hbm2_16x64|hbm2_8gb_x128|ddr4_2133|ddr4_3200"},
        field{"peak_bytes_per_cycle", "Of the machine's cycles",
              "Table IV: 16 channels of 64 bits at 2 Gb/s, at 1 GHz", 0.01, 65536},
        field{"stream_share", "Share of the peak that long bursts reach",
              "Ramulator 2, HBM2, 16 channels: saturates at the nominal peak", 0.001, 1},
        field{"scattered_share", "Share of the peak that random bursts of 256 bytes reach",
              "Ramulator 2, HBM2, 16 channels: 152 GB/s", 0.001, 1},
        field{"stream_latency_cycles", "First byte of a stream", "Ramulator 2: 40 ns at 59.8 GB/s",
              0, 100000},
        field{"scattered_latency_cycles", "First byte of a scattered vector",
              "Ramulator 2: 72 ns at 59.8 GB/s", 0, 100000},
        field{"dram_picojoules_per_bit", "Device, standby and refresh included",
              "Table IV: 1.92 W at 59.8 GB/s", 0, 1000},
        field{"interface_picojoules_per_bit", "Physical interface", "Table IV: 0.53 W at 59.8 GB/s",
              0, 1000},
    };
};

/// Everything a run needs to know of a machine.
struct machine {
    std::string base_name = "sofa_28nm";
    technology process{};
    prediction_engine prediction{};
    selection_engine selection{};
    generation_engine generation{};
    attention_engine attention{};
    schedule_engine schedule{};
    buffer_set buffers{};
    memory_link memory{};
    pipeline_settings pipeline{};

    static constexpr std::array fields{
        field{"base_name", "Named machine that the other fields are departures from",
              "hw/config.hpp", 0, 0,
              "sofa_28nm|sofa_row_ready|sofa_shared_exp|sofa_one_port|sofa_hbm2|sofa_ddr4|fact|"
              "energon|"
              "spatten|sanger|dense_fa2|plain_4bit"},
        field{"process", "Clock, node, supply, tables"},
        field{"prediction", "DLZS: leading-zero encoders and shift array"},
        field{"selection", "SADS: sorting cores"},
        field{"generation", "Exact keys and values of kept tokens"},
        field{"attention", "SU-FA: two systolic arrays, exponentials, dividers"},
        field{"schedule", "RASS: order of loads"},
        field{"buffers", "On-chip memories"},
        field{"memory", "DRAM and its interface"},
        field{"pipeline", "Hand-over between engines"},
    };
};

} // namespace sofattn::hw

// clang-format off
BOOST_HANA_ADAPT_STRUCT(sofattn::hw::technology,
    clock_megahertz, node_nanometres, supply_volts, energy_table_name, node_scaling_name);
BOOST_HANA_ADAPT_STRUCT(sofattn::hw::memory_link,
    model_name, peak_bytes_per_cycle, stream_share, scattered_share, stream_latency_cycles,
    scattered_latency_cycles, dram_picojoules_per_bit, interface_picojoules_per_bit);
BOOST_HANA_ADAPT_STRUCT(sofattn::hw::machine,
    base_name, process, prediction, selection, generation, attention, schedule, buffers, memory,
    pipeline);
// clang-format on

namespace sofattn::hw {

/// Throws `error` naming field, value and limit, for fields out of range and for parts that do not
/// fit together.
inline void validate(machine const& m) {
    check_fields(m, "hardware: ");
    if (m.schedule.keys_per_phase_count != m.attention.keys_per_row_count) {
        throw error("hardware: schedule.keys_per_phase_count",
                    detail::number_text(m.schedule.keys_per_phase_count),
                    "attention.keys_per_row_count, " +
                        detail::number_text(m.attention.keys_per_row_count));
    }
    if ((kind_of(m.prediction) == predictor_kind::none) !=
        (kind_of(m.selection) == selector_kind::none)) {
        throw error("hardware: selection.kind_name", "\"" + m.selection.kind_name + "\"",
                    "\"none\" where prediction.kind_name is, and only there");
    }
    index_t const coded = m.prediction.array_rows_count + m.prediction.array_columns_count;
    if (kind_of(m.prediction) == predictor_kind::two_sided_lz &&
        m.prediction.lz_encoders_count < coded) {
        throw error("hardware: prediction.lz_encoders_count",
                    detail::number_text(m.prediction.lz_encoders_count),
                    "at least one per row and column of the array, " + detail::number_text(coded) +
                        ", where both operands are coded");
    }
}

/// The paper's machine, Tables III and IV.
[[nodiscard]] inline machine sofa_28nm() { return {}; }
/// The same engines with whole rows handed over, as earlier designs do (Fig. 3).
[[nodiscard]] inline machine sofa_row_ready() {
    machine m;
    m.base_name = "sofa_row_ready";
    m.pipeline.hand_over_name = "row_ready";
    return m;
}
/// Exponentials and divisions shared by 32 rows: they wait for the products all the same. Not in
/// the paper.
[[nodiscard]] inline machine sofa_shared_exp() {
    machine m;
    m.base_name = "sofa_shared_exp";
    m.attention.exp_units_count = 4;
    m.attention.dividers_count = 4;
    return m;
}
/// A word per cycle and memory, at the widths of Table III's calibration: what the SRAM's printed
/// power allows. The printed peaks of the engines need several times more, which sofa_28nm has.
[[nodiscard]] inline machine sofa_one_port() {
    machine m;
    m.base_name = "sofa_one_port";
    for (sram_buffer* memory : {&m.buffers.token, &m.buffers.weight, &m.buffers.temporary}) {
        memory->ports_count = 1;
    }
    return m;
}
/// With banks, rows and refresh of the paper's HBM2 instead of Table IV's energy per bit.
[[nodiscard]] inline machine sofa_hbm2() {
    machine m;
    m.base_name = "sofa_hbm2";
    m.memory.model_name = "hbm2_16x64";
    return m;
}
/// With the DDR4 of 25.6 GB/s that the paper quotes.
[[nodiscard]] inline machine sofa_ddr4() {
    machine m;
    m.base_name = "sofa_ddr4";
    m.memory.model_name = "ddr4_3200";
    return m;
}

// --- rivals: earlier designs on the same graph ---------------------------------------------------

namespace detail {
/// As many banks for scores as the selector reads, and writes where it sorts, in a cycle, beside
/// those that SOFA has: nothing says what the designs have, and their selectors are guessed.
inline void serve_selector(machine& m) {
    index_t const ways = m.selection.kind_name == "full_sort" ? 2 : 1;
    index_t const bytes =
        m.selection.cores_count * m.selection.new_inputs_count * m.prediction.result_bytes * ways;
    m.buffers.temporary.ports_count += ceil_div(bytes, m.buffers.temporary.port_bytes_per_cycle);
}
/// Fig. 3 gives FACT and Energon 2 MB of SRAM and does not say what it holds: half for keys and values,
/// nearly all else for scores. The DRAM stays SOFA's.
inline void give_2_mb(machine& m) {
    m.pipeline.hand_over_name = "row_ready";
    m.buffers.token.capacity_bytes = 1024 * 1024;
    m.buffers.weight.capacity_bytes = 128 * 1024;
    m.buffers.temporary.capacity_bytes = 896 * 1024;
}
} // namespace detail

/// FACT (ISCA 2023): leading ones of both operands, top-k of whole rows, 512 multipliers at 500 MHz
/// (Table II). Guessed: SOFA's array sizes, a full sort, and FlashAttention-2 where FACT takes the
/// softmax of a whole row; out-of-order generation of K and V is RASS's.
[[nodiscard]] inline machine fact() {
    machine m;
    m.base_name = "fact";
    m.process.clock_megahertz = 500;
    m.memory.peak_bytes_per_cycle = 512; // 256 GB/s
    m.prediction.kind_name = "two_sided_lz";
    m.prediction.lz_encoders_count =
        m.prediction.array_rows_count + m.prediction.array_columns_count;
    m.selection.kind_name = "full_sort";
    m.attention.kind_name = "flash_attention_2";
    detail::give_2_mb(m);
    detail::serve_selector(m);
    return m;
}
/// Energon (TCAD 2022): 4-bit products, again for the keys above a threshold from the row's mean, and
/// a second threshold; 45 nm, 1 GHz (Table II). Guessed: SOFA's array sizes, half of the keys
/// survive, FlashAttention-2.
[[nodiscard]] inline machine energon() {
    machine m;
    m.base_name = "energon";
    m.process.node_nanometres = 45;
    m.process.supply_volts = 1.1;
    m.prediction.kind_name = "multi_round";
    m.selection.kind_name = "mean_threshold";
    m.attention.kind_name = "flash_attention_2";
    detail::give_2_mb(m);
    detail::serve_selector(m);
    return m;
}
/// SpAtten (HPCA 2021): tokens ranked once per head by the probabilities that earlier rows and
/// layers gave them, by its published selector of 16 per cycle; 40 nm, 1 GHz (Table II). Guessed:
/// SOFA's array sizes, FlashAttention-2. Left out: bits that are fetched only if needed, pruned
/// heads and values.
[[nodiscard]] inline machine spatten() {
    machine m;
    m.base_name = "spatten";
    m.process.node_nanometres = 40;
    m.process.supply_volts = 1.1;
    m.prediction.kind_name = "history";
    m.selection.kind_name = "quick_select";
    m.selection.cores_count = 1;
    m.selection.new_inputs_count = 16;
    m.attention.kind_name = "flash_attention_2";
    detail::give_2_mb(m);
    m.pipeline.hand_over_name = "tile_ready"; // no score is waited for
    detail::serve_selector(m);
    return m;
}
/// Sanger (MICRO 2021): 4-bit products, a threshold on their softmax, rows packed into one array;
/// 55 nm, 500 MHz (Table II), 128 GB/s. Guessed: SOFA's array sizes; the array's use is the middle
/// of what its authors give.
[[nodiscard]] inline machine sanger() {
    machine m;
    m.base_name = "sanger";
    m.process.clock_megahertz = 500;
    m.process.node_nanometres = 55;
    m.process.supply_volts = 1.2;
    m.memory.peak_bytes_per_cycle = 256; // 128 GB/s
    m.prediction.kind_name = "multiply";
    m.selection.kind_name = "threshold";
    m.attention.kind_name = "packed_rows";
    detail::give_2_mb(m);
    detail::serve_selector(m);
    return m;
}
/// No prediction: FlashAttention-2 over all keys, on as many multipliers as SOFA has. Not in the paper.
[[nodiscard]] inline machine dense_fa2() {
    machine m;
    m.base_name = "dense_fa2";
    m.prediction.kind_name = "none";
    m.selection.kind_name = "none";
    m.attention.kind_name = "flash_attention_2";
    return m;
}
/// Fig. 17's baseline: 4-bit products, a full sort, FlashAttention-2; whole rows, as the sort needs.
[[nodiscard]] inline machine plain_4bit() {
    machine m;
    m.base_name = "plain_4bit";
    m.prediction.kind_name = "multiply";
    m.selection.kind_name = "full_sort";
    m.attention.kind_name = "flash_attention_2";
    m.pipeline.hand_over_name = "row_ready";
    detail::serve_selector(m);
    return m;
}

/// The same design for so many queries at a time (Fig. 3's parallelism): every count that goes with
/// the rows, banks of the memories included; their capacities and the DRAM stay.
[[nodiscard]] inline machine with_parallel_queries(machine m, index_t rows) {
    for (sram_buffer* memory : {&m.buffers.token, &m.buffers.weight, &m.buffers.temporary}) {
        memory->ports_count = ceil_div(memory->ports_count * rows, m.attention.rows_count);
    }
    m.prediction.array_rows_count = rows;
    m.prediction.lz_encoders_count = rows + m.prediction.array_columns_count;
    m.selection.cores_count = rows;
    m.attention.rows_count = rows;
    m.attention.exp_units_count = rows;
    m.attention.dividers_count = rows;
    return m;
}

/// By name; throws `error` with the names there are.
[[nodiscard]] inline machine find_machine(std::string_view name) {
    for (auto const& make : {sofa_28nm, sofa_row_ready, sofa_shared_exp, sofa_one_port, sofa_hbm2,
                             sofa_ddr4, fact, energon, spatten, sanger, dense_fa2, plain_4bit}) {
        machine m = make();
        if (m.base_name == name) {
            return m;
        }
    }
    throw error("hardware: base_name", "\"" + std::string(name) + "\"",
                limit_of(machine::fields[0], std::string()));
}

} // namespace sofattn::hw
