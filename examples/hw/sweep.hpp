// SPDX-License-Identifier: MIT
// One workload on variants of one machine, or variants of a workload: one or two fields.
#pragma once

#include "hw/report.hpp"
#include "hw/settings.hpp"

#include <vector>

namespace sofattn::hw {

/// Every combination of the values, first variation slowest; names are the values. Throws
/// `error` for an unknown field or a value out of range, before any run is returned.
[[nodiscard]] std::vector<named_run> sweep(machine const& m, workload const& w,
                                           std::vector<variation> const& varied);

/// The fields varied, without the parts they lie in: heads the names of a sweep's runs.
[[nodiscard]] std::string names_of(std::vector<variation> const& varied);

/// Which runs no other run beats: none is at least as good in time, energy and area and better in
/// one of them.
[[nodiscard]] std::vector<bool> pareto_front(std::vector<named_run> const& runs);

} // namespace sofattn::hw
