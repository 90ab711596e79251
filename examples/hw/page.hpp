// SPDX-License-Identifier: MIT
// Runs as self-contained HTML pages, for those who decide and not only for those who ran them.
#pragma once

#include "hw/report.hpp"
#include "hw/settings.hpp"
#include <sofattn/io/figure.hpp>

#include <string>
#include <vector>

namespace sofattn::hw {

/// A run and the timeline of its first tiles.
struct pictured_run {
    named_run of;
    io::figure first_tiles;
};

/// One run, or one workload on several machines whose names the runs have; not none.
[[nodiscard]] std::string to_page(std::string const& workload_name,
                                  std::vector<pictured_run> const& runs);
/// The runs of a sweep, with the Pareto front of time, energy and area.
[[nodiscard]] std::string to_page(std::string const& workload_name,
                                  std::vector<named_run> const& runs,
                                  std::vector<variation> const& varied,
                                  std::vector<bool> const& pareto);

/// What the numbers rest on and the paper does not say: of the model, and every field of machine
/// and workload whose value is not from the paper.
[[nodiscard]] std::vector<std::string> assumptions(run_report const& r);

} // namespace sofattn::hw
