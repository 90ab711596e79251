// SPDX-License-Identifier: MIT
// Runs as text for a terminal of 100 columns, as JSON and as CSV.
#pragma once

#include "hw/described_json.hpp"
#include <sofattn/core/units.hpp>
#include <sofattn/hw/dram_energy.hpp>
#include <sofattn/hw/run.hpp>
#include <sofattn/hw/tile_work.hpp>
#include <sofattn/io/table.hpp>

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace sofattn::hw {

/// A run and its name: of the workload, the machine, or a point of a sweep.
struct named_run {
    std::string name;
    run_report report{};
};

/// What is moved, and what a DRAM spends: names in JSON and tables, and members.
inline constexpr std::array<std::pair<std::string_view, std::uint64_t tile_traffic::*>, 11>
    traffic_fields{{
        {"query_bytes", &tile_traffic::query_bytes},
        {"token_bytes", &tile_traffic::token_bytes},
        {"code_bytes", &tile_traffic::code_bytes},
        {"index_bytes", &tile_traffic::index_bytes},
        {"kept_token_bytes", &tile_traffic::kept_token_bytes},
        {"weight_bytes", &tile_traffic::weight_bytes},
        {"key_bytes", &tile_traffic::key_bytes},
        {"value_bytes", &tile_traffic::value_bytes},
        {"spilled_score_bytes", &tile_traffic::spilled_score_bytes},
        {"stored_bytes", &tile_traffic::stored_bytes},
        {"output_bytes", &tile_traffic::output_bytes},
    }};

inline constexpr std::array<std::pair<std::string_view, picojoules dram_energy::*>, 6>
    off_chip_fields{{
        {"activate", &dram_energy::activate},
        {"read", &dram_energy::read},
        {"write", &dram_energy::write},
        {"refresh", &dram_energy::refresh},
        {"standby", &dram_energy::standby},
        {"io", &dram_energy::io},
    }};

/// printf of one number.
[[nodiscard]] std::string number(char const* format, double value);

/// The shapes in one line: "S 4096, T 4096, ...".
[[nodiscard]] std::string shape_text(run_report const& r);

[[nodiscard]] std::string to_text(named_run const& run);
[[nodiscard]] json to_json(named_run const& run);
/// Runs in rows: time, throughputs, energy, area, traffic; `first` heads the column of names.
/// `pareto`, if not empty, has a flag per run. Narrow: without what other columns tell.
[[nodiscard]] io::table to_table(std::vector<named_run> const& runs, std::string_view first,
                                 std::vector<bool> const& pareto = {}, bool is_narrow = false);

/// Parts of a run's text.
[[nodiscard]] io::table stage_table(pipeline_timing const& t);
[[nodiscard]] io::table block_table(run_report const& r);
[[nodiscard]] io::table traffic_table(run_report const& r);
[[nodiscard]] io::table throughput_table(run_report const& r);

/// The prices with their sources, and the fields of a description.
[[nodiscard]] std::string to_text(energy_table const& prices);
[[nodiscard]] std::string to_text(std::vector<explained_field> const& fields);
[[nodiscard]] json to_json(energy_table const& prices);

} // namespace sofattn::hw
