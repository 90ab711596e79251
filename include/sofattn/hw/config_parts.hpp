// SPDX-License-Identifier: MIT
// The parts of a machine: engines and buffers, each with a table that explains its fields.
#pragma once

#include <sofattn/core/types.hpp>
#include <sofattn/hw/field.hpp>

#include <boost/hana/adapt_struct.hpp>

#include <array>
#include <string>

namespace sofattn::hw {

/// DLZS: leading-zero encoders, and the array of shift-and-add elements that serves both phases
/// (paper section IV-B, Fig. 12, Table III).
struct prediction_engine {
    index_t array_rows_count = 128;
    index_t array_columns_count = 32;
    index_t lz_encoders_count = 128;
    index_t encoder_latency_cycles = 1;
    index_t result_latency_cycles = 1;
    index_t result_bytes = 2;
    index_t out_buffer_bytes = 4096;
    std::string kind_name = "dlzs";
    index_t operand_bits = 4;
    double survivors_share = 0.5;

    static constexpr std::array fields{
        field{"array_rows_count", "Rows of the shift array: queries (or tokens) served at a time",
              "Table III", 1, 4096},
        field{"array_columns_count", "Columns: keys (or channels of K^) per pass", "Table III", 1,
              4096},
        field{"lz_encoders_count", "Values converted to leading-zero codes per cycle", "Table III",
              1, 65536},
        field{"encoder_latency_cycles", "Two chained 8-bit leading-zero counters",
              "assumed: one cycle at 1 GHz", 0, 64},
        field{"result_latency_cycles", "From an element's last product to its sum's use",
              "assumed: one register", 0, 64},
        field{"result_bytes", "A predicted score, or an element of K^", "section IV-B: 16 bits", 1,
              8},
        field{"out_buffer_bytes", "Sums that wait for the ports of the memory they go to",
              "section IV-B: 4 KB", 1, 1 << 30},
        field{"kind_name",
              "How scores are predicted: one operand coded, both, narrow products, narrow products "
              "in two rounds, from earlier rows and layers, or not at all",
              "section III-A; hw/kinds.hpp for the others", 0, 0,
              "dlzs|two_sided_lz|multiply|multi_round|history|none"},
        field{"operand_bits", "Narrower operand of multiply and multi_round",
              "Fig. 17's baseline: 4 bits", 1, 16},
        field{"survivors_share", "Keys of a tile that multi_round computes again, and judges again",
              "assumed: a mean halves a row", 0, 1},
    };
};

/// SADS: a sorting core and a clipping unit per row (paper section IV-C, Fig. 13).
struct selection_engine {
    index_t cores_count = 128;
    index_t new_inputs_count = 12;
    index_t kept_outputs_count = 4;
    index_t clip_latency_cycles = 1;
    index_t output_latency_cycles = 1;
    std::string kind_name = "sads";

    static constexpr std::array fields{
        field{"cores_count", "Rows sorted at a time", "Table III", 1, 4096},
        field{"new_inputs_count", "Entries that enter a core per cycle", "section IV-C", 1, 1024},
        field{"kept_outputs_count", "Entries that an iteration yields", "section IV-C", 1, 256},
        field{"clip_latency_cycles", "Clipping unit before the network", "assumed: one register", 0,
              64},
        field{"output_latency_cycles", "From the last pass to the mask and the ID buffer",
              "assumed: one register", 0, 64},
        field{"kind_name",
              "How keys are selected: top-k by segments, a full sort, a threshold from the mean in "
              "two rounds, halving partitions, a threshold, or every key is kept",
              "section III-B; hw/selection_rivals.hpp for the others", 0, 0,
              "sads|full_sort|mean_threshold|quick_select|threshold|none"},
    };
};

/// Exact K and V of selected tokens: multiply-accumulate elements, outputs stationary.
struct generation_engine {
    index_t array_rows_count = 128;
    index_t array_columns_count = 4;
    index_t mac_latency_cycles = 1;

    static constexpr std::array fields{
        field{"array_rows_count", "Channels of K and V computed at a time (of both, side by side)",
              "Table III; which dimension lies along the rows is assumed", 1, 4096},
        field{"array_columns_count", "Tokens at a time", "Table III", 1, 4096},
        field{"mac_latency_cycles", "From an element's last product to its result",
              "assumed: one register", 0, 64},
    };
};

/// SU-FA: two systolic arrays with the auxiliary process (AP) modules between them (paper section
/// IV-D, Fig. 14).
struct attention_engine {
    index_t rows_count = 128;
    index_t keys_per_row_count = 2;
    index_t row_skew_cycles = 1;
    index_t mac_latency_cycles = 1;
    index_t exp_units_count = 128;
    index_t exp_interval_cycles = 1;
    index_t exp_latency_cycles = 4;
    index_t max_update_cycles = 1;
    index_t dividers_count = 128;
    index_t divide_interval_cycles = 1;
    index_t divide_latency_cycles = 8;
    std::string kind_name = "sufa";
    double packed_use_share = 0.65;

