// SPDX-License-Identifier: MIT
// Runs as text for a terminal of 100 columns, as JSON and as CSV.
#pragma once

#include "hw/described_json.hpp"
#include <sofattn/hw/run.hpp>
#include <sofattn/io/table.hpp>

#include <string>
#include <string_view>
#include <vector>

namespace sofattn::hw {

/// A run and its name: of the workload, the machine, or a point of a sweep.
struct named_run {
    std::string name;
    run_report report{};
};

/// printf of one number.
[[nodiscard]] std::string number(char const* format, double value);

[[nodiscard]] std::string to_text(named_run const& run);
[[nodiscard]] json to_json(named_run const& run);
/// Runs in rows: time, throughputs, energy, area, traffic; `first` heads the column of names.
/// `pareto`, if not empty, has a flag per run. Narrow: without what other columns tell.
[[nodiscard]] io::table to_table(std::vector<named_run> const& runs, std::string_view first,
                                 std::vector<bool> const& pareto = {}, bool is_narrow = false);

/// The prices with their sources, and the fields of a description.
[[nodiscard]] std::string to_text(energy_table const& prices);
[[nodiscard]] std::string to_text(std::vector<explained_field> const& fields);
[[nodiscard]] json to_json(energy_table const& prices);

} // namespace sofattn::hw
