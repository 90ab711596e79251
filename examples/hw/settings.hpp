// SPDX-License-Identifier: MIT
// Machines and workloads from names, files and assignments on the command line.
#pragma once

#include <sofattn/hw/config.hpp>
#include <sofattn/hw/workload.hpp>

#include <string>
#include <vector>

namespace sofattn::hw {

/// A workload and what to call it.
struct chosen_workload {
    std::string name;
    workload of{};
};

/// "name" or "file.json"; a file names the fields that differ from those of its "base_name" (default
/// sofa_28nm, llama_7b_layer). Throws `error`; ranges are checked by `validate` later, after `assign`.
[[nodiscard]] machine load_machine(std::string const& name_or_file);
[[nodiscard]] chosen_workload load_workload(std::string const& name_or_file);

/// Applies "path=value" to the machine or the workload that has such a field ("kept_share=0.1",
/// "attention.exp_units_count=4"). Throws `error` for a text without "=", an unknown field, or a
/// value of another kind.
void assign(std::string const& assignment, machine& m, workload& w);

/// The path before "=" and the texts after it, separated by commas.
struct variation {
    std::string path;
    std::vector<std::string> values;
};
[[nodiscard]] variation parse_variation(std::string const& text);

} // namespace sofattn::hw