    static constexpr std::array fields{
        field{"rows_count", "Queries attended at a time", "Table III", 1, 4096},
        field{"keys_per_row_count",
              "Keys a row takes per phase: as many elements for Q.K and as many for S.V",
              "Table III, Fig. 14", 1, 256},
        field{"row_skew_cycles", "A key vector moves on to the next row; 0 for a broadcast",
              "section IV-D: systolic", 0, 64},
        field{"mac_latency_cycles", "From an element's last product to its result",
              "assumed: one register", 0, 64},
        field{"exp_units_count", "Exponential units, shared evenly by the rows", "Table III", 1,
              65536},
        field{"exp_interval_cycles",
              "Subtractions and exponentials: one per unit in so many cycles", "assumed: pipelined",
              1, 64},
        field{"exp_latency_cycles", "Subtract, table step, multiply, round", "assumed: four stages",
              0, 256},
        field{"max_update_cycles",
              "A score above the maximum (AP mode 1) holds its unit so much longer",
              "assumed: the register is reloaded, the difference taken anew", 0, 64},
        field{"dividers_count", "Division units, shared evenly by the rows", "Table III", 1, 65536},
        field{"divide_interval_cycles", "Outputs divided: one per unit in so many cycles",
              "assumed: pipelined", 1, 64},
        field{"divide_latency_cycles", "Of one division", "assumed: two bits per stage, 16 bits", 0,
              256},
        field{"kind_name",
              "How the softmax is updated: by sorted keys, or tile by tile; or rows are packed",
              "section III-C, Fig. 10; packed_rows: hw/packed_time.hpp", 0, 0,
              "sufa|flash_attention_2|packed_rows"},
        field{"packed_use_share", "Elements at work where rows are packed by their kept keys",
              "Sanger: 0.56 to 0.74", 0.01, 1},
    };
};

/// RASS: ID buffer, finite-state machine and issue FIFO (paper section IV-D, Fig. 15).
struct schedule_engine {
    index_t issue_interval_cycles = 1;
    index_t phase_switch_cycles = 1;
    index_t issue_latency_cycles = 2;
    index_t keys_per_phase_count = 2;

    static constexpr std::array fields{
        field{"issue_interval_cycles", "One key's ID leaves in so many cycles",
              "assumed: one per cycle", 1, 64},
        field{"phase_switch_cycles", "The machine starts a phase anew",
              "assumed: one cycle to clear the served mask", 0, 64},
        field{"issue_latency_cycles", "From the ID buffer to the fetcher",
              "assumed: lookup and FIFO", 0, 64},
        field{"keys_per_phase_count", "Keys one query may take per phase", "Fig. 15", 1, 256},
    };
};

/// An on-chip memory.
struct sram_buffer {
    index_t capacity_bytes = 0;
    index_t ports_count = 1;
    index_t port_bytes_per_cycle = 64;

    [[nodiscard]] constexpr index_t bytes_per_cycle() const noexcept {
        return ports_count * port_bytes_per_cycle;
    }

    static constexpr std::array fields{
        field{"capacity_bytes", "What it holds", "Table III", 1, index_t{1} << 40},
        field{"ports_count", "Accesses per cycle: banks that work at once",
              "assumed: as many as the engines ask for at full pace, hw/README.md", 1, 4096},
        field{"port_bytes_per_cycle", "Width of a port",
              "assumed: the widths at which its energy was taken from CACTI", 1, 65536},
    };
};

/// The three memories of Fig. 11.
struct buffer_set {
    sram_buffer token{192 * 1024, 8, 64};
    sram_buffer weight{96 * 1024, 6, 64};
    sram_buffer temporary{28 * 1024, 16, 32};

    static constexpr std::array fields{
        field{"token", "Tokens, keys and values of the tiles in flight", "Table III"},
        field{"weight", "Projection weights and their codes", "Table III"},
        field{"temporary", "Scores, masks, K^ of a tile", "Table III"},
    };
};

/// Hand-over and depth of the pipeline.
struct pipeline_settings {
    std::string hand_over_name = "tile_ready";
    index_t buffered_tiles_count = 2;

    static constexpr std::array fields{
        field{"hand_over_name",
              "When selection may begin: with a tile of a row block, or with the whole rows",
              "section III, Fig. 6", 0, 0, "tile_ready|row_ready"},
        field{"buffered_tiles_count", "Tiles that may wait between two engines",
              "assumed: double buffering", 1, 1024},
    };
};

} // namespace sofattn::hw

// clang-format off
BOOST_HANA_ADAPT_STRUCT(sofattn::hw::prediction_engine,
    array_rows_count, array_columns_count, lz_encoders_count, encoder_latency_cycles,
    result_latency_cycles, result_bytes, out_buffer_bytes, kind_name, operand_bits, survivors_share);
BOOST_HANA_ADAPT_STRUCT(sofattn::hw::selection_engine,
    cores_count, new_inputs_count, kept_outputs_count, clip_latency_cycles, output_latency_cycles,
    kind_name);
BOOST_HANA_ADAPT_STRUCT(sofattn::hw::generation_engine,
    array_rows_count, array_columns_count, mac_latency_cycles);
BOOST_HANA_ADAPT_STRUCT(sofattn::hw::attention_engine,
    rows_count, keys_per_row_count, row_skew_cycles, mac_latency_cycles, exp_units_count,
    exp_interval_cycles, exp_latency_cycles, max_update_cycles, dividers_count,
    divide_interval_cycles, divide_latency_cycles, kind_name, packed_use_share);
BOOST_HANA_ADAPT_STRUCT(sofattn::hw::schedule_engine,
    issue_interval_cycles, phase_switch_cycles, issue_latency_cycles, keys_per_phase_count);
BOOST_HANA_ADAPT_STRUCT(sofattn::hw::sram_buffer,
    capacity_bytes, ports_count, port_bytes_per_cycle);
BOOST_HANA_ADAPT_STRUCT(sofattn::hw::buffer_set, token, weight, temporary);
BOOST_HANA_ADAPT_STRUCT(sofattn::hw::pipeline_settings, hand_over_name, buffered_tiles_count);
// clang-format on
